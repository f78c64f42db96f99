"""One transaction of entries: which of them hold, and the rows they come to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.sql.dml import UpdateBase

from retrainer.adapters.ledger_sql import schema
from retrainer.core.events import EffectFailed, ExecutionEnded
from retrainer.core.execution import Execution, Status
from retrainer.core.record import digest, dump
from retrainer.ports import Committed, Entry


def commit(connection: Connection, entries: Sequence[Entry]) -> list[Committed]:
    """Judge the entries in their order, each on what those before it leave; write the good ones together."""
    if not entries:
        return []
    events = connection.execute(_EVENTS, {"identities": [entry.event.identity for entry in entries]})
    states = connection.execute(_VERSIONS, {"models": list({entry.model for entry in entries})})
    known = {(row.model, row.identity) for row in events}
    versions = {row.model: row.version for row in states}
    rows = _Rows(known_models=frozenset(versions))
    verdicts = []
    for entry in entries:
        name = (entry.model, entry.event.identity)
        if name in known:
            verdict = Committed.DUPLICATE
        elif versions.get(entry.model, 0) != entry.state_before.version:
            verdict = Committed.CONFLICT
        else:
            verdict = Committed.NEW
            known.add(name)
            versions[entry.model] = entry.decision.state.version
            rows.add(entry)
        if entry.completes and verdict is not Committed.CONFLICT:
            status = "failed" if isinstance(entry.event, EffectFailed) else "done"
            rows.completed.append({"completes": entry.completes, "status": status})
        verdicts.append(verdict)
    rows.write(connection)
    return verdicts


@dataclass(slots=True, kw_only=True)
class _Rows:
    """What a transaction's entries come to, table by table, so that each table is written once."""

    known_models: frozenset[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    effects: list[dict[str, Any]] = field(default_factory=list)
    completed: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    executions: list[UpdateBase] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        state = entry.decision.state
        body = dump(state)
        self.events.append(_event_row(entry))
        self.decisions.append(_decision_row(entry, digest(body)))
        self.effects.extend(_effect_rows(entry))
        self.executions.extend(_executions(entry))
        # The last state of a model in this transaction is the one that stays.
        self.states[entry.model] = {
            "name": entry.model,
            "version": state.version,
            "wake_at": state.wake_at,
            "execution_active": state.execution.name if state.execution else None,
            "body": body,
        }

    def write(self, connection: Connection) -> None:
        new = [row for name, row in self.states.items() if name not in self.known_models]
        changed = [row for name, row in self.states.items() if name in self.known_models]
        for statement, rows in (
            (_INSERT_EVENT, self.events),
            (_INSERT_DECISION, self.decisions),
            (_INSERT_STATE, new),
            (_UPDATE_STATE, changed),
            (_INSERT_EFFECT, self.effects),
            (_COMPLETE_EFFECT, self.completed),
        ):
            if rows:
                connection.execute(statement, rows)
        for change in self.executions:
            connection.execute(change)


_EVENTS = select(schema.events.c.model, schema.events.c.identity).where(
    schema.events.c.identity.in_(bindparam("identities", expanding=True))
)
_VERSIONS = select(schema.model_state.c.model, schema.model_state.c.version).where(
    schema.model_state.c.model.in_(bindparam("models", expanding=True))
)
_INSERT_EVENT = insert(schema.events)
_INSERT_DECISION = insert(schema.decisions)
_INSERT_EFFECT = insert(schema.effects)
_INSERT_STATE = insert(schema.model_state).values(model=bindparam("name"))
_UPDATE_STATE = update(schema.model_state).where(schema.model_state.c.model == bindparam("name"))
_COMPLETE_EFFECT = (
    update(schema.effects)
    .where(schema.effects.c.key == bindparam("completes"), schema.effects.c.status == "owed")
    .values(leased_until=None)
)


def _event_row(entry: Entry) -> dict[str, Any]:
    return {
        "identity": entry.event.identity,
        "model": entry.model,
        "kind": type(entry.event).__name__,
        "recorded_at": entry.now,
        "body": dump(entry.event),
    }


def _decision_row(entry: Entry, state_hash_after: str) -> dict[str, Any]:
    decision = entry.decision
    return {
        "id": decision.id,
        "model": entry.model,
        "version": decision.state.version,
        "at": entry.now,
        "event_kind": type(entry.event).__name__,
        "event_identity": entry.event.identity,
        "reason": str(decision.reason),
        "detail": decision.detail,
        "policy_hash": entry.policy_hash,
        "state_hash_before": digest(dump(entry.state_before)),
        "state_hash_after": state_hash_after,
    }


def _effect_rows(entry: Entry) -> list[dict[str, Any]]:
    return [
        {
            "key": effect.key,
            "model": entry.model,
            "kind": type(effect).__name__,
            "decision": entry.decision.id,
            "status": "owed",
            "tries": 0,
            "due_at": entry.now,
            "created_at": entry.now,
            "body": dump(effect),
        }
        for effect in entry.decision.effects
    ]


def _executions(entry: Entry) -> list[UpdateBase]:
    """The changes to the executions table, in an order that the one-active-a-model index allows."""
    before, after = entry.state_before.execution, entry.decision.state.execution
    changes: list[UpdateBase] = []
    if before and (after is None or after.name != before.name):
        changes.append(_ended(entry, before))
    if after and (before is None or after.name != before.name):
        changes.append(_planned(entry, after))
    if after and before and after.name == before.name and after != before:
        started = {"started_at": entry.now} if before.status is Status.PLANNED else {}
        table = schema.executions
        moved = {"status": str(after.status), "arn": after.arn, **started}
        changes.append(update(table).where(table.c.name == after.name).values(moved))
    return changes


def _planned(entry: Entry, new: Execution) -> UpdateBase:
    return insert(schema.executions).values(
        name=new.name,
        model=entry.model,
        generation=new.generation,
        decision=new.decision,
        status=str(new.status),
        attempt=new.attempt,
        planned_at=new.planned_at,
    )


def _ended(entry: Entry, old: Execution) -> UpdateBase:
    match entry.event:
        case ExecutionEnded(status=status, outcome=outcome, cause=cause):
            pass
        case _:
            # It never started: its StartExecution was given up.
            status, outcome, cause = Status.FAILED, None, entry.decision.detail
    return (
        update(schema.executions)
        .where(schema.executions.c.name == old.name)
        .values(
            status=str(status),
            ended_at=entry.now,
            outcome=dump(outcome) if outcome else None,
            cause=cause,
        )
    )
