"""`retrainer run`, made to die at a named place: `python -m tests.chaos.daemon`.

CHAOS_CRASH=after:SqlLedger.commit:3 has it kill itself when the third call of that method is over (`before`: when it
begins); before:COMMIT stands for the database's own. Nothing else of the daemon is changed.

With `--nursery` it imports what the daemon imports and then forks one for each line of JSON on its input,
{"environment": {...}, "log": "path"}, so that a daemon is there again in a tenth of the time an interpreter takes. It
answers {"pid": n}, and {"ended": n, "status": s} for each that has ended. What it forked ends when it does.
"""

import contextlib
import ctypes
import importlib
import inspect
import json
import os
import selectors
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

CRASH = "CHAOS_CRASH"
_IMPORTED = (
    "retrainer.settings",
    "retrainer.wiring",
    "aiobotocore.session",
    "botocore.parsers",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "uvicorn.protocols.http.h11_impl",
)
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    if arguments == ["--nursery"]:
        _nursery()
    return _run()


def _run() -> int:
    if point := os.environ.get(CRASH):
        plant(point)
    from retrainer.cli import main as cli

    return cli(["run"])


def methods() -> dict[str, type]:
    """Every public async method of the ledger and the analyst, as Class.method: where a daemon can be made to die."""
    from retrainer.adapters.analyst import WorkerAnalyst
    from retrainer.adapters.ledger_sql import SqlLedger

    return {
        f"{cls.__name__}.{name}": cls
        for cls in (SqlLedger, WorkerAnalyst)
        for name, method in vars(cls).items()
        if inspect.iscoroutinefunction(method) and not name.startswith("_")
    }


def plant(point: str) -> None:
    """Have this process kill itself there. Raises KeyError when there is no such place."""
    side, place, count = point.split(":")
    die = _nth(int(count))
    if place == "COMMIT":
        from sqlalchemy import Engine, event

        event.listen(Engine, "commit", lambda connection: die())
        return
    cls, name = methods()[place], place.partition(".")[2]
    original = getattr(cls, name)

    async def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
        if side == "before":
            die()
        answer = await original(self, *arguments, **named)
        if side == "after":
            die()
        return answer

    setattr(cls, name, wrapped)


def _nth(count: int) -> Callable[[], None]:
    left = count

    def die() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return die


# --- the nursery ---


def _nursery() -> NoReturn:
    for name in _IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    selector = selectors.DefaultSelector()
    for source in (0, reading):
        selector.register(source, selectors.EVENT_READ)
    _tell({"ready": True})
    left = b""
    while True:
        ready = {key.fd for key, _ in selector.select()}
        if reading in ready:
            os.read(reading, 512)
            _bury()
        if 0 in ready:
            read = os.read(0, 65536)
            if not read:
                os._exit(0)
            *lines, left = (left + read).split(b"\n")
            for line in lines:
                _tell({"pid": _born(json.loads(line), (reading, writing))})


def _tell(words: dict[str, object]) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


def _bury() -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            _tell({"ended": found[0], "status": os.waitstatus_to_exitcode(found[1])})


def _born(wanted: dict[str, Any], pipe: tuple[int, int]) -> int:
    """The process id of a daemon that begins where `python -m tests.chaos.daemon` would be after its imports."""
    nursery = os.getpid()
    if pid := os.fork():
        return pid
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != nursery:
            os._exit(1)
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in pipe:
            os.close(descriptor)
        _put(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(Path(wanted["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        _put(log, 2)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        status = _run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _put(descriptor: int, at: int) -> None:
    os.dup2(descriptor, at)
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
