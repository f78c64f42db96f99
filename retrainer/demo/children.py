"""The two processes of the demonstration, the embedded AWS and the daemon, brought back when they die."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from retrainer.local import launch
from retrainer.local.aws import LocalAws

Tell = Callable[[str], None]


class Daemon:
    """`retrainer run` as a child process; its log is a file, and it ends when its parent does."""

    def __init__(self, environment: Mapping[str, str], log: Path, url: str) -> None:
        self._environment = {**os.environ, **environment}
        self._log = log
        self._url = url
        self._process: subprocess.Popen[bytes] | None = None

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns once the daemon is ready. Raises RuntimeError with its last words when it does not get there."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                die_with_me(sys.executable, "-m", "retrainer", "run"),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.is_alive():
            try:
                if httpx.get(f"{self._url}/readyz", timeout=2).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        words = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        self.stop()
        raise RuntimeError(f"the daemon did not become ready:\n{words}")

    def stop(self) -> None:
        """SIGTERM and up to 30 seconds to drain, then SIGKILL."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Children:
    """Both, as one thing to watch. `restarts` counts what had to be brought back."""

    def __init__(self, aws: LocalAws, daemon: Daemon, tell: Tell) -> None:
        self.restarts = 0
        self._aws = aws
        self._daemon = daemon
        self._tell = tell

    def watch(self) -> None:
        """Bring back what has died, as an init system would."""
        if not self._aws.is_alive():
            self._tell("the embedded AWS has died; it is started again on its saved state")
            self._aws.start()
            self.restarts += 1
        if not self._daemon.is_alive():
            self._tell("the daemon has died; it is started again on its ledger")
            self._daemon.start()
            self.restarts += 1


def free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_me(*command: str) -> list[str]:
    """The command, to be ended by the kernel when this process ends, however it does."""
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *command]
