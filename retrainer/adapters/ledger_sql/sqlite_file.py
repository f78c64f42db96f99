"""The SQLite file that holds a ledger: its settings, its size, and its lock against a second process."""

import fcntl
import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import QueuePool

from retrainer.adapters.ledger_sql import migrate
from retrainer.ports import ConfigError, PermanentError, TransientError

_SETTINGS = (
    # Only a file that is made by this sets it: room that compacting frees is given back to the file system.
    "auto_vacuum=INCREMENTAL",
    # WAL: readers do not wait for the writer. FULL: a commit is on the disk, not on its way there.
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    # What a burst leaves of the write-ahead log when it starts again from its beginning.
    "journal_size_limit=8388608",
)
_PAGES_GIVEN_BACK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteFile:
    """`database.Database` on a file. `writer` is None when it was opened to be read only."""

    path: Path
    reader: Engine
    writer: Engine | None
    lock: int | None

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def patience_seconds(self) -> float | None:
        return None

    def translated(self, error: Exception) -> Exception:
        return _translated(self.path, error)

    def size_bytes(self, connection: Connection) -> int:
        beside = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(file.stat().st_size for file in beside if file.exists())

    def settle(self) -> None:
        """Best effort: what is in the way now is served first, and the next time does the rest."""
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self.path, timeout=1, isolation_level=None)) as connection,
        ):
            ((kind,),) = connection.execute("PRAGMA auto_vacuum").fetchall()
            while kind == _INCREMENTAL and connection.execute("PRAGMA freelist_count").fetchone() != (0,):
                # As a script, which is read to its end: of a mere statement Python's driver would do one page.
                connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_GIVEN_BACK})")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def hang_up(self) -> None:
        """A file always answers."""

    def close(self) -> None:
        self.reader.dispose()
        if self.writer:
            self.writer.dispose()
        if self.lock is not None:
            _HELD.discard(self.lock)
            os.close(self.lock)


_INCREMENTAL = 2


def open_file(named: str, *, read_only: bool, busy_seconds: float) -> SqliteFile:
    """Open the ledger, make its tables if it is new, and keep every other process from writing to it.

    Raises ConfigError for what has to be mended first, and TransientError.
    """
    # Resolved, so that two links to one file meet at one lock.
    path = Path(named).resolve()
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no directory {path.parent}; make it, or mend the ledger's URL")
    if read_only:
        if not path.exists():
            raise ConfigError(f"{path}: there is no ledger here; mend the path, or start the daemon once to make it")
        opened = SqliteFile(path=path, reader=_engine(path, "ro", busy_seconds), writer=None, lock=None)
    else:
        lock = _locked(path)
        # It holds task tokens, so it is its owner's alone; SQLite's files beside it take over the mode.
        path.touch(mode=0o600)
        writer = _engine(path, "rw", busy_seconds)
        opened = SqliteFile(path=path, reader=_engine(path, "ro", busy_seconds), writer=writer, lock=lock)
    try:
        _check(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def _translated(path: Path, error: Exception) -> Exception:
    match error:
        case OperationalError():
            said: Exception = TransientError(f"{path}: {error.orig}")
        case IntegrityError():
            said = PermanentError(f"{path}: the ledger forbids it: {error.orig}")
        case DatabaseError():
            said = ConfigError(f"{path}: {error.orig}; it is damaged or no ledger: restore it, or name another file")
        case ValueError():
            said = PermanentError(f"no text can be made of it: {error}")
        case _:
            return error
    said.__cause__ = error
    return said


def _engine(path: Path, mode: str, busy_seconds: float) -> Engine:
    """`mode` is SQLite's own, rw or ro."""

    def connect() -> sqlite3.Connection:
        # isolation_level None: sqlite3 begins no transaction of its own accord, the `begin` event below does.
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}",
            uri=True,
            timeout=busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            for setting in _SETTINGS if mode == "rw" else ():
                connection.execute(f"PRAGMA {setting}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    # QueuePool, of one: SQLAlchemy's choice for "sqlite://" would be meant for a database in memory.
    # Named parameters, as PostgreSQL's driver has them too.
    engine = create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=1, max_overflow=0, paramstyle="named"
    )
    begin = "BEGIN IMMEDIATE" if mode == "rw" else "BEGIN"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _check(opened: SqliteFile) -> None:
    try:
        if opened.writer is None:
            with opened.reader.begin() as connection:
                migrate.must_be_up_to_date(connection, opened.name)
            return
        with opened.writer.begin() as connection:
            migrate.bring_up_to_date(connection, opened.name)
            # The file is this process's alone now, so whoever leased an effect is gone.
            connection.execute(_FREE)
    except DatabaseError as error:
        raise _unopened(opened.path, error) from error


_FREE = text("UPDATE effects SET leased_until = NULL WHERE status = 'owed' AND leased_until IS NOT NULL")


def _unopened(path: Path, error: DatabaseError) -> Exception:
    name = getattr(error.orig, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return ConfigError(f"{path}: {error.orig}; let this process read and write the file and its directory")
    return _translated(path, error)


_HELD: set[int] = set()
"""Lock files held by this process. A forked child (a worker) must let go of them: it may outlive a killed daemon."""


def _let_go() -> None:
    for lock in _HELD:
        os.close(lock)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


def _locked(path: Path) -> int:
    """Take the lock on `<path>.lock`; the kernel gives it back when the process ends, however it ends."""
    beside = path.with_name(f"{path.name}.lock")
    try:
        lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"{beside}: {error.strerror}; let this process write there") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ConfigError(
            f"{path}: process {holder} is using this ledger (it holds {beside}); "
            "stop it, or give this process a ledger of its own"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    _HELD.add(lock)
    return lock
