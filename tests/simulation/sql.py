"""The product's ledger in SQL, with its two threads taken out: what they would do is done at once, in its place."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection

from retrainer.adapters.ledger_sql.database import Database
from retrainer.adapters.ledger_sql.ledger import SqlLedger
from retrainer.adapters.ledger_sql.opening import open_database
from retrainer.adapters.ledger_sql.writer import Task, Writer, _Work
from retrainer.core.state import ModelState

T = TypeVar("T")


class InlineWriter(Writer):
    """Writes each task alone, where it is asked to."""

    def __init__(self, database: Database) -> None:
        assert database.writer
        self._engine = database.writer
        self._translated = database.translated
        self._stored = set()

    async def write(self, task: Task) -> Any:
        (result,) = self._written([_Work(task, None)])  # type: ignore[arg-type]  # nobody waits
        if isinstance(result, Exception):
            raise result
        return result


class InlineLedger(SqlLedger):
    """Deterministic, for virtual time."""

    def __init__(self, url: str) -> None:
        self._database = open_database(url, read_only=False, busy_seconds=5.0)
        self._writer = InlineWriter(self._database)
        self._closed = False

    async def _read(self, query: Callable[[Connection], T]) -> T:
        return self._queried(query)

    async def _patiently(self, answer: Awaitable[T]) -> T:
        return await answer

    async def active(self) -> Mapping[str, ModelState]:
        return dict(sorted((await super().active()).items()))

    def end(self) -> None:
        self._database.close()
