"""One decision by itself: nothing that asks for it is dropped, no guard is passed over, no data is lost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrainer.core.effects import AnswerApproval, StartExecution
from retrainer.core.events import (
    AlarmChanged,
    ApprovalAnswered,
    EffectFailed,
    EvidenceMeasured,
    ExecutionEnded,
    ModelPaused,
    ModelResumed,
    ObjectCreated,
    RetrainingRequested,
    ScheduleFired,
)
from retrainer.core.execution import LEVELS, Met, Status, TriggerKind, Verdict
from retrainer.core.reason import Reason
from retrainer.core.window import Batch
from retrainer.ports import Entry
from tests.simulation.policies import by_hash

if TYPE_CHECKING:
    from tests.simulation.world import World

Key = tuple[TriggerKind, str]


class Step:
    """One decision by itself: nothing that asks is dropped, and no guard is passed over."""

    def __init__(self, world: "World", entry: Entry, entries: Sequence[Entry]) -> None:
        self._world = world
        self._entry = entry
        self._entries = entries
        self._policy = by_hash()[entry.policy_hash]
        self._before = entry.state_before
        self._after = entry.decision.state

    def check(self) -> None:
        retrains = self._entry.decision.reason is Reason.RETRAINING
        if retrains:
            self._guards_let_go()
        starts = [e.key for e in self._entry.decision.effects if isinstance(e, StartExecution)]
        wanted = [self._after.execution.name] if retrains and self._after.execution else []
        if starts != wanted:
            self._violate("names stay", f"{wanted} is decided, {starts} is to be started")
        self._asked_for_is_kept()
        self._data_is_kept()
        self._said_is_done()
        before, after = self._before.champion, self._after.champion
        if before and (after is None or after.generation < before.generation):
            self._violate("no stale promotion", f"champion {before.generation} gives way to {after}")

    def _data_is_kept(self) -> None:
        """A batch leaves the window when the champion has learned from it, it is overwritten or cannot be used."""
        event, decision = self._entry.event, self._entry.decision
        has = {_batch(b) for b in self._after.window}
        wanted = {_batch(b) for b in self._before.window}
        if isinstance(event, ObjectCreated) and decision.reason is not Reason.NOT_WATCHED:
            wanted = {w for w in wanted if w[0] != event.key} | {(event.key, event.version)}
        if isinstance(event, EvidenceMeasured):
            wanted -= {(r.key, r.version) for r in event.evidence.refused}
        learned = isinstance(event, ExecutionEnded) and event.outcome and event.outcome.verdict is Verdict.PROMOTED
        if learned and self._before.execution:
            wanted -= {_batch(b) for b in self._before.execution.batches}
        if lost := wanted - has:
            self._violate("data is kept", f"{sorted(lost)} lost at {decision.reason}")

    def _said_is_done(self) -> None:
        """What people say is what follows."""
        event, after = self._entry.event, self._after
        match event:
            case ModelPaused() if after.pause is None:
                self._violate("people are heard", "not paused")
            case ModelResumed() if after.pause is not None:
                self._violate("people are heard", "not resumed")
            case ApprovalAnswered():
                for effect in self._entry.decision.effects:
                    if isinstance(effect, AnswerApproval) and effect.approved != event.approved:
                        self._violate("people are heard", f"{event.by} said {event.approved}")

    def _asked_for_is_kept(self) -> None:
        entry, before, after = self._entry, self._before, self._after
        asked = {_key(m) for m in before.kept}
        ended = before.execution if before.execution != after.execution else None
        if ended and (after.execution is None or after.execution.name != ended.name):
            succeeded = isinstance(entry.event, ExecutionEnded) and entry.event.status is Status.SUCCEEDED
            if succeeded:
                asked = {key for key in asked if key[0] not in LEVELS}
            elif ended.attempt < self._policy.action.attempts:
                asked |= {_key(m) for m in ended.triggers}
        asked |= self._met()
        has = {_key(m) for m in after.kept}
        if after.execution and (before.execution is None or before.execution.name != after.execution.name):
            has |= {_key(m) for m in after.execution.triggers}
        if lost := asked - has:
            said = ", ".join(sorted(f"{kind} {name}" for kind, name in lost))
            self._violate("triggers are kept", f"{said} lost at {entry.decision.reason}: {entry.decision.detail}")

    def _met(self) -> set[Key]:
        """What the event itself asks for, told by other means than the product's."""
        match self._entry.event:
            case ScheduleFired(schedule=name):
                return {(TriggerKind.SCHEDULE, name)}
            case RetrainingRequested(by=by):
                return {(TriggerKind.MANUAL, by)}
            case AlarmChanged(alarm=alarm, state="ALARM"):
                return {(TriggerKind.ALARM, alarm)}
            case EvidenceMeasured(effect=effect, evidence=evidence) if effect == self._before.measuring:
                drift = self._policy.triggers.drift
                volume = self._policy.triggers.volume
                met = set()
                if drift and evidence.rows >= drift.rows_min and evidence.drift_share >= (drift.share or 0):
                    met.add((TriggerKind.DRIFT, "drift"))
                if volume and sum(b.rows or 0 for b in self._after.window) >= volume.rows:
                    met.add((TriggerKind.VOLUME, "volume"))
                return met
        return set()

    def _guards_let_go(self) -> None:
        policy, before, after, now = self._policy, self._before, self._after, self._entry.now
        new, guards = after.execution, policy.guards
        if new is None:
            self._violate("guards hold", "a retraining without an execution")
            return
        ended = isinstance(self._entry.event, ExecutionEnded | EffectFailed)
        if before.execution and not ended:
            self._violate("guards hold", f"{new.name} starts while {before.execution.name} runs")
        if after.pause:
            self._violate("guards hold", f"{new.name} starts while the model is paused")
        if new.generation != before.generation + 1:
            self._violate("generations are unique", f"{new.name} after generation {before.generation}")
        if new.attempt > policy.action.attempts:
            self._violate("guards hold", f"{new.name} is attempt {new.attempt}")
        if new.attempt == 1 and after.ended_at and now < after.ended_at + guards.cooldown:
            self._violate("guards hold", f"{new.name} starts in the cooldown")
        if guards.budget:
            planned = (e.now for e in self._entries[:-1] if e.decision.reason is Reason.RETRAINING)
            spent = [at for at in planned if at > now - guards.budget.period]
            if guards.budget.executions and len(spent) >= guards.budget.executions:
                self._violate("guards hold", f"{new.name} is over budget")
        self._limit_holds(new.name)

    def _limit_holds(self, name: str) -> None:
        limits = self._policy.guards.fleet
        books = self._world.watch.entries.items()
        active = [m for m, book in books if m != self._entry.model and book and book[-1].decision.state.execution]
        if limits and limits.concurrency and len(active) >= limits.concurrency:
            self._violate("limits hold", f"{name} starts while {', '.join(active)} is retrained")

    def _violate(self, invariant: str, said: str) -> None:
        self._world.violate(invariant, f"{self._entry.model} {self._entry.decision.id}: {said}")


def _key(met: Met) -> Key:
    return met.kind, met.name


def _batch(batch: Batch) -> tuple[str, str]:
    return batch.key, batch.version
