"""One replica of the daemon: born in the nursery, killed, and born again at once."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from retrainer.demo.children import die_with_me
from tests.chaos.daemon import CRASH


class Nursery:
    """Makes daemons (tests.chaos.daemon --nursery), and tells how they end; an async context manager."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *die_with_me(sys.executable, "-m", "tests.chaos.daemon", "--nursery"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout
        words = await self._process.stdout.readline()
        assert words, f"the nursery ended at its start: {self._log.read_text()}"
        self._reading = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def bear(self, environment: Mapping[str, str], log: Path) -> tuple[int, asyncio.Future[int]]:
        """A new daemon: its process id, and its exit status to come (-9: it was killed)."""
        assert self._process.stdin
        async with self._asking:
            wanted = {"environment": dict(environment), "log": str(log)}
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            await self._process.stdin.drain()
            pid = await self._born.get()
        return pid, self._end_of(pid)

    async def hatch(self, environment: Mapping[str, str], log: Path) -> tuple[int, asyncio.Future[int]]:
        """As `bear`, but by the command itself: `retrainer run`, with all that an interpreter takes to start."""
        module = ("tests.chaos.daemon",) if CRASH in environment else ("retrainer", "run")
        with log.open("ab") as words:
            process = await asyncio.create_subprocess_exec(
                *die_with_me(sys.executable, "-m", *module),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )
        return process.pid, asyncio.ensure_future(process.wait())

    def _end_of(self, pid: int) -> asyncio.Future[int]:
        return self._ends.setdefault(pid, asyncio.get_running_loop().create_future())

    async def _listen(self) -> None:
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            words = json.loads(line)
            if "pid" in words:
                self._ends.pop(words["pid"], None)  # of an earlier process with the same number
                self._end_of(words["pid"])
                self._born.put_nowait(words["pid"])
            else:
                self._end_of(words["ended"]).set_result(words["status"])


class Replica:
    """The process `retrainer run` that is there at this moment, if any."""

    def __init__(self, nursery: Nursery, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.pid: int | None = None
        self.born_at = 0.0
        self._nursery = nursery
        self._environment = {**_own(), **environment}
        self._end: asyncio.Future[int] | None = None

    async def start(self, crash: str | None = None, *, cold: bool = False) -> asyncio.Future[int]:
        """A new process, that dies at `crash` if one is given; its end. `cold`: not out of the nursery."""
        environment = self._environment | ({CRASH: crash} if crash else {})
        make = self._nursery.hatch if cold else self._nursery.bear
        self.pid, self._end = await make(environment, self.log)
        self.born_at = time.monotonic()
        return self._end

    async def kill(self) -> int:
        """SIGKILL, which gives nothing of it a chance to finish; returns its exit status once it is gone."""
        assert self.pid
        assert self._end
        self._signal(signal.SIGKILL)
        return await self._end

    async def stop(self, seconds: float = 75) -> int | None:
        """SIGTERM; the exit status, None when it took longer and was killed."""
        assert self.pid
        assert self._end
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._end)
        except TimeoutError:
            await self.kill()
            return None

    def _signal(self, number: signal.Signals) -> None:
        """To one that is still there: it may have ended by itself, and the nursery be about to say how."""
        assert self.pid
        if self._end and not self._end.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _own() -> dict[str, str]:
    """What every process needs, and nothing of this machine's AWS or of another retrainer's settings."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX")
    return {name: os.environ[name] for name in kept if name in os.environ}
