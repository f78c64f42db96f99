"""The PostgreSQL database that holds a ledger, shared by any number of replicas; spoken to with psycopg."""

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from retrainer.adapters.ledger_sql import migrate, schema
from retrainer.adapters.ledger_sql.database import ContendedError
from retrainer.ports import ConfigError, PermanentError, TransientError

schema.for_postgresql()

PATIENCE_SECONDS = 60.0
"""Longer than `statement_timeout`: a server that keeps its own time-outs is never hung up on."""

_DIALLING = {
    "connect_timeout": "5",
    # A server that is gone without a word, its machine too: noticed after half a minute, idle or not.
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "retrainer",
}
"""libpq's own parameters; the URL's take precedence."""

_SESSION = (
    "SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; "
    "SET timezone = 'UTC'; SET synchronous_commit = on"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresDatabase:
    """`database.Database` on a server. `writer` is None when it was opened to be read only."""

    name: str
    reader: Engine
    writer: Engine | None
    connections: WeakSet[Any]
    patience_seconds: float | None

    def translated(self, error: Exception) -> Exception:
        return _translated(self.name, error)

    def size_bytes(self, connection: Connection) -> int:
        tables = {"tables": [*schema.metadata.tables]}
        return int(connection.execute(_SIZE, tables).scalar() or 0)

    def settle(self) -> None:
        """Autovacuum makes the room usable again."""

    def hang_up(self) -> None:
        for connection in [*self.connections]:
            # The socket, under the driver's feet: its own methods would wait for the server.
            with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.reader.dispose()
        if self.writer:
            self.writer.dispose()


_SIZE = text("SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest(CAST(:tables AS text[])) AS name")


def open_server(url: URL, *, read_only: bool) -> PostgresDatabase:
    """Connect, and make or migrate the tables. Raises ConfigError for what has to be mended, and TransientError."""
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise ConfigError(f"{_shown(url)}: this retrainer speaks to PostgreSQL with psycopg; write postgresql://...")
    url = url.set(drivername="postgresql+psycopg")
    connections: WeakSet[Any] = WeakSet()
    opened = PostgresDatabase(
        name=_shown(url),
        reader=_engine(url, connections, read_only=True),
        writer=None if read_only else _engine(url, connections, read_only=False),
        connections=connections,
        patience_seconds=PATIENCE_SECONDS,
    )
    try:
        _check(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def _shown(url: URL) -> str:
    """Without a password, wherever in the URL it stands."""
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


def _engine(url: URL, connections: WeakSet[Any], *, read_only: bool) -> Engine:
    dialling = {name: value for name, value in _DIALLING.items() if name not in url.query}
    try:
        engine = create_engine(
            url,
            connect_args=dialling,
            isolation_level="READ COMMITTED",
            pool_size=1,
            max_overflow=0,
            # A connection that a restart of the server has ended is found out before it is used.
            pool_pre_ping=True,
        )
    except ImportError as error:
        raise ConfigError(
            f"{_shown(url)}: the PostgreSQL driver is missing; install retrainer[postgres], or use sqlite:///ledger.db"
        ) from error

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connections.add(connection)
        read = "SET default_transaction_read_only = on" if read_only else "SET default_transaction_read_only = off"
        try:
            connection.execute(f"{_SESSION}; {read}")
            connection.commit()
        except Exception as error:
            # SQLAlchemy wraps what its own calls raise, not what is raised in here.
            connection.close()
            raise OperationalError(_SESSION, {}, error) from error

    @event.listens_for(engine, "handle_error")
    def throw_away(context: ExceptionContext) -> None:
        # The next try begins with a new connection: after a failover the old one may lead to what is now a standby.
        error = context.sqlalchemy_exception
        if error and type(_translated("", error)) is TransientError:
            context.is_disconnect = True

    return engine


def _check(opened: PostgresDatabase) -> None:
    try:
        with (opened.writer or opened.reader).begin() as connection:
            if opened.writer:
                migrate.bring_up_to_date(connection, opened.name)
            else:
                migrate.must_be_up_to_date(connection, opened.name)
    except DBAPIError as error:
        raise _unopened(opened.name, error) from error


_TO_BE_MENDED = re.compile(
    "password authentication failed|no password supplied|no pg_hba.conf entry|(database|role) .* does not exist"
    "|invalid (port|integer|connection option|sslmode)|authentication failed"
)
"""libpq tells no SQLSTATE of a connection that was never made, only words."""


def _unopened(name: str, error: DBAPIError) -> Exception:
    if _state(error) is None and _TO_BE_MENDED.search(str(error.orig)):
        return ConfigError(f"{name}: {_words(error)}; mend RETRAINER_LEDGER: postgresql://user:password@host/database")
    return _translated(name, error)


def _translated(name: str, error: Exception) -> Exception:
    """By SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html."""
    if isinstance(error, ValueError):
        said: Exception = PermanentError(f"no text can be made of it: {error}")
    elif not isinstance(error, DBAPIError):
        return error
    else:
        state = _state(error) or ""
        match state[:2]:
            case "22" | "23":
                said = PermanentError(f"{name}: the ledger forbids it: {_words(error)}")
            case "28" | "3D" | "3F" | "42":
                said = ConfigError(f"{name}: {_words(error)}; give its user this right, or restore what is missing")
            case "XX":
                said = ConfigError(f"{name}: {_words(error)}; it is damaged: restore it from a backup")
            case "40":
                said = ContendedError(f"{name}: {_words(error)}")
            case _:
                # No connection, a restart, a full disk, a standby that has not taken over yet.
                said = TransientError(f"{name}: {_words(error)}")
    said.__cause__ = error
    return said


def _state(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _words(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
