"""The SQLite file that holds a ledger: its settings, its schema's version, and its lock against a second process."""

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, create_engine, event, insert, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import QueuePool

from retrainer.adapters.ledger_sql import schema
from retrainer.ports import ConfigError, PermanentError, TransientError

_SETTINGS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
"""WAL: readers do not wait for the writer. FULL: a commit is on the disk, not on its way there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFile:
    """An opened SQLite file. `writer` is None when it was opened to be read only."""

    path: Path
    reader: Engine
    writer: Engine | None
    lock: int | None

    def close(self) -> None:
        self.reader.dispose()
        if self.writer:
            self.writer.dispose()
        if self.lock is not None:
            _HELD.discard(self.lock)
            os.close(self.lock)


def open_file(url: str, *, read_only: bool, busy_seconds: float) -> LedgerFile:
    """Open the ledger, make its tables if it is new, and keep every other process from writing to it.

    Raises ConfigError for what has to be mended first, and TransientError.
    """
    path = _path(url)
    if read_only:
        if not path.exists():
            raise ConfigError(f"{path}: there is no ledger here; mend the path, or start the daemon once to make it")
        opened = LedgerFile(path=path, reader=_engine(path, "ro", busy_seconds), writer=None, lock=None)
    else:
        lock = _locked(path)
        # It holds task tokens, so it is its owner's alone; SQLite's files beside it take over the mode.
        path.touch(mode=0o600)
        writer = _engine(path, "rw", busy_seconds)
        opened = LedgerFile(path=path, reader=_engine(path, "ro", busy_seconds), writer=writer, lock=lock)
    try:
        _check(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def translated(path: Path, error: Exception) -> Exception:
    """A library's exception as one of ours, with its cause; any other as it is."""
    match error:
        case OperationalError():
            said: Exception = TransientError(f"{path}: {error.orig}")
        case IntegrityError():
            said = PermanentError(f"{path}: the ledger forbids it: {error.orig}")
        case DatabaseError():
            said = ConfigError(f"{path}: {error.orig}; it is damaged or no ledger: restore it, or name another file")
        case _:
            return error
    said.__cause__ = error
    return said


def _path(url: str) -> Path:
    wanted = "write sqlite:///ledger.db, or sqlite:////var/lib/retrainer/ledger.db for an absolute path"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"{url!r} is not the URL of a ledger; {wanted}") from error
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        shown = parsed.render_as_string(hide_password=True)
        raise ConfigError(f"{shown} is no ledger this version can keep; {wanted}")
    # Resolved, so that two links to one file meet at one lock.
    path = Path(str(parsed.database)).resolve()
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no directory {path.parent}; make it, or mend the ledger's URL")
    return path


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
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=1, max_overflow=0)
    begin = "BEGIN IMMEDIATE" if mode == "rw" else "BEGIN"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _check(opened: LedgerFile) -> None:
    engine = opened.writer or opened.reader
    try:
        with engine.begin() as connection:
            tables = set(inspect(connection).get_table_names())
            if opened.writer and not tables:
                schema.metadata.create_all(connection)
                connection.execute(insert(schema.schema_version).values(version=schema.SCHEMA_VERSION))
                return
            if "schema_version" not in tables:
                raise ConfigError(f"{opened.path}: this database is no ledger; name another file")
            found = connection.execute(select(schema.schema_version.c.version)).scalar_one()
    except DatabaseError as error:
        raise _unopened(opened.path, error) from error
    if found != schema.SCHEMA_VERSION:
        raise ConfigError(
            f"{opened.path}: its schema is version {found}, this retrainer keeps version {schema.SCHEMA_VERSION}; "
            "use the retrainer that wrote it, or move the file away to begin a new ledger"
        )


def _unopened(path: Path, error: DatabaseError) -> Exception:
    name = getattr(error.orig, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return ConfigError(f"{path}: {error.orig}; let this process read and write the file and its directory")
    return translated(path, error)


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
