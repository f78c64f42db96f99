"""Starts and stops the embedded AWS from another process."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from retrainer.local.containers import INHERITED, SOURCE_ROOT
from retrainer.ports import ConfigError

REGION = "us-east-1"


class LocalAwsError(RuntimeError):
    """The embedded AWS did not start; the message ends with what it wrote last."""


class LocalAws:
    """The embedded AWS as a context manager, sync or async.

    `state` holds everything it keeps; starting again on the same directory finds everything again, on the same port
    if that is still free. `images` maps repository names to commands for images that are not the trainer.
    It ends with its parent, also when that is killed.
    """

    def __init__(
        self,
        state: Path,
        *,
        port: int = 0,
        images: Mapping[str, Sequence[str]] | None = None,
        start_seconds: float = 60.0,
        stop_seconds: float = 10.0,
        stop_grace_seconds: float = 20.0,
        endpoint_start_seconds: float = 90.0,
    ) -> None:
        self._state = state
        self._port = port
        self._start_seconds, self._stop_seconds = start_seconds, stop_seconds
        self._options = [
            *("--images", json.dumps({name: list(command) for name, command in (images or {}).items()})),
            *("--stop-grace-seconds", str(stop_grace_seconds)),
            *("--endpoint-start-seconds", str(endpoint_start_seconds)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to use this AWS and no other."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def pid(self) -> int:
        assert self._process is not None, "the local AWS is not started"
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._state / "emulator.log"

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when the emulator answers; raises LocalAwsError when it ends first or takes too long.

        Raises ConfigError when the `local` extra is not installed.
        """
        if self.is_alive():
            return
        if find_spec("ministack") is None:
            raise ConfigError("the embedded AWS needs its extra: pip install 'retrainer[local,trainer]'")
        self._state.mkdir(parents=True, exist_ok=True)
        with self._socket() as listening, self.log.open("ab") as log:
            self._port = listening.getsockname()[1]
            (self._state / "port").write_text(str(self._port))
            arguments = ["--state", str(self._state), "--fd", str(listening.fileno()), "--parent", str(os.getpid())]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "retrainer.local.server", *arguments, *self._options],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )
        self._wait_until_healthy()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for whatever of its process group is left."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._stop_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _socket(self) -> socket.socket:
        """A bound socket: the port asked for, else the one used before, else a free one."""
        remembered = self._state / "port"
        ports = [self._port] if self._port else [int(remembered.read_text())] if remembered.exists() else []
        for port in [*ports, *([] if self._port else [0])]:
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(("127.0.0.1", port))
            except OSError as error:
                listening.close()
                refused = error
            else:
                return listening
        raise LocalAwsError(f"port {self._port} on 127.0.0.1 cannot be used: {refused}")

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            if not self.is_alive():
                code = self._process.poll() if self._process is not None else None
                raise LocalAwsError(f"the local AWS ended at its start with exit code {code}:\n{self._last_words()}")
            if self._answers():
                return
            time.sleep(0.05)
        self.stop()
        raise LocalAwsError(f"the local AWS did not answer in {self._start_seconds:g} s:\n{self._last_words()}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/_retrainer/health", timeout=2) as answer:  # noqa: S310
                return bool(json.load(answer)["pid"] == self.pid)
        except OSError:
            return False

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def _environment() -> dict[str, str]:
    """Nothing of the user's AWS configuration reaches the emulator, nor what runs inside it."""
    kept = {name: os.environ[name] for name in (*INHERITED, "HOME", "LOG_LEVEL") if name in os.environ}
    paths = [str(SOURCE_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return kept | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",
    }
