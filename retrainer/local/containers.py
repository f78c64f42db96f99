"""A container is a real process group on this machine: its command, its environment, its log, its end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
SOURCE_ROOT = Path(__file__).resolve().parents[2]  # where `trainer` is importable from in a checkout
IMAGE_PATHS = (SOURCE_ROOT, SOURCE_ROOT / "deploy")  # what the trainer image holds: trainer and deploy/steps
OPT_ML = "/opt/ml"
_alive: "set[Container]" = set()
# The only variables of the emulator's own environment that a container sees.
INHERITED = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "LANG", "SSL_CERT_FILE", "MALLOC_ARENA_MAX")


def command_line(
    entrypoint: Sequence[str], arguments: Sequence[str], *, image: Sequence[str] = (), default: Sequence[str] = ()
) -> list[str]:
    """What a container runs here, with `python` meaning this interpreter.

    The request's entry point comes first, else the image's own command, else `python -m trainer`; an image is called
    with `default` when the request has no arguments, as docker does with CMD.
    """
    first, *rest = entrypoint or image or ("python", "-m", "trainer")
    if Path(first).name in {"python", "python3"}:
        first = sys.executable
    return [first, *rest, *(arguments or ([] if entrypoint else default))]


def environment(base: Path, extra: Mapping[str, str], *, network: bool = True) -> dict[str, str]:
    """A container's environment: nothing of the user's but the search paths; the same on every run.

    With `network`, the container reaches the embedded AWS as it would AWS under its role.
    """
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    paths = [*map(str, IMAGE_PATHS), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    scratch = base.parent / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    return {
        "LANG": "C.UTF-8",
        **inherited,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "SAGEMAKER_BASE_DIR": str(base),
        **({name: value for name, value in os.environ.items() if name.startswith("AWS_")} if network else {}),
        **extra,
    }


def local_path(base: Path, path: str) -> Path:
    """Where a path of the container lies on this machine."""
    if (path != OPT_ML and not path.startswith(OPT_ML + "/")) or ".." in Path(path).parts:
        raise ValueError(f"{path!r} is not under {OPT_ML}")
    return base / path[len(OPT_ML) :].lstrip("/")


class Container:
    """One process group that lives no longer than the thread that made it, nor than the emulator."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._log = log.open("ab", buffering=0)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _alive.add(self)
        self._reader = threading.Thread(target=self._read, args=(on_line,), daemon=True, name="container-log")
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, seconds: float) -> int | None:
        """The exit code (128 + n for signal n, as docker reports it), or None while it runs."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if self in _alive:
            self.kill()  # what it forked and forgot
            _alive.discard(self)
            self._reader.join(timeout=5)
        return 128 - code if code < 0 else code

    def stop(self, grace_seconds: float) -> int:
        """SIGTERM, then SIGKILL when the grace has passed; returns the exit code."""
        if self._process.poll() is None:
            # Only the container's first process gets SIGTERM, as under docker.
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
        code = self.wait(grace_seconds)
        if code is None:
            self.kill()
            code = self.wait(10)
        return 137 if code is None else code

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self, on_line: Callable[[str], None] | None) -> None:
        assert self._process.stdout is not None
        with self._log, self._process.stdout as lines:
            for line in lines:
                self._log.write(line)
                if on_line is not None:
                    on_line(line.decode(errors="replace").rstrip("\n"))


def kill_all() -> None:
    """The end of every container, at the end of the emulator."""
    for container in list(_alive):
        container.kill()


def last_line(log: Path) -> str:
    """The last line a container wrote, for the reason of its failure."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


def failure_reason(base: Path, log: Path, exit_code: int, files: Sequence[str]) -> str:
    """What SageMaker says when an algorithm fails: its own words (1,024 characters) and the exit code."""
    words = ""
    for name in files:
        if (base / name).is_file():
            words = (base / name).read_text(errors="replace")[:1024].strip()
            break
    return f"AlgorithmError: {words or last_line(log) or 'see the log'}, exit code: {exit_code}"
