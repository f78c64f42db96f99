"""The one place where anything is decided: an event and what is known give the next state, a reason and effects."""

from dataclasses import dataclass, replace
from datetime import datetime

from retrainer.core import plan, rules, step
from retrainer.core.effects import Effect
from retrainer.core.events import Event
from retrainer.core.fleet import ALONE, Fleet
from retrainer.core.guards import objection
from retrainer.core.policy import Policy
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState
from retrainer.core.step import MEASURE_AGAIN_AFTER, Step, decision_id
from retrainer.core.triggers import merged

__all__ = ["MEASURE_AGAIN_AFTER", "Decision", "decide", "decision_id"]

_PLAIN = frozenset({Reason.NOTHING_MET, Reason.NOTED, Reason.RESUMED})
"""Reasons that say nothing which a guard's objection or a retraining would not say better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from one event: `state.version` numbers it, `detail` is the reason in words and values."""

    state: ModelState
    reason: Reason
    detail: str
    effects: tuple[Effect, ...]

    @property
    def id(self) -> str:
        return decision_id(self.state.model, self.state.version)


def decide(policy: Policy, state: ModelState, event: Event, now: datetime, fleet: Fleet = ALONE) -> Decision:
    """The next state of the model, why, and what is to be done. Pure: the same arguments give the same decision."""
    taken = step.take(policy, state, event, now)
    if taken.look:
        taken = _look(policy, taken, event, now, fleet)
    wake_at = _wake_at(policy, taken.state, now, fleet, state.wake_at)
    return Decision(
        state=replace(taken.state, wake_at=wake_at) if wake_at else taken.state,
        reason=taken.reason,
        detail=taken.detail,
        effects=taken.effects,
    )


def _look(policy: Policy, taken: Step, event: Event, now: datetime, fleet: Fleet) -> Step:
    """The step once triggers and guards are looked at."""
    asked = rules.asked(policy, taken.state, event, now)
    if asked.met:
        taken = replace(taken, state=replace(asked.state, kept=merged(asked.state.kept, asked.met)))
    elif asked.state is not taken.state:
        taken = replace(taken, state=asked.state)
    if taken.state.kept:
        taken = _consider(policy, taken, event.identity, now, fleet)
    if asked.said:
        taken = replace(taken, detail=f"{taken.detail}; {asked.said}" if taken.detail else asked.said)
    return taken


def _consider(policy: Policy, taken: Step, identity: str, now: datetime, fleet: Fleet) -> Step:
    """Triggers are met: either a guard objects and they are kept, or the retraining is planned."""
    state = taken.state
    asked = "; ".join(f"{m.kind}: {m.why}" for m in state.kept)
    if objected := objection(policy, state, now, fleet):
        if taken.reason in _PLAIN or taken.detail == objected.why:
            return replace(taken, reason=objected.reason, detail=f"{objected.why}; kept: {asked}")
        return replace(taken, detail=f"{taken.detail}; kept, {objected.reason} {objected.why}: {asked}")
    decision = decision_id(state.model, state.version)
    new = plan.execution(policy, state, identity, decision, now)
    report = plan.report(policy, state, decision, now)
    effects: tuple[Effect, ...] = (*taken.effects, plan.start(policy, state, new), *((report,) if report else ()))
    said = f"{new.name}; {asked}" if taken.reason in _PLAIN else f"{new.name}; {asked}; after {taken.detail}"
    return Step(plan.planned(state, new, now - policy.guards.longest_period), Reason.RETRAINING, said, effects)


def _wake_at(
    policy: Policy, state: ModelState, now: datetime, fleet: Fleet, before: datetime | None
) -> datetime | None:
    """When a guard lets go by time alone, a wait for the rest of a rule ends, or a failed measurement is tried again.

    A moment that lies ahead already is not put off: a model that waits for others asks for the next minute at each of
    its events, and would never wake while they come faster.
    """
    moments = [state.measure_again_at, *(rules.runs_out_at(policy, edge) for edge in state.edges)]
    if state.kept:
        objected = objection(policy, state, now, fleet)
        if objected is None:
            moments.append(before)
        elif objected.reason in _OTHERS and objected.until and before and now < before:
            moments.append(min(before, objected.until))
        else:
            moments.append(objected.until)
    return min((moment for moment in moments if moment), default=None)


_OTHERS = frozenset({Reason.FLEET_BUSY, Reason.AFTER_OTHERS})
