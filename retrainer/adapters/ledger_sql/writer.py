"""Group commit: one thread writes, and commits together whatever has gathered while it wrote.

A commit costs one fsync however much is in it, so the more wait, the cheaper each becomes; nobody waits on purpose.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from retrainer.adapters.ledger_sql.commit import commit
from retrainer.adapters.ledger_sql.database import ContendedError
from retrainer.ports import Entry, TransientError

Task = tuple[Entry, ...] | Callable[[Connection], Any]
"""A chain of entries to be committed, or any other change."""

GROUP_MOST = 1000
"""Entries in one transaction, but for a longer chain: beyond this one's share of the fsync is lost in the noise, and a
rollback gets dear."""


@dataclass(frozen=True, slots=True)
class _Work:
    task: Task
    answer: asyncio.Future[Any]


class Writer:
    """The thread that owns the writing connection, for the running loop.

    A task is answered after its COMMIT and never before.
    """

    def __init__(self, engine: Engine, translated: Callable[[Exception], Exception]) -> None:
        self._engine = engine
        self._translated = translated
        self._loop = asyncio.get_running_loop()
        self._stored: set[str] = set()
        """Hashes of policies that the ledger has."""
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        # A daemon thread: it keeps no process from ending, and what was not committed was not acknowledged.
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    async def write(self, task: Task) -> Any:
        """What the task returned, once it is on disk."""
        work = _Work(task, self._loop.create_future())
        self._queue.put(work)
        return await work.answer

    def end(self, seconds: float | None = None) -> bool:
        """Returns when everything handed in before is written; False when that took longer than `seconds`."""
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        last = False
        while not last:
            batch, last = self._gathered()
            results = self._written(batch)
            # A loop that was closed meanwhile has nobody left who waits.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_tell, batch, results)

    def _gathered(self) -> tuple[list[_Work], bool]:
        """What waits, and whether it was the last."""
        batch: list[_Work] = []
        size = 0
        while size < GROUP_MOST:
            try:
                work = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if work is None:
                return batch, True
            batch.append(work)
            size += len(work.task) if isinstance(work.task, tuple) else 1
        return batch, False

    def _written(self, batch: Sequence[_Work]) -> list[Any]:
        """The tasks' results in their order; one that failed has its exception for a result."""
        if not batch:
            return []
        try:
            with self._engine.begin() as connection:
                return _carried_out(connection, [work.task for work in batch], self._stored)
        except Exception as error:
            self._stored.clear()
            said = self._translated(error)
            is_away = isinstance(said, TransientError) and not isinstance(said, ContendedError)
            if is_away or len(batch) == 1:
                return [said for _ in batch]
            # One of them spoiled it and all were rolled back: each again in a transaction of its own.
            return [result for work in batch for result in self._written([work])]


def _carried_out(connection: Connection, tasks: Sequence[Task], stored: set[str]) -> list[Any]:
    committed = iter(commit(connection, [task for task in tasks if isinstance(task, tuple)], stored))
    return [next(committed) if isinstance(task, tuple) else task(connection) for task in tasks]


def _tell(batch: Sequence[_Work], results: Sequence[Any]) -> None:
    for work, result in zip(batch, results, strict=True):
        if work.answer.done():
            continue
        if isinstance(result, Exception):
            work.answer.set_exception(result)
        else:
            work.answer.set_result(result)
