"""What holds a retraining back: an ordered tuple of pure functions; the first that objects gives the reason."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from retrainer.core.policy import Policy
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState
from retrainer.core.window import untried_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why not now, and until when; `until` is None where only an event can end it."""

    reason: Reason
    why: str
    until: datetime | None = None


Guard = Callable[[Policy, ModelState, datetime], Objection | None]


def paused(policy: Policy, state: ModelState, now: datetime) -> Objection | None:
    """An operator said so."""
    if state.pause is None:
        return None
    return Objection(reason=Reason.PAUSED, why=f"paused by {state.pause.by}: {state.pause.why}")


def running(policy: Policy, state: ModelState, now: datetime) -> Objection | None:
    """One execution a model at a time."""
    if state.execution is None:
        return None
    return Objection(reason=Reason.RUNNING, why=f"{state.execution.name} is {state.execution.status}")


def cooldown(policy: Policy, state: ModelState, now: datetime) -> Objection | None:
    """A pause after the last execution's end; a retry of a failed one does not wait for it."""
    if state.ended_at is None or state.attempt > 0:
        return None
    until = state.ended_at + policy.guards.cooldown
    if now >= until:
        return None
    return Objection(reason=Reason.COOLING_DOWN, why=f"until {until:%Y-%m-%d %H:%M:%S} UTC", until=until)


def rows_min(policy: Policy, state: ModelState, now: datetime) -> Objection | None:
    """Nothing new to learn from."""
    rows = untried_rows(state.window)
    if rows >= policy.guards.rows_min:
        return None
    return Objection(reason=Reason.TOO_FEW_ROWS, why=f"{rows} rows not tried yet < {policy.guards.rows_min}")


def budget(policy: Policy, state: ModelState, now: datetime) -> Objection | None:
    """At most so many executions in any period (now - period, now]."""
    allowed = policy.guards.budget
    if allowed is None:
        return None
    spent = [start for start in state.starts if start > now - allowed.period]
    if len(spent) < allowed.executions:
        return None
    until = spent[-allowed.executions] + allowed.period
    why = f"{len(spent)} of {allowed.executions} executions used until {until:%Y-%m-%d %H:%M} UTC"
    return Objection(reason=Reason.OVER_BUDGET, why=why, until=until)


GUARDS: tuple[Guard, ...] = (paused, running, cooldown, rows_min, budget)


def objection(policy: Policy, state: ModelState, now: datetime) -> Objection | None:
    """The first guard's objection, or None when a retraining may start."""
    for guard in GUARDS:
        if found := guard(policy, state, now):
            return found
    return None
