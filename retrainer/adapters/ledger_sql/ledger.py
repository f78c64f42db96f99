"""`ports.Ledger` on SQLAlchemy Core: writes go to the one writer thread, reads have a connection of their own."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, func, insert, or_, select, update
from sqlalchemy.exc import DatabaseError

from retrainer.adapters.ledger_sql import schema, sqlite_file
from retrainer.adapters.ledger_sql.writer import Task, Writer
from retrainer.core.record import canonical, load_effect, load_state
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Owed, Quarantined, Recorded, TransientError

T = TypeVar("T")


class SqlLedger:
    """`ports.Ledger` on SQLite. Made by `open`; `close` ends its threads and lets another process have the file."""

    def __init__(self, opened: sqlite_file.LedgerFile) -> None:
        self._file = opened
        self._translated = partial(sqlite_file.translated, opened.path)
        self._writer = Writer(opened.writer, self._translated) if opened.writer else None
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-reader")
        self._closed = False

    @classmethod
    async def open(cls, url: str, *, read_only: bool = False, busy_seconds: float = 5.0) -> "SqlLedger":
        """Open or make the ledger at `url`; `read_only` needs no lock and works beside a running daemon.

        `busy_seconds` is how long a write waits for a stranger's lock (an SQLite shell, a backup).
        Raises ConfigError for what has to be mended first, and TransientError.
        """
        opening = partial(sqlite_file.open_file, url, read_only=read_only, busy_seconds=busy_seconds)
        return cls(await asyncio.to_thread(opening))

    async def close(self) -> None:
        """Everything handed in before is still written. Closing twice is closing once."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if self._writer:
            self._writer.end()
        self._readers.shutdown()
        self._file.close()

    async def state(self, model: str) -> ModelState:
        query = select(schema.model_state.c.body).where(schema.model_state.c.model == model)
        body = await self._read(lambda c: c.execute(query).scalar())
        return load_state(body) if body else ModelState(model=model)

    async def known(self, model: str, identity: str) -> bool:
        t = schema.events.c
        query = select(t.model).where(t.identity == identity, t.model == model)
        return await self._read(lambda c: c.execute(query).first() is not None)

    async def commit(self, entry: Entry) -> Committed:
        committed: Committed = await self._write(entry)
        return committed

    async def owed(self, now: datetime, *, limit: int, lease_seconds: float) -> Sequence[Owed]:
        until = now + timedelta(seconds=lease_seconds)
        rows: Sequence[Row[Any]] = await self._write(lambda c: _leased(c, now, until, limit))
        return [_owed(row) for row in rows]

    async def postpone(self, effect: str, until: datetime, why: str) -> None:
        t = schema.effects.c
        statement = update(schema.effects).where(t.key == effect, t.status == "owed")
        await self._write(lambda c: c.execute(statement.values(due_at=until, leased_until=None, last_error=why)))

    async def active(self) -> Mapping[str, ModelState]:
        t = schema.model_state.c
        query = select(t.model, t.body).where(or_(t.execution_active.is_not(None), t.wake_at.is_not(None)))
        rows = await self._read(lambda c: c.execute(query).all())
        return {model: load_state(body) for model, body in rows}

    async def fire(self, model: str, schedule: str, seen_until: datetime) -> datetime | None:
        stood: datetime | None = await self._write(lambda c: _fired(c, model, schedule, seen_until))
        return stood

    async def quarantine(self, message: Quarantined) -> None:
        await self._write(lambda c: _quarantined(c, message))

    async def decisions(self, model: str | None, *, limit: int) -> Sequence[Recorded]:
        t = schema.decisions.c
        newest = (
            _TOLD.order_by(t.number.desc())
            if model is None
            else _TOLD.where(t.model == model).order_by(t.version.desc())
        )
        query = newest.limit(limit)
        return await self._read(lambda c: _recorded(c, c.execute(query).all()))

    async def decision(self, name: str) -> Recorded | None:
        t = schema.decisions.c
        planned_by = select(schema.executions.c.decision).where(schema.executions.c.name == name)
        named = or_(t.id == name, t.event_identity == name, t.id == planned_by.scalar_subquery())
        query = _TOLD.where(named).order_by(t.number.desc()).limit(1)
        found = await self._read(lambda c: _recorded(c, c.execute(query).all()))
        return found[0] if found else None

    async def counts(self) -> Mapping[str, int]:
        return await self._read(_counts)

    async def _write(self, task: Task) -> Any:
        if self._closed or self._writer is None:
            raise TransientError(f"{self._file.path} is {'closed' if self._closed else 'open to be read only'}")
        return await self._writer.write(task)

    async def _read(self, query: Callable[[Connection], T]) -> T:
        if self._closed:
            raise TransientError(f"{self._file.path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._queried, query)

    def _queried(self, query: Callable[[Connection], T]) -> T:
        try:
            with self._file.reader.begin() as connection:
                return query(connection)
        except DatabaseError as error:
            raise self._translated(error) from error


def _leased(connection: Connection, now: datetime, until: datetime, limit: int) -> Sequence[Row[Any]]:
    t = schema.effects.c
    free = or_(t.leased_until.is_(None), t.leased_until <= now)
    due = select(t.key).where(t.status == "owed", t.due_at <= now, free).order_by(t.due_at, t.number).limit(limit)
    keys = connection.execute(due).scalars().all()
    if not keys:
        return []
    theirs = t.key.in_(keys)
    connection.execute(update(schema.effects).where(theirs).values(leased_until=until, tries=t.tries + 1))
    return connection.execute(select(schema.effects).where(theirs).order_by(t.due_at, t.number)).all()


def _owed(row: Row[Any]) -> Owed:
    effect = load_effect(row.kind, row.body)
    return Owed(model=row.model, effect=effect, decision=row.decision, tries=row.tries, created_at=row.created_at)


def _fired(connection: Connection, model: str, schedule: str, seen_until: datetime) -> datetime | None:
    table = schema.fires
    this = (table.c.model == model) & (table.c.schedule == schedule)
    stood: datetime | None = connection.execute(select(table.c.cursor).where(this)).scalar()
    if stood is None:
        connection.execute(insert(table).values(model=model, schedule=schedule, cursor=seen_until))
    elif stood < seen_until:
        connection.execute(update(table).where(this).values(cursor=seen_until))
    return stood


def _quarantined(connection: Connection, message: Quarantined) -> None:
    t = schema.quarantine.c
    kept = select(t.queue).where(t.queue == message.queue, t.message_id == message.message_id)
    if connection.execute(kept).first() is None:
        connection.execute(
            insert(schema.quarantine).values(
                queue=message.queue,
                message_id=message.message_id,
                received_at=message.received_at,
                why=message.why,
                body=message.body,
            )
        )


# --- telling ---

_TOLD = select(schema.decisions, schema.events.c.body).join(
    schema.events,
    (schema.events.c.identity == schema.decisions.c.event_identity)
    & (schema.events.c.model == schema.decisions.c.model),
)


def _recorded(connection: Connection, rows: Sequence[Row[Any]]) -> list[Recorded]:
    t = schema.effects.c
    query = select(t.decision, t.key, t.kind, t.status).where(t.decision.in_([row.id for row in rows]))
    effects: dict[str, list[tuple[str, str, str]]] = {}
    for decision, key, kind, status in connection.execute(query.order_by(t.number)):
        effects.setdefault(decision, []).append((key, kind, status))
    return [
        Recorded(
            id=row.id,
            model=row.model,
            at=row.at,
            event_kind=row.event_kind,
            event_identity=row.event_identity,
            event=_redacted(row.body),
            reason=row.reason,
            detail=row.detail,
            policy_hash=row.policy_hash,
            state_hash_before=row.state_hash_before,
            state_hash_after=row.state_hash_after,
            effects=tuple(effects.get(row.id, ())),
        )
        for row in rows
    ]


def _redacted(body: str) -> str:
    """The event's text without the task token, which is a secret; the rest as it was."""
    if '"task_token"' not in body:
        return body
    event = json.loads(body)
    return canonical({**event, "task_token": "(left out)"}) if "task_token" in event else body


def _counts(connection: Connection) -> dict[str, int]:
    counts = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in schema.COUNTED
    }
    owed = select(func.count()).select_from(schema.effects).where(schema.effects.c.status == "owed")
    return {**counts, "effects_owed": connection.execute(owed).scalar_one()}
