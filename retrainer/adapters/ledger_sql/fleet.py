"""What is known of all models together, and whether a plan that counted on it still holds."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, select

from retrainer.adapters.ledger_sql import schema
from retrainer.adapters.ledger_sql.schema import microseconds
from retrainer.core.fleet import Fleet, Running, Start
from retrainer.ports import Entry

_ACTIVE = schema.executions.c.status.in_(["PLANNED", "RUNNING"])


def fleet(connection: Connection, model: str, since: datetime) -> Fleet:
    """Of all models but this one: what runs, who waits, what was started after `since`; each in one order."""
    t, states = schema.executions.c, schema.model_state.c
    running = select(t.model, t.planned_at).where(_ACTIVE, t.model != model).order_by(t.model)
    waiting = select(states.model).where(states.kept > 0, states.model != model).order_by(states.model)
    started = select(t.model, t.planned_at, t.cost).where(t.planned_at > since, t.model != model)
    return Fleet(
        running=tuple(Running(model=name, since=at) for name, at in connection.execute(running)),
        waiting=tuple(connection.execute(waiting).scalars()),
        starts=tuple(
            Start(model=name, at=at, cost=cost)
            for name, at, cost in connection.execute(started.order_by(t.planned_at, t.model))
        ),
    )


def active(connection: Connection) -> dict[str, int]:
    """The models with an execution, and when it was planned, in microseconds."""
    t = schema.executions.c
    return {model: microseconds(at) for model, at in connection.execute(select(t.model, t.planned_at).where(_ACTIVE))}


def limits(entry: Entry) -> bool:
    """Whether it plans an execution, which a limit over all models may forbid."""
    before, after = entry.state_before.execution, entry.decision.state.execution
    return after is not None and (before is None or before.name != after.name)


def outrun(entry: Entry, running: Mapping[str, int]) -> bool:
    """Whether another model's execution became active that the decision did not know of."""
    assert entry.fleet is not None
    if not limits(entry):
        return False
    told = {(known.model, microseconds(known.since)) for known in entry.fleet.running}
    return any((model, at) not in told for model, at in running.items() if model != entry.model)
