"""A ledger in memory: what `ports.Ledger` promises, but for surviving the process."""

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from retrainer import __version__
from retrainer.core.events import EffectFailed, ExecutionEnded
from retrainer.core.execution import Execution, Status
from retrainer.core.fleet import Fleet, Running, Start
from retrainer.core.record import digest, dump, load_effect, load_state
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Original, Owed, PermanentError, Quarantined, Recorded

_ACTIVE = (Status.PLANNED, Status.RUNNING)
STATE_EVERY = 256
_OF_EXECUTIONS = ("ExecutionStarted", "ApprovalRequested", "ApprovalAnswered", "ExecutionEnded")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    model: str
    kind: str
    body: str
    decision: str
    due_at: datetime
    created_at: datetime
    status: str = "owed"
    tries: int = 0
    leased_until: datetime | None = None
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Execution:
    model: str
    generation: int
    decision: str
    status: Status
    planned_at: datetime
    cost: float | None = None


class MemoryLedger:
    """Keeps texts, not objects, so that what cannot be written down is found out here too."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._events: set[tuple[str, str]] = set()
        self._decisions: list[Original] = []
        self._policies: dict[str, str] = {}
        self._effects: dict[str, _Effect] = {}
        self._executions: dict[str, _Execution] = {}
        self._fires: dict[tuple[str, str], datetime] = {}
        self._quarantine: dict[tuple[str, str], Quarantined] = {}

    async def state(self, model: str) -> ModelState:
        return self._state(model)

    async def known(self, model: str, identities: Collection[str]) -> Collection[str]:
        return {identity for identity in identities if (model, identity) in self._events}

    async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
        before = (set(self._events), dict(self._states), [*self._decisions], dict(self._effects), self._executions)
        policies = dict(self._policies)
        built_on: dict[str, int] = {}
        try:
            return [self._commit(entry, built_on) for entry in entries]
        except Exception as error:
            self._events, self._states, self._decisions, self._effects, self._executions = before
            self._policies = policies
            raise PermanentError(str(error)) from error

    def _commit(self, entry: Entry, built_on: dict[str, int]) -> Committed:
        wanted = entry.state_before.version
        reached = built_on.setdefault(entry.model, wanted)
        if (entry.model, entry.event.identity) in self._events:
            self._complete(entry)
            return Committed.DUPLICATE
        if not self._state(entry.model).version == wanted == reached:
            # A version the chain has not reached itself may be another replica's of the same number.
            return Committed.CONFLICT
        if self._is_outrun(entry):
            return Committed.CONFLICT
        built_on[entry.model] = entry.decision.state.version
        self._decisions.append(_original(entry))
        self._policies.setdefault(entry.policy_hash, dump(entry.policy))
        self._states[entry.model] = dump(entry.decision.state)
        self._events.add((entry.model, entry.event.identity))
        self._add_effects(entry)
        self._executions = self._with_executions(entry)
        self._complete(entry)
        return Committed.NEW

    async def fleet(self, model: str, since: datetime) -> Fleet:
        others = [e for e in self._executions.values() if e.model != model]
        active = sorted((e.model, e.planned_at) for e in others if e.status in _ACTIVE)
        started = sorted((e.planned_at, e.model, e.cost) for e in others if e.planned_at > since)
        return Fleet(
            running=tuple(Running(model=name, since=at) for name, at in active),
            waiting=tuple(name for name in sorted(self._states) if name != model and self._state(name).kept),
            starts=tuple(Start(model=name, at=at, cost=cost) for at, name, cost in started),
        )

    async def owed(self, now: datetime, *, limit: int, lease_seconds: float) -> Sequence[Owed]:
        due = [
            key
            for key, effect in self._effects.items()
            if effect.status == "owed"
            and effect.due_at <= now
            and (effect.leased_until is None or effect.leased_until <= now)
        ]
        until = now + timedelta(seconds=lease_seconds)
        leased = sorted(due, key=lambda key: self._effects[key].due_at)[:limit]
        for key in leased:
            effect = self._effects[key]
            self._effects[key] = replace(effect, tries=effect.tries + 1, leased_until=until)
        return [_owed(self._effects[key]) for key in leased]

    async def postpone(self, effect: str, until: datetime, why: str) -> None:
        known = self._effects.get(effect)
        if known and known.status == "owed":
            self._effects[effect] = replace(known, due_at=until, leased_until=None, last_error=why)

    async def active(self) -> Mapping[str, ModelState]:
        states = {model: load_state(text) for model, text in self._states.items()}
        return {model: state for model, state in states.items() if state.execution or state.wake_at}

    async def seen_until(self, model: str, schedule: str) -> datetime | None:
        return self._fires.get((model, schedule))

    async def see(self, model: str, schedule: str, until: datetime) -> None:
        stood = self._fires.get((model, schedule), until)
        self._fires[model, schedule] = max(stood, until)

    async def quarantine(self, message: Quarantined) -> None:
        self._quarantine.setdefault((message.queue, message.message_id), message)

    async def decisions(self, model: str | None, *, limit: int) -> Sequence[Recorded]:
        wanted = [d for d in reversed(self._decisions) if model in (None, d.model)]
        return [self._told(d) for d in wanted[:limit]]

    async def decision(self, name: str) -> Recorded | None:
        execution = self._executions.get(name)
        planned_by = execution.decision if execution else None
        effect = self._effects.get(name)
        for wanted in (
            [d for d in self._decisions if d.id == (effect.decision if effect else name)],
            [d for d in self._decisions if d.event_identity == name],
            [d for d in self._decisions if d.id == planned_by],
        ):
            if wanted:
                return self._told(wanted[-1])
        return None

    async def about(self, execution: str) -> Sequence[Recorded]:
        which = (d for d in self._decisions if d.event_kind in _OF_EXECUTIONS)
        names = (f"execution:{execution}:", f"approval:{execution}:")
        return [
            self._told(d)
            for d in which
            if d.event_identity.startswith(names) or json.loads(d.event or "{}").get("execution") == execution
        ]

    async def models(self) -> Sequence[str]:
        return sorted(self._states)

    async def kept_state(self, model: str, version: int) -> int:
        kept = (d.version for d in self._decisions if d.model == model and d.version <= version and d.state_after)
        return max(kept, default=0)

    async def history(self, model: str, first: int) -> AsyncIterator[Original]:
        for known in [d for d in self._decisions if d.model == model and d.version >= first]:
            is_newest = known.version == self._state(model).version
            yield replace(
                known,
                policy=self._policies.get(known.policy_hash),
                state_after=known.state_after or (self._states[model] if is_newest else None),
                effects=tuple((k, e.kind, e.body) for k, e in self._effects.items() if e.decision == known.id),
            )

    async def counts(self) -> Mapping[str, int]:
        return {
            "events": len(self._events),
            "model_state": len(self._states),
            "policies": len(self._policies),
            "decisions": len(self._decisions),
            "effects": len(self._effects),
            "executions": len(self._executions),
            "fires": len(self._fires),
            "quarantine": len(self._quarantine),
            "effects_owed": sum(e.status == "owed" for e in self._effects.values()),
        }

    async def size_bytes(self) -> int:
        texts = [*self._states.values(), *(d.event for d in self._decisions)]
        texts += [*(e.body for e in self._effects.values()), *(m.body for m in self._quarantine.values())]
        return sum(len(text.encode()) for text in texts)

    async def compact(self, before: datetime) -> int:
        newest = {d.model: d for d in self._decisions}
        for number, d in enumerate(self._decisions):
            if d is newest[d.model]:
                self._decisions[number] = replace(d, state_after=self._states[d.model])
        kept = {d.model: d.version for d in self._decisions if d.state_after and d.at < before}
        old = {d.id for d in self._decisions if d.at < before and d.version <= kept.get(d.model, 0)}
        told = [
            i for i, d in enumerate(self._decisions) if d.event and d.id in old and d.version < newest[d.model].version
        ]
        done = [(k, e) for k, e in self._effects.items() if e.body and e.status != "owed" and e.created_at < before]
        settled = [k for k, e in done if e.decision in old]
        refused = [k for k, m in self._quarantine.items() if m.body and m.received_at < before]
        for number in told:
            self._decisions[number] = replace(self._decisions[number], event="")
        for number, d in enumerate(self._decisions):
            if d.at < before and d.version < kept.get(d.model, 0):
                self._decisions[number] = replace(d, state_after=None)
        self._effects |= {key: replace(self._effects[key], body="") for key in settled}
        self._quarantine |= {key: replace(self._quarantine[key], body="") for key in refused}
        return len(told) + len(settled) + len(refused)

    def _state(self, model: str) -> ModelState:
        text = self._states.get(model)
        return load_state(text) if text else ModelState(model=model)

    def _complete(self, entry: Entry) -> None:
        known = self._effects.get(entry.completes) if entry.completes else None
        if entry.completes and known and known.status == "owed":
            status = "failed" if isinstance(entry.event, EffectFailed) else "done"
            self._effects[entry.completes] = replace(known, status=status, leased_until=None)

    def _add_effects(self, entry: Entry) -> None:
        for effect in entry.decision.effects:
            if effect.key in self._effects:
                raise PermanentError(f"the ledger forbids a second effect {effect.key}")
            self._effects[effect.key] = _Effect(
                model=entry.model,
                kind=type(effect).__name__,
                body=dump(effect),
                decision=entry.decision.id,
                due_at=entry.now,
                created_at=entry.now,
                tries=1 if entry.leased_until else 0,
                leased_until=entry.leased_until,
            )

    def _is_outrun(self, entry: Entry) -> bool:
        """Whether it plans an execution in a fleet that has another one active by now."""
        if entry.fleet is None or _planned(entry) is None:
            return False
        told = {(known.model, known.since) for known in entry.fleet.running}
        others = [e for e in self._executions.values() if e.model != entry.model and e.status in _ACTIVE]
        return any((e.model, e.planned_at) not in told for e in others)

    def _with_executions(self, entry: Entry) -> dict[str, _Execution]:
        executions = dict(self._executions)
        before, after = entry.state_before.execution, entry.decision.state.execution
        if before and before.name in executions and (after is None or after.name != before.name):
            end = entry.event if isinstance(entry.event, ExecutionEnded) else None
            cost = end.outcome.cost if end and end.outcome else None
            status = end.status if end else Status.FAILED
            executions[before.name] = replace(executions[before.name], status=status, cost=cost)
        if after and before and after.name == before.name:
            executions[after.name] = replace(executions[after.name], status=after.status)
        elif after:
            others = [e for e in executions.values() if e.model == entry.model]
            taken = after.name in executions or any(e.generation == after.generation for e in others)
            if taken or any(e.status in _ACTIVE for e in others):
                raise PermanentError(f"the ledger forbids {after.name}: its generation is taken or one is active")
            executions[after.name] = _Execution(
                model=entry.model,
                generation=after.generation,
                decision=after.decision,
                status=after.status,
                planned_at=after.planned_at,
            )
        return executions

    def _told(self, decision: Original) -> Recorded:
        effects = tuple((k, e.kind, e.status) for k, e in sorted(self._effects.items()) if e.decision == decision.id)
        return Recorded(
            id=decision.id,
            model=decision.model,
            at=decision.at,
            event_kind=decision.event_kind,
            event_identity=decision.event_identity,
            event=_redacted(decision.event),
            reason=decision.reason,
            detail=decision.detail,
            policy_hash=decision.policy_hash,
            state_hash_before=decision.state_hash_before,
            state_hash_after=decision.state_hash_after,
            effects=effects,
        )


def _redacted(text: str) -> str:
    event = json.loads(text or "{}")
    if "task_token" not in event:
        return text
    event["task_token"] = "(left out)"
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _planned(entry: Entry) -> Execution | None:
    before, after = entry.state_before.execution, entry.decision.state.execution
    return after if after and (before is None or before.name != after.name) else None


def _original(entry: Entry) -> Original:
    """Its policy and its effects are looked up when it is told."""
    state = dump(entry.decision.state)
    return Original(
        id=entry.decision.id,
        model=entry.model,
        version=entry.decision.state.version,
        at=entry.now,
        event_kind=type(entry.event).__name__,
        event_identity=entry.event.identity,
        event=dump(entry.event),
        reason=str(entry.decision.reason),
        detail=entry.decision.detail,
        policy_hash=entry.policy_hash,
        policy=None,
        fleet=None if entry.fleet is None else dump(entry.fleet),
        recorded_by=__version__,
        state_hash_before=digest(dump(entry.state_before)),
        state_hash_after=digest(state),
        state_after=None if entry.decision.state.version % STATE_EVERY else state,
        effects=(),
    )


def _owed(effect: _Effect) -> Owed:
    return Owed(
        model=effect.model,
        effect=load_effect(effect.kind, effect.body),
        decision=effect.decision,
        tries=effect.tries,
        created_at=effect.created_at,
    )
