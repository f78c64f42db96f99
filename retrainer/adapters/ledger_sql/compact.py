"""Retention: the bodies of what was settled long ago are dropped, a piece at a time, so that nobody waits for long."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, insert, select, tuple_, update

from retrainer.adapters.ledger_sql import schema

PIECE = 500
"""Rows looked at in one transaction: milliseconds of the writer's time."""

Step = Callable[[Connection, datetime, int], tuple[int, int | None]]
"""Does the piece after this number; returns how many rows it made smaller, and the number to go on from."""


def piece(step: Step, before: datetime, after: int) -> Callable[[Connection], tuple[int, int | None]]:
    return lambda connection: step(connection, before, after)


def _walked(numbered: Table, table: Table, settled: Callable[[datetime, int, int], ColumnElement[bool]]) -> Step:
    """Through the numbers of one table, with what has to go of the other."""

    def step(connection: Connection, before: datetime, after: int) -> tuple[int, int | None]:
        upto = after + PIECE
        made_smaller = _dropped(connection, table, settled(before, after, upto))
        last = connection.execute(select(func.max(numbered.c.number))).scalar() or 0
        return made_smaller, upto if upto < last else None

    return step


def _dropped(connection: Connection, table: Table, settled: ColumnElement[bool]) -> int:
    which = (settled, table.c.body != "")
    if connection.dialect.name != "sqlite":
        return connection.execute(update(table).where(*which).values(body="")).rowcount
    # A row that gets shorter where it lies frees nothing in SQLite: its page is never merged with the next one. Taken
    # out and put in again it does. Until the commit the decisions may do without their events.
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    rows = connection.execute(select(table).where(*which)).mappings().all()
    if rows:
        connection.execute(delete(table).where(*which))
        connection.execute(insert(table), [{**row, "body": ""} for row in rows])
    return len(rows)


def _events(before: datetime, after: int, upto: int) -> ColumnElement[bool]:
    """A model's newest decision keeps its event, so that why the state is as it is can always be told."""
    state, decided = schema.model_state.c, schema.decisions.c
    old = (
        select(decided.event_identity, decided.model)
        .join(schema.model_state, state.model == decided.model)
        .where(decided.number > after, decided.number <= upto, decided.at < before, decided.version < state.version)
    )
    return tuple_(schema.events.c.identity, schema.events.c.model).in_(old)


def _effects(before: datetime, after: int, upto: int) -> ColumnElement[bool]:
    t = schema.effects.c
    return and_(t.number > after, t.number <= upto, t.status != "owed", t.created_at < before)


def _quarantine(connection: Connection, before: datetime, after: int) -> tuple[int, int | None]:
    t = schema.quarantine.c
    key = tuple_(t.queue, t.message_id)
    some = select(t.queue, t.message_id).where(t.received_at < before, t.body != "").order_by(*key).limit(PIECE)
    old = connection.execute(some).all()
    if not old:
        return 0, None
    return _dropped(connection, schema.quarantine, key.in_([(queue, message) for queue, message in old])), after


STEPS: tuple[Step, ...] = (
    _walked(schema.decisions, schema.events, _events),
    _walked(schema.effects, schema.effects, _effects),
    _quarantine,
)
