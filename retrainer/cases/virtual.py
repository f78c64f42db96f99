"""One model in a world of which only a case tells: the real `decide`, a clock that jumps, effects that are answered.

What the daemon's timers would do is done here: a moment that a decision asked to be woken at comes by itself, and so
does a schedule's time. StartExecution is accepted at once; a measurement finds what the case told last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from retrainer.cases.evidence import Told, evidence
from retrainer.cases.language import Measured, MeasuringFails
from retrainer.core.decide import Decision, decide, decision_id
from retrainer.core.effects import MeasureEvidence, StartExecution
from retrainer.core.events import (
    EffectFailed,
    Event,
    EvidenceMeasured,
    ExecutionEnded,
    ExecutionStarted,
    ObjectCreated,
    ScheduleFired,
    Woken,
)
from retrainer.core.execution import Execution, Outcome, Status, Verdict
from retrainer.core.fleet import ALONE, Fleet
from retrainer.core.policy import Policy, Schedule
from retrainer.core.state import ModelState
from retrainer.core.window import Batch

Due = Callable[[Schedule, datetime, datetime], Sequence[datetime]]
"""A schedule's fire times in (after, until]."""

WAKES_MAX = 100_000
"""Between two steps; a model that the fleet holds looks again each minute, so this is two months of it."""

TRAINED_ROWS = 10_000
"""What a champion that a case begins with has learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One decision and what it was made on."""

    at: datetime
    event: Event
    before: ModelState
    decision: Decision
    fleet: Fleet

    @property
    def started(self) -> Execution | None:
        """The execution it planned, if it did."""
        if any(isinstance(e, StartExecution) for e in self.decision.effects):
            return self.decision.state.execution
        return None


class World:
    """The state, the time, and what every decision was."""

    def __init__(self, policy: Policy, due: Due, begins_at: datetime) -> None:
        self.policy = policy
        self.now = begins_at
        self.state = ModelState(model=policy.model)
        self.fleet = ALONE
        self.decided: list[Decided] = []
        self.told = Told()
        self._due = due
        self._objects = 0

    def pass_time(self, until: datetime, *, including: bool) -> None:
        """Moves the clock; what is due before `until`, or at it too, happens at its time."""
        fires = sorted((at, s.name) for s in self.policy.triggers.schedules for at in self._due(s, self.now, until))
        for _ in range(WAKES_MAX):
            wake_at = self.state.wake_at
            fire_at = fires[0][0] if fires else None
            moments = [m for m in (wake_at, fire_at) if m and (m < until or (including and m == until))]
            if not moments:
                break
            self.now = max(min(moments), self.now)
            if wake_at is not None and wake_at <= min(moments):
                asked_by = decision_id(self.state.model, self.state.version)
                self.happens(Woken(wake_at=wake_at, asked_by=asked_by))
            else:
                at, name = fires.pop(0)
                self.happens(ScheduleFired(schedule=name, fire_at=at))
        else:
            raise RuntimeError(f"more than {WAKES_MAX} moments come before {until}")
        # A fire at `until` is still to come where it is not included.
        self.now = until if including else max(self.now, until - timedelta(microseconds=1))

    def happens(self, event: Event) -> None:
        """Decides on the event, and answers what the decision asks for."""
        decision = self._decide(event)
        for effect in decision.effects:
            if isinstance(effect, MeasureEvidence):
                self.happens(EvidenceMeasured(effect=effect.key, evidence=evidence(self.policy, effect, self.told)))
            elif isinstance(effect, StartExecution):
                arn = effect.state_machine_arn.replace(":stateMachine:", ":execution:")
                self.happens(ExecutionStarted(execution=effect.key, arn=f"{arn}:{effect.key}"))

    def measure(self, what: Measured) -> None:
        """A batch arrives, and what the case tells of it is found."""
        self.told.hear(self.policy, what)
        decision = self._decide(self._arrival())
        asked = next((e for e in decision.effects if isinstance(e, MeasureEvidence)), None)
        assert asked, "nothing else is ever being measured here"
        self.told.count(self.policy, self.state, asked, what)
        self.happens(EvidenceMeasured(effect=asked.key, evidence=evidence(self.policy, asked, self.told)))
        self.told.refused, self.told.unusable = None, ()

    def fail_to_measure(self, what: MeasuringFails) -> None:
        """A batch arrives, and cannot be measured for good."""
        decision = self._decide(self._arrival())
        for effect in decision.effects:
            if isinstance(effect, MeasureEvidence):
                self.told.count(self.policy, self.state, effect, Measured(column=what.column))
            self.happens(EffectFailed(effect=effect.key, kind=type(effect).__name__, why=what.why))

    def end(self, status: Status, outcome: Outcome | None, why: str) -> None:
        """The execution in flight ends."""
        assert self.state.execution
        name = self.state.execution.name
        if outcome and outcome.verdict is Verdict.PROMOTED:
            self.told = Told(rows=self.told.rows)
        self.happens(ExecutionEnded(execution=name, status=status, outcome=outcome, cause=why))

    def plant(self) -> None:
        """An execution that was started at this very moment and has learned from all there is."""
        self._objects += 1
        key = f"{self.policy.data.prefix}champion-{self._objects}"
        batch = Batch(bucket=self.policy.data.bucket, key=key, version="1", size_bytes=1, rows=TRAINED_ROWS)
        generation = self.state.generation + 1
        planted = Execution(
            name=f"{self.state.model}-g{generation}-00000000",
            generation=generation,
            attempt=1,
            decision=decision_id(self.state.model, self.state.version),
            status=Status.RUNNING,
            planned_at=self.now,
            triggers=(),
            batches=(*self.state.training, batch, *self.state.window),
        )
        starts = (*self.state.starts, self.now)
        self.state = replace(self.state, generation=generation, execution=planted, starts=starts)

    def _arrival(self) -> ObjectCreated:
        self._objects += 1
        key = f"{self.policy.data.prefix}batch-{self._objects}"
        return ObjectCreated(bucket=self.policy.data.bucket, key=key, version="1", size_bytes=1)

    def _decide(self, event: Event) -> Decision:
        guards = self.policy.guards
        fleet = self.fleet if guards.fleet or guards.after else ALONE
        before = self.state
        decision = decide(self.policy, before, event, self.now, fleet)
        self.state = decision.state
        self.decided.append(Decided(at=self.now, event=event, before=before, decision=decision, fleet=fleet))
        return decision
