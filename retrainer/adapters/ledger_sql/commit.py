"""One transaction of entries: which of them hold, and the rows they come to."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, insert, text, update
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ClauseElement

from retrainer import __version__
from retrainer.adapters.ledger_sql import schema
from retrainer.adapters.ledger_sql.fleet import active, limits, outrun
from retrainer.adapters.ledger_sql.schema import microseconds, storable
from retrainer.core.events import EffectFailed, ExecutionEnded
from retrainer.core.execution import Execution, Status
from retrainer.core.record import digest, dump
from retrainer.ports import Committed, Entry

STATE_EVERY = 256
"""A model's state is kept beside every so manieth of its decisions: that many events away, at most, is any state."""


def commit(connection: Connection, chains: Sequence[Sequence[Entry]], stored: set[str]) -> list[list[Committed]]:
    """Judge the entries in their order, each on what those before it leave; write the good ones together.

    `stored` are the hashes of policies known to be in the ledger, and those that come into it are added; to be cleared
    when the transaction fails. Raises ValueError when one of the entries cannot be written down.
    """
    models = {entry.model for chain in chains for entry in chain}
    if not models:
        return [[] for _ in chains]
    limited = any(entry.fleet is not None and limits(entry) for chain in chains for entry in chain)
    _lock(connection, models, limited=limited)
    identities = {entry.event.identity for chain in chains for entry in chain}
    events = _among(connection, _EVENTS, identities)
    heads = _among(connection, _HEADS, models)
    rows = _Rows(
        known={(identity, model) for identity, model in events},
        heads={model: (version, state_hash) for model, version, state_hash in heads},
        stored=stored,
        active=active(connection) if limited else {},
    )
    verdicts = [rows.judge(chain) for chain in chains]
    rows.write(connection)
    return verdicts


def _lock(connection: Connection, models: set[str], *, limited: bool) -> None:
    """Keep other replicas from these models until the transaction ends; SQLite has one writer, who needs no lock.

    `limited`: from planning under a limit over all models too. Always in one order, so that two replicas never wait for
    each other. Not the rows of `model_state` are locked, because a new model has none yet. What is read afterwards is
    what the replica before us left (READ COMMITTED).
    """
    if connection.dialect.name == "postgresql":
        locked = [f"retrainer model {model}" for model in models] + ["retrainer fleet"] * limited
        names = (sha256(name.encode()).digest() for name in locked)
        keys = sorted(int.from_bytes(name[:8], signed=True) for name in names)
        connection.execute(_LOCK, {"keys": keys})


_LOCK = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


_EVENTS = {
    "postgresql": "SELECT identity, model FROM events WHERE identity = ANY(%s)",
    "sqlite": "SELECT identity, model FROM events WHERE identity IN (SELECT value FROM json_each(?))",
}
_HEADS = {
    "postgresql": "SELECT model, version, hash FROM model_state WHERE model = ANY(%s)",
    "sqlite": "SELECT model, version, hash FROM model_state WHERE model IN (SELECT value FROM json_each(?))",
}


def _among(connection: Connection, query: dict[str, str], values: Iterable[str]) -> Iterable[Any]:
    """The rows; one text however many the values are, because to put each number into words anew costs a good part of
    a commit.
    """
    dialect = connection.dialect.name
    given = [*values] if dialect == "postgresql" else json.dumps([*values])
    return connection.exec_driver_sql(query[dialect], (given,))


class _Many:
    """A statement for many rows, put into words once for each kind of database: Core's work a row would cost more
    than the row's own.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._texts: dict[str, str] = {}

    def execute(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        dialect = connection.dialect
        if dialect.name not in self._texts:
            self._texts[dialect.name] = str(self._statement.compile(dialect=dialect, column_keys=[*rows[0]]))
        connection.exec_driver_sql(self._texts[dialect.name], list(rows))


_INSERT_EVENTS = _Many(insert(schema.events))
_INSERT_DECISIONS = _Many(insert(schema.decisions))
_INSERT_EFFECTS = _Many(insert(schema.effects))
_PUT_STATES = _Many(
    text(
        "INSERT INTO model_state (model, version, wake_at, execution_active, body, hash, kept) "
        "VALUES (:model, :version, :wake_at, :execution_active, :body, :hash, :kept) "
        "ON CONFLICT (model) DO UPDATE SET version = excluded.version, wake_at = excluded.wake_at, "
        "execution_active = excluded.execution_active, body = excluded.body, hash = excluded.hash, kept = excluded.kept"
    )
)
_PUT_POLICIES = _Many(text("INSERT INTO policies (hash, body) VALUES (:hash, :body) ON CONFLICT DO NOTHING"))
_COMPLETE_EFFECTS = _Many(
    text("UPDATE effects SET status = :status, leased_until = NULL WHERE key = :key AND status = 'owed'")
)


@dataclass(slots=True, kw_only=True)
class _Rows:
    """What a transaction's entries come to, table by table, so that each table is written once.

    `known` are the events of the ledger and of the entries judged so far, `heads` the version and hash of each state,
    `active` the models that have an execution, and since when.
    """

    known: set[tuple[str, str]]
    heads: dict[str, tuple[int, str]]
    stored: set[str]
    active: dict[str, int]
    policies: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    effects: list[dict[str, Any]] = field(default_factory=list)
    completed: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    executions: list[UpdateBase] = field(default_factory=list)

    def judge(self, chain: Sequence[Entry]) -> list[Committed]:
        built_on: dict[str, int] = {}
        return [self._judged(entry, built_on) for entry in chain]

    def _judged(self, entry: Entry, built_on: dict[str, int]) -> Committed:
        """`built_on`: the version of each model that the chain has reached.

        Version 8 of a chain whose own step from 7 to 8 does not hold is not the ledger's version 8: another replica
        may have decided on the same event, a moment later.
        """
        identity, wanted = entry.event.identity, entry.state_before.version
        version, hash_before = self.heads.get(entry.model, (0, ""))
        reached = built_on.setdefault(entry.model, wanted)
        if (identity, entry.model) in self.known:
            verdict = Committed.DUPLICATE
        elif not version == wanted == reached or (entry.fleet is not None and outrun(entry, self.active)):
            return Committed.CONFLICT
        else:
            verdict = Committed.NEW
            built_on[entry.model] = entry.decision.state.version
            self._add(entry, identity, hash_before or digest(dump(entry.state_before)))
        if entry.completes:
            status = "failed" if isinstance(entry.event, EffectFailed) else "done"
            self.completed.append({"key": entry.completes, "status": status})
        return verdict

    def _add(self, entry: Entry, identity: str, hash_before: str) -> None:
        decision, now, kind = entry.decision, microseconds(entry.now), type(entry.event).__name__
        state = decision.state
        body = dump(state)
        hash_after = digest(body)
        self.events.append(
            {"identity": identity, "model": entry.model, "kind": kind, "recorded_at": now, "body": dump(entry.event)}
        )
        self.decisions.append(
            {
                "id": decision.id,
                "model": entry.model,
                "version": state.version,
                "at": now,
                "event_kind": kind,
                "event_identity": identity,
                "reason": decision.reason.value,
                "detail": storable(decision.detail),
                "policy_hash": entry.policy_hash,
                "state_hash_before": hash_before,
                "state_hash_after": hash_after,
                "recorded_by": __version__,
                "fleet": None if entry.fleet is None else dump(entry.fleet),
                "state_after": None if state.version % STATE_EVERY else body,
            }
        )
        if entry.policy_hash not in self.stored:
            self.stored.add(entry.policy_hash)
            self.policies.append({"hash": entry.policy_hash, "body": dump(entry.policy)})
        if decision.effects:
            self.effects.extend(_effect_rows(entry, now))
        if state.execution is not entry.state_before.execution:
            self._moved(entry)
        # The last state of a model in this transaction is the one that stays.
        self.states[entry.model] = {
            "model": entry.model,
            "version": state.version,
            "wake_at": microseconds(state.wake_at) if state.wake_at else None,
            "execution_active": state.execution.name if state.execution else None,
            "body": body,
            "hash": hash_after,
            "kept": len(state.kept),
        }
        self.known.add((identity, entry.model))
        self.heads[entry.model] = (state.version, hash_after)

    def _moved(self, entry: Entry) -> None:
        self.executions.extend(_executions(entry))
        if execution := entry.decision.state.execution:
            self.active[entry.model] = microseconds(execution.planned_at)
        else:
            self.active.pop(entry.model, None)

    def write(self, connection: Connection) -> None:
        for statement, rows in (
            (_PUT_POLICIES, self.policies),
            (_INSERT_EVENTS, self.events),
            (_INSERT_DECISIONS, self.decisions),
            (_PUT_STATES, [*self.states.values()]),
            (_INSERT_EFFECTS, self.effects),
            (_COMPLETE_EFFECTS, self.completed),
        ):
            if rows:
                statement.execute(connection, rows)
        for change in self.executions:
            connection.execute(change)


def _effect_rows(entry: Entry, now: int) -> list[dict[str, Any]]:
    return [
        {
            "key": effect.key,
            "model": entry.model,
            "kind": type(effect).__name__,
            "decision": entry.decision.id,
            "status": "owed",
            "tries": 1 if entry.leased_until else 0,
            "due_at": now,
            "leased_until": microseconds(entry.leased_until) if entry.leased_until else None,
            "created_at": now,
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
            cost=outcome.cost if outcome else None,
            cause=storable(cause) if cause else cause,
        )
    )
