"""Planted bugs in the ledger, the fake that stands for both databases."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from retrainer.core import guards
from retrainer.core.fleet import Fleet
from retrainer.loop import Loop
from retrainer.ports import Committed, Entry, Owed
from tests.fakes.memory_ledger import MemoryLedger
from tests.simulation.gate import Gate
from tests.simulation.planting import Patch, mutant


@mutant
def no_unique_identity(patch: Patch) -> None:
    """The ledger takes the same event twice."""
    commit = MemoryLedger._commit

    def forgetful(self: MemoryLedger, entry: Entry, *rest: Any) -> Committed:
        self._events.discard((entry.model, entry.event.identity))
        return commit(self, entry, *rest)

    patch.setattr(MemoryLedger, "_commit", forgetful)

    async def nothing(self: MemoryLedger, model: str, identities: Sequence[str]) -> Sequence[str]:
        return ()

    patch.setattr(MemoryLedger, "known", nothing)


@mutant
def no_version_check(patch: Patch) -> None:
    """The last writer wins: a decision on an old state overwrites a newer one."""
    commit = MemoryLedger._commit

    def blind(self: MemoryLedger, entry: Entry, *rest: Any) -> Committed:
        version = self._state(entry.model).version
        with_it = replace(entry, state_before=replace(entry.state_before, version=version))
        return commit(self, with_it, *rest)

    patch.setattr(MemoryLedger, "_commit", blind)


@mutant
def build_on_what_was_not_taken(patch: Patch) -> None:
    """A chain goes on upon its own version of a decision that another replica has made; only the number is compared."""
    commit = MemoryLedger._commit
    patch.setattr(MemoryLedger, "_commit", lambda self, entry, built_on: commit(self, entry, {}))


@mutant
def no_unique_execution(patch: Patch) -> None:
    """Neither the guard nor the ledger's indexes forbid a second execution of a model."""
    patch.setattr(guards, "GUARDS", tuple(g for g in guards.GUARDS if g is not guards.running))
    with_executions = MemoryLedger._with_executions

    def lax(self: MemoryLedger, entry: Entry) -> Any:
        kept = self._executions
        model = entry.model
        before = entry.state_before.execution
        self._executions = {k: e for k, e in kept.items() if e.model != model or (before and k == before.name)}
        after = entry.decision.state.execution
        if after and before and after.name != before.name:
            self._executions.pop(before.name, None)
            entry = replace(entry, state_before=replace(entry.state_before, execution=None))
        return {**kept, **with_executions(self, entry)}

    patch.setattr(MemoryLedger, "_with_executions", lax)


@mutant
def a_lease_never_ends(patch: Patch) -> None:
    """What a dead replica had in hand stays its own for ever."""
    owed = MemoryLedger.owed

    async def patient(self: MemoryLedger, now: datetime, **rest: Any) -> Sequence[Owed]:
        kept = self._effects
        self._effects = {k: e for k, e in kept.items() if e.leased_until is None}
        answer = await owed(self, now, **rest)
        self._effects = {**kept, **self._effects}
        return answer

    patch.setattr(MemoryLedger, "owed", patient)


@mutant
def a_lease_keeps_nobody_out(patch: Patch) -> None:
    """An effect in hand is given to whoever asks."""
    owed = MemoryLedger.owed

    async def generous(self: MemoryLedger, now: datetime, **rest: Any) -> Sequence[Owed]:
        self._effects = {k: replace(e, leased_until=None) for k, e in self._effects.items()}
        return await owed(self, now, **rest)

    patch.setattr(MemoryLedger, "owed", generous)


@mutant
def commit_answers_before_it_is_on_disk(patch: Patch) -> None:
    """What was committed in the last moments before a crash is gone after it."""
    commit, kill = MemoryLedger.commit, Gate.kill
    names = ("_events", "_states", "_decisions", "_effects", "_executions")
    lost: dict[int, tuple[float, dict[str, Any]]] = {}

    async def volatile(self: MemoryLedger, entries: Sequence[Entry]) -> Sequence[Committed]:
        before = {name: type(getattr(self, name))(getattr(self, name)) for name in names}
        answer = await commit(self, entries)
        lost[id(self)] = (_now(), before)
        return answer

    def crash(self: Gate, why: str) -> None:
        at, before = lost.pop(id(self._world.ledger), (-1.0, {}))
        if _now() - at < 0.5 and not self.dead.is_set():
            for name, value in before.items():
                setattr(self._world.ledger, name, value)
        kill(self, why)

    patch.setattr(MemoryLedger, "commit", volatile)
    patch.setattr(Gate, "kill", crash)


@mutant
def an_effect_is_not_written_with_its_decision(patch: Patch) -> None:
    """Effects live in the memory of the replica that decided, and nowhere else."""
    add = MemoryLedger._add_effects

    def forgetful(self: MemoryLedger, entry: Entry) -> None:
        if entry.leased_until is None:
            add(self, entry)

    patch.setattr(MemoryLedger, "_add_effects", forgetful)


@mutant
def a_limit_is_not_looked_at_again_in_the_commit(patch: Patch) -> None:
    """Two models that share a limit plan at once, each on what was true a moment before."""
    patch.setattr(MemoryLedger, "_is_outrun", lambda self, entry: False)


@mutant
def what_others_run_is_read_once(patch: Patch) -> None:
    """What is known of the other models when a replica starts is what it believes from then on."""
    read = Loop._fleet

    async def once(self: Loop, policy: Any) -> Fleet:
        known: dict[str, Fleet] = self.__dict__.setdefault("_believed", {})
        if policy.model not in known:
            known[policy.model] = await read(self, policy)
        return known[policy.model]

    patch.setattr(Loop, "_fleet", once)


def _now() -> float:
    return asyncio.get_running_loop().time()
