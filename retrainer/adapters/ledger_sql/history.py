"""Decisions with all that went into them, so that they can be made again."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, case, func, select

from retrainer.adapters.ledger_sql import schema
from retrainer.adapters.ledger_sql.telling import effects_of
from retrainer.ports import Original

PAGE = 64
"""Decisions read at once: a state or a manifest may have hundreds of kilobytes."""


def kept_state(connection: Connection, model: str, version: int) -> int:
    """The newest version up to this one whose state was kept, 0 where none was."""
    t = schema.decisions.c
    kept = select(func.max(t.version)).where(t.model == model, t.version <= version, t.state_after.is_not(None))
    return connection.execute(kept).scalar() or 0


def page(connection: Connection, model: str, after: int, policies: dict[str, str | None]) -> Sequence[Original]:
    """The next decisions after that version. `policies` are those already read, by hash, and are added to.

    Beside the newest decision of all there is always a state: the model's own.
    """
    t, events, states = schema.decisions, schema.events, schema.model_state
    came = (events.c.identity == t.c.event_identity) & (events.c.model == t.c.model)
    newest = (states.c.model == t.c.model) & (states.c.version == t.c.version)
    state = case((t.c.state_after.is_not(None), t.c.state_after), else_=states.c.body).label("state")
    query = select(t, events.c.body.label("event"), state).join(events, came).outerjoin(states, newest)
    rows = connection.execute(
        query.where(t.c.model == model, t.c.version > after).order_by(t.c.version).limit(PAGE)
    ).all()
    for missing in {row.policy_hash for row in rows} - policies.keys():
        p = schema.policies.c
        policies[missing] = connection.execute(select(p.body).where(p.hash == missing)).scalar()
    effects = effects_of(connection, [row.id for row in rows], schema.effects.c.body)
    return [_original(row, policies[row.policy_hash], tuple(effects.get(row.id, ()))) for row in rows]


def _original(row: Row[Any], policy: str | None, effects: tuple[tuple[str, str, str], ...]) -> Original:
    return Original(
        id=row.id,
        model=row.model,
        version=row.version,
        at=row.at,
        event_kind=row.event_kind,
        event_identity=row.event_identity,
        event=row.event,
        reason=row.reason,
        detail=row.detail,
        policy_hash=row.policy_hash,
        policy=policy,
        fleet=row.fleet,
        recorded_by=row.recorded_by,
        state_hash_before=row.state_hash_before,
        state_hash_after=row.state_hash_after,
        state_after=row.state,
        effects=effects,
    )
