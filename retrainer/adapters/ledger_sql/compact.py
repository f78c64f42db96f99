"""Retention: the bodies of what was settled long ago are dropped, a piece at a time, so that nobody waits for long."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

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
        return made_smaller, upto if upto < _last(connection, numbered) else None

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


def _states(connection: Connection, before: datetime, after: int) -> tuple[int, int | None]:
    """The states of now are kept, so that the next time more can go."""
    state, decided = schema.model_state, schema.decisions
    upto = after + PIECE
    body = select(state.c.body).where(state.c.model == decided.c.model).scalar_subquery()
    is_newest = tuple_(decided.c.model, decided.c.version).in_(select(state.c.model, state.c.version))
    piece = (decided.c.number > after, decided.c.number <= upto, decided.c.state_after.is_(None))
    connection.execute(update(decided).where(*piece, is_newest).values(state_after=body))
    return 0, upto if upto < _last(connection, decided) else None


def _last_kept(before: datetime) -> ScalarSelect[int]:
    """The version of a model's last kept state from before then; from there on every decision can be made again."""
    kept = schema.decisions.alias("kept")
    of_model = (kept.c.model == schema.decisions.c.model, kept.c.state_after.is_not(None), kept.c.at < before)
    return select(func.max(kept.c.version)).where(*of_model).correlate(schema.decisions).scalar_subquery()


def _old(before: datetime) -> ColumnElement[bool]:
    """A decision that no later one needs; or one that cannot be made again as it is."""
    decided = schema.decisions.c
    return and_(
        decided.at < before, or_(decided.recorded_by.is_(None), decided.version <= func.coalesce(_last_kept(before), 0))
    )


def _events(before: datetime, after: int, upto: int) -> ColumnElement[bool]:
    """A model's newest decision keeps its event, so that why the state is as it is can always be told."""
    state, decided = schema.model_state.c, schema.decisions.c
    old = (
        select(decided.event_identity, decided.model)
        .join(schema.model_state, state.model == decided.model)
        .where(decided.number > after, decided.number <= upto, decided.version < state.version, _old(before))
    )
    return tuple_(schema.events.c.identity, schema.events.c.model).in_(old)


def _effects(before: datetime, after: int, upto: int) -> ColumnElement[bool]:
    t, decided = schema.effects.c, schema.decisions.c
    piece = (t.number > after, t.number <= upto, t.status != "owed", t.created_at < before)
    old = select(decided.id).where(decided.id == t.decision, _old(before)).correlate(schema.effects)
    return and_(*piece, old.exists())


def _older_states(connection: Connection, before: datetime, after: int) -> tuple[int, int | None]:
    """Of the states kept before then only the last is of use."""
    decided = schema.decisions
    upto = after + PIECE
    useless = select(decided.c.number).where(
        decided.c.number > after,
        decided.c.number <= upto,
        decided.c.state_after.is_not(None),
        decided.c.at < before,
        decided.c.version < _last_kept(before),
    )
    numbers = connection.execute(useless).scalars().all()
    if numbers:
        connection.execute(update(decided).where(decided.c.number.in_(numbers)).values(state_after=None))
    return 0, upto if upto < _last(connection, decided) else None


def _last(connection: Connection, numbered: Table) -> int:
    return connection.execute(select(func.max(numbered.c.number))).scalar() or 0


def _quarantine(connection: Connection, before: datetime, after: int) -> tuple[int, int | None]:
    t = schema.quarantine.c
    key = tuple_(t.queue, t.message_id)
    some = select(t.queue, t.message_id).where(t.received_at < before, t.body != "").order_by(*key).limit(PIECE)
    old = connection.execute(some).all()
    if not old:
        return 0, None
    return _dropped(connection, schema.quarantine, key.in_([(queue, message) for queue, message in old])), after


STEPS: tuple[Step, ...] = (
    _states,
    _walked(schema.decisions, schema.events, _events),
    _walked(schema.effects, schema.effects, _effects),
    _older_states,
    _quarantine,
)
