"""What a ledger needs of the database under it, SQLite or PostgreSQL alike."""

from typing import Protocol

from sqlalchemy import Connection, Engine

from retrainer.ports import TransientError


class ContendedError(TransientError):
    """Two transactions waited for each other, and this one gave way; what it did can be done again one by one."""


class Database(Protocol):
    """An opened database. `name` is for messages and shows no password."""

    @property
    def name(self) -> str: ...

    @property
    def reader(self) -> Engine: ...

    @property
    def writer(self) -> Engine | None:
        """None when it was opened to be read only."""
        ...

    @property
    def patience_seconds(self) -> float | None:
        """After how long without an answer `hang_up` is to be called; None: it answers, or says that it cannot."""
        ...

    def translated(self, error: Exception) -> Exception:
        """A library's exception as one of ours, with its cause; any other as it is."""
        ...

    def size_bytes(self, connection: Connection) -> int: ...

    def settle(self) -> None:
        """Have the room that was freed given back, a piece at a time, beside the writer."""
        ...

    def hang_up(self) -> None:
        """End every connection, so that a thread that waits for an answer gets an error instead. From any thread."""
        ...

    def close(self) -> None: ...
