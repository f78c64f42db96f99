"""A ledger in memory: what `ports.Ledger` promises, but for surviving the process."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from retrainer.core.events import EffectFailed, ExecutionEnded
from retrainer.core.execution import Status
from retrainer.core.record import digest, dump, load_effect, load_state
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Owed, PermanentError, Quarantined, Recorded

_ACTIVE = (Status.PLANNED, Status.RUNNING)


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


class MemoryLedger:
    """Keeps texts, not objects, so that what cannot be written down is found out here too."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._events: set[tuple[str, str]] = set()
        self._decisions: list[Recorded] = []
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
        built_on: dict[str, int] = {}
        try:
            return [self._commit(entry, built_on) for entry in entries]
        except Exception as error:
            self._events, self._states, self._decisions, self._effects, self._executions = before
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
        built_on[entry.model] = entry.decision.state.version
        self._decisions.append(_recorded(entry))
        self._states[entry.model] = dump(entry.decision.state)
        self._events.add((entry.model, entry.event.identity))
        self._add_effects(entry)
        self._executions = self._with_executions(entry)
        self._complete(entry)
        return Committed.NEW

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
        for wanted in (
            [d for d in self._decisions if d.id == name],
            [d for d in self._decisions if d.event_identity == name],
            [d for d in self._decisions if d.id == planned_by],
        ):
            if wanted:
                return self._told(wanted[-1])
        return None

    async def counts(self) -> Mapping[str, int]:
        return {
            "events": len(self._events),
            "model_state": len(self._states),
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
        newest = {d.model: d.id for d in self._decisions}
        told = [i for i, d in enumerate(self._decisions) if d.event and d.at < before and d.id != newest[d.model]]
        settled = [k for k, e in self._effects.items() if e.body and e.status != "owed" and e.created_at < before]
        refused = [k for k, m in self._quarantine.items() if m.body and m.received_at < before]
        for number in told:
            self._decisions[number] = replace(self._decisions[number], event="")
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

    def _with_executions(self, entry: Entry) -> dict[str, _Execution]:
        executions = dict(self._executions)
        before, after = entry.state_before.execution, entry.decision.state.execution
        if before and before.name in executions and (after is None or after.name != before.name):
            ended = entry.event.status if isinstance(entry.event, ExecutionEnded) else Status.FAILED
            executions[before.name] = replace(executions[before.name], status=ended)
        if after and before and after.name == before.name:
            executions[after.name] = replace(executions[after.name], status=after.status)
        elif after:
            others = [e for e in executions.values() if e.model == entry.model]
            taken = after.name in executions or any(e.generation == after.generation for e in others)
            if taken or any(e.status in _ACTIVE for e in others):
                raise PermanentError(f"the ledger forbids {after.name}: its generation is taken or one is active")
            executions[after.name] = _Execution(
                model=entry.model, generation=after.generation, decision=after.decision, status=after.status
            )
        return executions

    def _told(self, decision: Recorded) -> Recorded:
        effects = tuple((k, e.kind, e.status) for k, e in sorted(self._effects.items()) if e.decision == decision.id)
        return replace(decision, effects=effects)


def _recorded(entry: Entry) -> Recorded:
    event = json.loads(dump(entry.event))
    if "task_token" in event:
        event["task_token"] = "(left out)"
    return Recorded(
        id=entry.decision.id,
        model=entry.model,
        at=entry.now,
        event_kind=type(entry.event).__name__,
        event_identity=entry.event.identity,
        event=json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
        reason=str(entry.decision.reason),
        detail=entry.decision.detail,
        policy_hash=entry.policy_hash,
        state_hash_before=digest(dump(entry.state_before)),
        state_hash_after=digest(dump(entry.decision.state)),
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
