"""`ports.Ledger` on SQLAlchemy Core: writes go to the one writer thread, reads have a connection of their own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, bindparam, or_, select, text, update

from retrainer.adapters.ledger_sql import compact, history, schema, telling
from retrainer.adapters.ledger_sql.database import Database
from retrainer.adapters.ledger_sql.fleet import fleet
from retrainer.adapters.ledger_sql.opening import open_database
from retrainer.adapters.ledger_sql.schema import microseconds, storable
from retrainer.adapters.ledger_sql.writer import Task, Writer
from retrainer.core.fleet import Fleet
from retrainer.core.record import load_effect, load_state
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Original, Owed, Quarantined, Recorded, TransientError

T = TypeVar("T")

BROKEN_FOR = timedelta(hours=1)
"""How long an effect is put off that this version cannot read: until somebody has mended it, or brought back the
version that can."""

QUARANTINED_CHARACTERS = 64 * 1024
"""What is kept of a refused message; the whole of it is on the dead-letter queue."""


class SqlLedger:
    """`ports.Ledger` on SQLite or PostgreSQL. Made by `open`; `close` ends its threads and connections."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = Writer(database.writer, database.translated) if database.writer else None
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-reader")
        self._closed = False

    @classmethod
    async def open(cls, url: str, *, read_only: bool = False, busy_seconds: float = 5.0) -> "SqlLedger":
        """Open or make the ledger at `url`; `read_only` needs no lock and works beside a running daemon.

        `busy_seconds` is how long a write waits for a stranger's lock (an SQLite shell, a backup).
        Raises ConfigError for what has to be mended first, and TransientError.
        """
        opening = partial(open_database, url, read_only=read_only, busy_seconds=busy_seconds)
        return cls(await asyncio.to_thread(opening))

    async def close(self) -> None:
        """Everything handed in before is still written. Closing twice is closing once."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if self._writer and not self._writer.end(self._database.patience_seconds):
            self._database.hang_up()
            self._writer.end()
        # A read that nobody waits for any more must not keep the process from ending.
        self._database.hang_up()
        self._readers.shutdown()
        self._database.close()

    async def state(self, model: str) -> ModelState:
        body = await self._read(lambda c: c.execute(_STATE, {"model": model}).scalar())
        return load_state(body) if body else ModelState(model=model)

    async def known(self, model: str, identities: Collection[str]) -> Collection[str]:
        asked = {"model": model, "identities": [*identities]}
        return set(await self._read(lambda c: c.execute(_KNOWN, asked).scalars().all())) if identities else set()

    async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
        committed: Sequence[Committed] = await self._write(tuple(entries))
        return committed

    async def fleet(self, model: str, since: datetime) -> Fleet:
        return await self._read(lambda c: fleet(c, model, since))

    async def owed(self, now: datetime, *, limit: int, lease_seconds: float) -> Sequence[Owed]:
        until = now + timedelta(seconds=lease_seconds)
        rows: Sequence[Row[Any]] = await self._write(lambda c: _leased(c, now, until, limit))
        owed = []
        for row in rows:
            try:
                owed.append(_owed(row))
            except (KeyError, ValueError) as error:
                # It would come back first each time, and the others of its lease would never be returned.
                await self.postpone(row.key, now + BROKEN_FOR, f"this version cannot read it: {error!r}")
        return owed

    async def postpone(self, effect: str, until: datetime, why: str) -> None:
        t = schema.effects.c
        statement = update(schema.effects).where(t.key == effect, t.status == "owed")
        later = statement.values(due_at=until, leased_until=None, last_error=storable(why))
        await self._write(lambda c: c.execute(later).close())

    async def active(self) -> Mapping[str, ModelState]:
        t = schema.model_state.c
        query = select(t.model, t.body).where(or_(t.execution_active.is_not(None), t.wake_at.is_not(None)))
        rows = await self._read(lambda c: c.execute(query).all())
        return {model: load_state(body) for model, body in rows}

    async def seen_until(self, model: str, schedule: str) -> datetime | None:
        t = schema.fires.c
        query = select(t.cursor).where(t.model == model, t.schedule == schedule)
        return await self._read(lambda c: c.execute(query).scalar())

    async def see(self, model: str, schedule: str, until: datetime) -> None:
        seen = {"model": model, "schedule": schedule, "cursor": microseconds(until)}
        await self._write(lambda c: c.execute(_SEE, seen).close())

    async def quarantine(self, message: Quarantined) -> None:
        kept = {
            "queue": message.queue,
            "message_id": message.message_id,
            "received_at": microseconds(message.received_at),
            "why": storable(message.why),
            "body": storable(message.body[:QUARANTINED_CHARACTERS]),
        }
        await self._write(lambda c: c.execute(_QUARANTINE, kept).close())

    async def decisions(self, model: str | None, *, limit: int) -> Sequence[Recorded]:
        return await self._read(lambda c: telling.newest(c, model, limit))

    async def decision(self, name: str) -> Recorded | None:
        return await self._read(lambda c: telling.named(c, name))

    async def about(self, execution: str) -> Sequence[Recorded]:
        return await self._read(lambda c: telling.about(c, execution))

    async def models(self) -> Sequence[str]:
        query = select(schema.model_state.c.model)
        return sorted(await self._read(lambda c: c.execute(query).scalars().all()))

    async def kept_state(self, model: str, version: int) -> int:
        return await self._read(lambda c: history.kept_state(c, model, version))

    async def history(self, model: str, first: int) -> AsyncIterator[Original]:
        policies: dict[str, str | None] = {}
        after: int | None = first - 1
        while after is not None:
            page = await self._read(partial(history.page, model=model, after=after, policies=policies))
            after = page[-1].version if page else None
            for original in page:
                yield original

    async def counts(self) -> Mapping[str, int]:
        return await self._read(telling.counts)

    async def size_bytes(self) -> int:
        return await self._read(self._database.size_bytes)

    async def compact(self, before: datetime) -> int:
        made_smaller = 0
        for step in compact.STEPS:
            after: int | None = 0
            while after is not None:
                rows, after = await self._write(compact.piece(step, before, after))
                made_smaller += rows
        await asyncio.to_thread(self._database.settle)
        return made_smaller

    async def _write(self, task: Task) -> Any:
        if self._closed or self._writer is None:
            raise TransientError(f"{self._database.name} is {'closed' if self._closed else 'open to be read only'}")
        return await self._patiently(self._writer.write(task))

    async def _read(self, query: Callable[[Connection], T]) -> T:
        if self._closed:
            raise TransientError(f"{self._database.name} is closed")
        return await self._patiently(asyncio.get_running_loop().run_in_executor(self._readers, self._queried, query))

    async def _patiently(self, answer: Awaitable[T]) -> T:
        """A server that neither answers nor goes away is hung up on, or a thread would wait for it for ever."""
        if self._database.patience_seconds is None:
            return await answer
        try:
            async with asyncio.timeout(self._database.patience_seconds):
                return await answer
        except TimeoutError as error:
            self._database.hang_up()
            said = f"{self._database.name}: no answer within {self._database.patience_seconds:g} s"
            raise TransientError(said) from error

    def _queried(self, query: Callable[[Connection], T]) -> T:
        try:
            with self._database.reader.begin() as connection:
                return query(connection)
        except Exception as error:
            said = self._database.translated(error)
            if said is error:
                raise
            raise said from error


_STATE = select(schema.model_state.c.body).where(schema.model_state.c.model == bindparam("model"))
_KNOWN = select(schema.events.c.identity).where(
    schema.events.c.identity.in_(bindparam("identities", expanding=True)), schema.events.c.model == bindparam("model")
)
_SEE = text(
    "INSERT INTO fires (model, schedule, cursor) VALUES (:model, :schedule, :cursor) ON CONFLICT (model, schedule) "
    "DO UPDATE SET cursor = excluded.cursor WHERE fires.cursor < excluded.cursor"
)
_QUARANTINE = text(
    "INSERT INTO quarantine (queue, message_id, received_at, why, body) "
    "VALUES (:queue, :message_id, :received_at, :why, :body) ON CONFLICT DO NOTHING"
)


def _leased(connection: Connection, now: datetime, until: datetime, limit: int) -> Sequence[Row[Any]]:
    t = schema.effects.c
    free = or_(t.leased_until.is_(None), t.leased_until <= now)
    due = select(t.key).where(t.status == "owed", t.due_at <= now, free).order_by(t.due_at, t.number).limit(limit)
    # What another replica is leasing this moment is passed over. SQLite has no such clause, and needs none.
    keys = connection.execute(due.with_for_update(skip_locked=True)).scalars().all()
    if not keys:
        return []
    theirs = t.key.in_(keys)
    connection.execute(update(schema.effects).where(theirs).values(leased_until=until, tries=t.tries + 1))
    return connection.execute(select(schema.effects).where(theirs).order_by(t.due_at, t.number)).all()


def _owed(row: Row[Any]) -> Owed:
    effect = load_effect(row.kind, row.body)
    return Owed(model=row.model, effect=effect, decision=row.decision, tries=row.tries, created_at=row.created_at)
