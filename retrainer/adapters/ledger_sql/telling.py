"""Decisions as the ledger tells them."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, func, or_, select

from retrainer.adapters.ledger_sql import schema
from retrainer.core.events import ApprovalAnswered, ApprovalRequested, ExecutionEnded, ExecutionStarted
from retrainer.core.record import canonical
from retrainer.ports import Recorded

_TOLD = select(schema.decisions, schema.events.c.body).join(
    schema.events,
    (schema.events.c.identity == schema.decisions.c.event_identity)
    & (schema.events.c.model == schema.decisions.c.model),
)


def newest(connection: Connection, model: str | None, limit: int) -> Sequence[Recorded]:
    t = schema.decisions.c
    order = (
        _TOLD.order_by(t.number.desc()) if model is None else _TOLD.where(t.model == model).order_by(t.version.desc())
    )
    return _recorded(connection, order.limit(limit))


def named(connection: Connection, name: str) -> Recorded | None:
    t = schema.decisions.c
    planned_by = select(schema.executions.c.decision).where(schema.executions.c.name == name)
    asked_by = select(schema.effects.c.decision).where(schema.effects.c.key == name)
    is_named = or_(
        t.id == name, t.event_identity == name, t.id == planned_by.scalar_subquery(), t.id == asked_by.scalar_subquery()
    )
    found = _recorded(connection, _TOLD.where(is_named).order_by(t.number.desc()).limit(1))
    return found[0] if found else None


def about(connection: Connection, execution: str) -> Sequence[Recorded]:
    """Between the decision that planned it and the one that planned the model's next."""
    t, e = schema.decisions.c, schema.executions.c
    query = select(e.model, e.generation, t.version).join(schema.decisions, t.id == e.decision)
    planned = connection.execute(query.where(e.name == execution)).first()
    if planned is None:
        return []
    model, generation, version = planned
    following = query.where(e.model == model, e.generation == generation + 1)
    last = connection.execute(following).first()
    which = [t.model == model, t.version > version, t.event_kind.in_(_OF_EXECUTIONS)]
    # An end and the next plan, a second attempt, may be one decision.
    which += [t.version <= last.version] if last else []
    told = _recorded(connection, _TOLD.where(*which).order_by(t.version))
    return [d for d in told if _is_about(d, execution)]


def _is_about(told: Recorded, execution: str) -> bool:
    """Its identity says so, which compacting leaves; or, a person's answer, its event."""
    named = told.event_identity.startswith((f"execution:{execution}:", f"approval:{execution}:"))
    return named or json.loads(told.event or "{}").get("execution") == execution


_OF_EXECUTIONS = tuple(
    kind.__name__ for kind in (ExecutionStarted, ApprovalRequested, ApprovalAnswered, ExecutionEnded)
)


def _recorded(connection: Connection, query: Select[Any]) -> list[Recorded]:
    rows = connection.execute(query).all()
    effects = effects_of(connection, [row.id for row in rows], schema.effects.c.status)
    return [_told(row, tuple(effects.get(row.id, ()))) for row in rows]


def effects_of(
    connection: Connection, decisions: Sequence[str], what: Column[str]
) -> dict[str, list[tuple[str, str, str]]]:
    """The effects of each decision in order: key, kind and the column asked for."""
    t = schema.effects.c
    query = select(t.decision, t.key, t.kind, what).where(t.decision.in_(decisions)).order_by(t.number)
    effects: dict[str, list[tuple[str, str, str]]] = {}
    for decision, key, kind, found in connection.execute(query):
        effects.setdefault(decision, []).append((key, kind, found))
    return effects


def _told(row: Row[Any], effects: tuple[tuple[str, str, str], ...]) -> Recorded:
    return Recorded(
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
        effects=effects,
    )


def _redacted(body: str) -> str:
    """The event's text without the task token, which is a secret; the rest as it was."""
    if '"task_token"' not in body:
        return body
    event = json.loads(body)
    return canonical({**event, "task_token": "(left out)"}) if "task_token" in event else body


def counts(connection: Connection) -> dict[str, int]:
    """How many rows each table holds, and `effects_owed`."""
    rows = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in schema.COUNTED
    }
    owed = select(func.count()).select_from(schema.effects).where(schema.effects.c.status == "owed")
    return {**rows, "effects_owed": connection.execute(owed).scalar_one()}
