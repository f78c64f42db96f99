"""The evidence worker as the daemon sees it: a child process, spoken to in lines of JSON, killed if it misbehaves."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from retrainer.core import record
from retrainer.core.effects import MeasureEvidence, PublishReport
from retrainer.core.evidence import Evidence
from retrainer.core.policy import Policy
from retrainer.ports import PermanentError, TransientError

LINE_BYTES = 64 << 20
"""The longest answer; evidence on 10,000 batches and 1,000 columns is 3 MB."""

_STDERR_BYTES = 4096
_LOOK_SECONDS = 0.1
_EVIDENCE = TypeAdapter(Evidence)
_QUIET = {
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "PYTHONUTF8": "1",
}


class WorkerAnalyst:
    """Implements `ports.Analyst`. The process starts at the first call, and again after one that it did not survive.

    `memory_bytes` bounds the child's anonymous resident memory, looked at every 0.1 s: RLIMIT_AS and RLIMIT_DATA count
    what thread stacks and memory pools reserve and never touch, and end in a MemoryError somewhere inside a library.
    """

    def __init__(
        self,
        *,
        deadline_seconds: float = 300.0,
        memory_bytes: int = 2 << 30,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._deadline_seconds = deadline_seconds
        self._memory_bytes = memory_bytes
        self._environment = environment
        self._turn = asyncio.Lock()
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is no child."""
        return self._child.process.pid if self._child else None

    async def measure(self, effect: MeasureEvidence, policy: Policy) -> Evidence:
        """Raises TransientError (worker lost, S3 away) or PermanentError (no answer can be had)."""
        answer = await self._ask("measure", effect, policy)
        return _EVIDENCE.validate_python(answer["evidence"])

    async def publish(self, effect: PublishReport, policy: Policy) -> None:
        """Store the report. Raises as `measure`."""
        await self._ask("publish", effect, policy)

    async def close(self) -> None:
        """End the child: its input ends, then it is asked to, then it is made to. A call in progress is let finish."""
        async with self._turn:
            child, self._child = self._child, None
            if child:
                await child.end()

    async def _ask(self, do: str, effect: MeasureEvidence | PublishReport, policy: Policy) -> Mapping[str, Any]:
        data = policy.data.model_dump_json()
        request = f'{{"do":"{do}","effect":{record.dump(effect)},"data":{data}}}\n'
        async with self._turn:
            answer = await self._exchange(request)
        if answer.get("error") == "transient":
            raise TransientError(answer["why"])
        if "error" in answer:
            raise PermanentError(answer["why"])
        return answer

    async def _exchange(self, request: str) -> Mapping[str, Any]:
        """One request, one answer; a child that gives none, or is no longer waited for, is killed."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                if self._child is None or self._child.process.returncode is not None:
                    await self._drop()
                    self._child = await _Child.start({**(self._environment or os.environ), **_QUIET})
                line = await self._child.exchange(request.encode(), self._memory_bytes)
            answer: Mapping[str, Any] = json.loads(line)
        except TimeoutError as error:
            await self._drop()
            raise TransientError(f"the evidence worker gave no answer in {self._deadline_seconds:g} s") from error
        except (_LostError, OSError, ValueError) as error:
            told = await self._drop()
            raise TransientError(f"the evidence worker was lost: {error or type(error).__name__}{told}") from error
        except BaseException:
            await self._drop()
            raise
        return answer

    async def _drop(self) -> str:
        child, self._child = self._child, None
        return await child.kill() if child else ""


class _LostError(Exception):
    """The child ended, or had to."""


class _Child:
    """A running worker process and the end of what it said on stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._said = b""
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, environment: Mapping[str, str]) -> "_Child":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "retrainer.worker",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            env=environment,
        )
        return cls(process)

    async def exchange(self, request: bytes, memory_bytes: int) -> bytes:
        """Write the request, return the answer's line. Raises _LostError, OSError or ValueError (line too long)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(request)
        reading = asyncio.create_task(self.process.stdout.readline())
        try:
            await self.process.stdin.drain()
            while not (await asyncio.wait({reading}, timeout=_LOOK_SECONDS))[0]:
                if (used := _anonymous_bytes(self.process.pid)) > memory_bytes:
                    raise _LostError(f"it used {used >> 20} MiB of memory, and may use {memory_bytes >> 20}")
            line = reading.result()
        finally:
            reading.cancel()
            await asyncio.wait({reading})
        if not line.endswith(b"\n"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):  # its exit status is worth more than the one a kill would leave
                    await self.process.wait()
            raise _LostError("it ended before it answered")
        return line

    async def end(self) -> None:
        """Ask politely, then less so."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        for stop, patience_seconds in ((self.process.terminate, 5.0), (self.process.kill, 2.0)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_seconds):
                    await self.process.wait()
                break
            with contextlib.suppress(ProcessLookupError):
                stop()
        await self.kill()

    async def kill(self) -> str:
        """End it now; returns how it ended and what it last said, to be put at the end of a sentence."""
        assert self.process.stdin is not None
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        code = await self.process.wait()
        self.process.stdin.close()
        await self._listener
        said = self._said.decode(errors="replace").strip()
        return f" (exit status {code}{', stderr ends: ' + said if said else ''})"

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while part := await self.process.stderr.read(_STDERR_BYTES):
            self._said = (self._said + part)[-_STDERR_BYTES:]


def _anonymous_bytes(pid: int) -> int:
    """Resident memory that is the process's own, from /proc; 0 where there is none (then nothing is bounded)."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
