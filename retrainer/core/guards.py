"""What holds a retraining back: an ordered tuple of pure functions; the first that objects gives the reason.

A request by hand passes quiet hours and the backoff: whoever asks knows the time and why it is worth another try. It
does not pass a pause, a freeze, a running execution or a budget: these are others' decisions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from retrainer.core import costs
from retrainer.core.execution import TriggerKind
from retrainer.core.fleet import ALONE, Fleet
from retrainer.core.policy import Policy
from retrainer.core.policy.guards import Backoff, last_end
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState, Spent
from retrainer.core.window import untried_rows

LOOK_AGAIN_AFTER: Final = timedelta(minutes=1)
"""How soon a model that waits for others looks at them again: their ends are events of their own, not of this model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why not now, and until when; `until` is None where only an event can end it."""

    reason: Reason
    why: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a guard saw, its limit, and its objection, None where it lets a retraining start."""

    name: str
    value: str
    threshold: str
    objection: Objection | None = None


Guard = Callable[[Policy, ModelState, datetime, Fleet], Check | None]
"""None where the policy does not declare the guard."""


def paused(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check:
    """An operator said so."""
    if state.pause is None:
        return Check(name="paused", value="no", threshold="not paused")
    why = f"paused by {state.pause.by}: {state.pause.why}"
    objected = Objection(reason=Reason.PAUSED, why=why)
    return Check(name="paused", value=why, threshold="not paused", objection=objected)


def running(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check:
    """One execution a model at a time."""
    if state.execution is None:
        return Check(name="running", value="nothing runs", threshold="nothing runs")
    why = f"{state.execution.name} is {state.execution.status}"
    objected = Objection(reason=Reason.RUNNING, why=why)
    return Check(name="running", value=why, threshold="nothing runs", objection=objected)


def quiet_hours(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check | None:
    """Hours of the day that the policy keeps quiet, until the last of those that follow one another."""
    quiet = policy.guards.quiet_hours
    if not quiet:
        return None
    said = ", ".join(f"{q.from_:%H:%M} to {q.to:%H:%M} {q.time_zone}" for q in quiet)
    until = None if _by_hand(state) else last_end([q.ends_at for q in quiet], now)
    objected = until and Objection(reason=Reason.QUIET_HOURS, why=f"until {_told(until)}", until=until)
    return Check(name="quiet_hours", value=_told(now), threshold=f"not {said}", objection=objected or None)


def freezes(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check | None:
    """Times in which nothing may change, until the last of those that follow one another."""
    declared = policy.guards.freezes
    if not declared:
        return None
    said = ", ".join(f"{f.from_} to {f.to}" for f in declared)
    until = last_end([f.ends_at for f in declared], now)
    objected = None
    if until:
        why = next(f.why for f in declared if f.ends_at(now))
        objected = Objection(reason=Reason.FROZEN, why=f"{why}, until {_told(until)}", until=until)
    return Check(name="freezes", value=_told(now), threshold=f"not {said}", objection=objected)


def cooldown(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check:
    """A pause after the last execution's end; a retry of a failed one does not wait for it."""
    if state.ended_at is None or state.attempt > 0:
        value = "nothing has ended yet" if state.ended_at is None else "a retry does not wait"
        return Check(name="cooldown", value=value, threshold=f"{policy.guards.cooldown} after the last end")
    until = state.ended_at + policy.guards.cooldown
    objected = None
    if now < until:
        objected = Objection(reason=Reason.COOLING_DOWN, why=f"until {until:%Y-%m-%d %H:%M:%S} UTC", until=until)
    value = f"{now - state.ended_at} after the last end"
    return Check(name="cooldown", value=value, threshold=str(policy.guards.cooldown), objection=objected)


def unusable(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check | None:
    """The newest measurement met with data that cannot be used, and the policy would rather wait than do without it."""
    if policy.data.unusable == "skip":
        return None
    found = state.evidence.cannot_be_used() if state.evidence else []
    value = "; ".join(found) or "all can be used"
    objected = Objection(reason=Reason.DATA_UNUSABLE, why=value) if found else None
    return Check(name="data.unusable", value=value, threshold="all can be used", objection=objected)


def rows_min(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check:
    """Nothing new to learn from."""
    rows, wanted = untried_rows(state.window), policy.guards.rows_min
    objected = None
    if rows < wanted:
        objected = Objection(reason=Reason.TOO_FEW_ROWS, why=f"{rows} rows not tried yet < {wanted}")
    return Check(name="rows_min", value=f"{rows} rows not tried yet", threshold=str(wanted), objection=objected)


def budget(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check | None:
    """At most so many executions, and so much money, in any period (now - period, now]."""
    if policy.guards.budget is None:
        return None
    cost = costs.expected(policy, state)
    stands = costs.standing(policy.guards.budget, state.starts, state.spent, cost, _currency(policy), now)
    return _limited("budget", stands)


def backoff(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check | None:
    """The gate refused again and again: each try waits twice as long as the one before, from the last end."""
    wanted = policy.guards.backoff
    if wanted is None:
        return None
    value = f"{state.fruitless} refused in a row"
    threshold = f"fewer than {wanted.after}"
    if state.fruitless < wanted.after or state.ended_at is None or state.attempt > 0 or _by_hand(state):
        return Check(name="backoff", value=value, threshold=threshold)
    until = state.ended_at + _wait(wanted, state.fruitless)
    objected = None
    if now < until:
        objected = Objection(reason=Reason.BACKING_OFF, why=f"{value}, until {_told(until)}", until=until)
    return Check(name="backoff", value=value, threshold=f"{threshold}, or after {_told(until)}", objection=objected)


def concurrency(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check | None:
    """At most so many executions of all models at a time."""
    wanted = policy.guards.fleet
    if wanted is None or wanted.concurrency is None:
        return None
    value = f"{len(fleet.running)} other models are retrained"
    objected = None
    if len(fleet.running) >= wanted.concurrency:
        names = ", ".join(r.model for r in fleet.running)
        why = f"{names} of at most {wanted.concurrency} at a time"
        objected = Objection(reason=Reason.FLEET_BUSY, why=why, until=now + LOOK_AGAIN_AFTER)
    return Check(name="fleet.concurrency", value=value, threshold=f"< {wanted.concurrency}", objection=objected)


def fleet_budget(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check | None:
    """What all models may start and spend. An execution whose cost is not known counts as one of this model's."""
    wanted = policy.guards.fleet
    if wanted is None or wanted.budget is None:
        return None
    cost = costs.expected(policy, state)
    starts = [*state.starts, *(s.at for s in fleet.starts)]
    others = (Spent(at=s.at, money=(cost or 0.0) if s.cost is None else s.cost) for s in fleet.starts)
    stands = costs.standing(wanted.budget, starts, [*state.spent, *others], cost, _currency(policy), now)
    return _limited("fleet.budget", stands)


def after(policy: Policy, state: ModelState, now: datetime, fleet: Fleet) -> Check | None:
    """Models that come first: while one of them is retrained, or has a reason to be, this one waits."""
    wanted = policy.guards.after
    if not wanted:
        return None
    busy = {r.model: "is retrained" for r in fleet.running} | dict.fromkeys(fleet.waiting, "is about to be retrained")
    said = ", ".join(f"{name} {busy[name]}" for name in wanted if name in busy)
    objected = None
    if said:
        objected = Objection(reason=Reason.AFTER_OTHERS, why=said, until=now + LOOK_AGAIN_AFTER)
    return Check(name="after", value=said or "all are done", threshold=", ".join(wanted), objection=objected)


GUARDS: tuple[Guard, ...] = (
    paused,
    running,
    quiet_hours,
    freezes,
    cooldown,
    unusable,
    rows_min,
    budget,
    backoff,
    concurrency,
    fleet_budget,
    after,
)


def checks(policy: Policy, state: ModelState, now: datetime, fleet: Fleet = ALONE) -> Iterator[Check]:
    """What each declared guard sees, in order."""
    for guard in GUARDS:
        if seen := guard(policy, state, now, fleet):
            yield seen


def objection(policy: Policy, state: ModelState, now: datetime, fleet: Fleet = ALONE) -> Objection | None:
    """The first guard's objection, or None when a retraining may start."""
    return next((seen.objection for seen in checks(policy, state, now, fleet) if seen.objection), None)


def _by_hand(state: ModelState) -> bool:
    return any(m.kind is TriggerKind.MANUAL for m in state.kept)


def _wait(wanted: Backoff, fruitless: int) -> timedelta:
    doubled = wanted.first.total_seconds() * 2.0 ** min(fruitless - wanted.after, 100)
    return timedelta(seconds=min(doubled, wanted.most.total_seconds()))


def _limited(name: str, stands: costs.Standing) -> Check:
    objected = Objection(reason=Reason.OVER_BUDGET, why=stands.why, until=stands.until) if stands.why else None
    return Check(name=name, value=stands.used, threshold=stands.allowed, objection=objected)


def _currency(policy: Policy) -> str:
    return policy.costs.currency if policy.costs else ""


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
