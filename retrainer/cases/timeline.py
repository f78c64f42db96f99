"""Runs a case step by step and compares what is decided with what is expected."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, assert_never
from zoneinfo import ZoneInfo

from retrainer.cases import moments
from retrainer.cases.language import (
    Alarm,
    ApprovalAsked,
    Case,
    Cases,
    Ended,
    Expected,
    Fire,
    FleetTold,
    FleetWord,
    Happening,
    Kind,
    Measured,
    MeasuringFails,
    MistakeError,
    Order,
    Ordered,
    Step,
)
from retrainer.cases.results import CaseResult, Got, Unmet
from retrainer.cases.virtual import Decided, Due, World
from retrainer.cases.words import one_of
from retrainer.core.events import (
    AlarmChanged,
    ApprovalAnswered,
    ApprovalRequested,
    Event,
    ModelPaused,
    ModelResumed,
    RetrainingRequested,
    ScheduleFired,
)
from retrainer.core.execution import Outcome, Status, TriggerKind, Verdict
from retrainer.core.fleet import ALONE, Running, Start
from retrainer.core.guards import objection
from retrainer.core.policy import Policy
from retrainer.core.rules import named


def run(cases: Cases, policy: Policy, due: Due) -> tuple[CaseResult, ...]:
    """Every case, each in a world of its own. A mistake in a step ends its case, and is told with it."""
    return tuple(_run(case, cases.zone, policy, due) for case in cases.cases)


def _run(case: Case, zone: ZoneInfo, policy: Policy, due: Due) -> CaseResult:
    base = moments.first(zone)
    world = World(policy, due, begins_at=base)
    unmet: list[Unmet] = []
    for step in case.steps:
        try:
            base = _moment(step, base, zone, is_first=step is case.steps[0])
            if step is case.steps[0]:
                world.now = base  # what a schedule did before the case begins is no part of it
            unmet += _step(world, step, base, zone)
        except MistakeError as mistake:
            wrong = MistakeError(mistake.line or step.line, mistake.column, mistake.said)
            return CaseResult(case=case, unmet=tuple(unmet), mistake=wrong)
    return CaseResult(case=case, unmet=tuple(unmet))


def _moment(step: Step, base: datetime, zone: ZoneInfo, *, is_first: bool) -> datetime:
    at = moments.resolved(step.moment, base, zone)
    if at < base and not is_first:
        before = f"{base.astimezone(zone):%Y-%m-%d %H:%M}"
        said = f"{step.moment.text} is before the step above, which is at {before}; write steps in order"
        raise MistakeError(step.line, step.moment.column, said)
    return at


def _step(world: World, step: Step, at: datetime, zone: ZoneInfo) -> list[Unmet]:
    """What did not come as expected: between the step before and this one, and at it."""
    begun = len(world.decided)
    world.pass_time(at, including=False)
    between = world.decided[begun:]
    unmet = [
        Unmet(
            line=step.line,
            step=None,
            at=d.at,
            until=at,
            got=_got(world, [d]),
            expected="no retraining, of which no step says anything",
        )
        for d in between
        if d.started
    ]
    begun = len(world.decided)
    for what in step.happenings:
        if isinstance(what, FleetTold):
            _tell_fleet(world, what, at)
    world.pass_time(at, including=True)
    for what in step.happenings:
        if not isinstance(what, FleetTold):
            _happen(world, what)
    got = _got(world, world.decided[begun:])
    if why := _unmet(world, step, got, at, zone):
        unmet.append(Unmet(line=step.line, step=step, at=at, until=at, got=got, expected=why))
    return unmet


# --- what happens ---


def _happen(world: World, what: Happening) -> None:
    match what:
        case Measured():
            world.measure(what)
        case MeasuringFails():
            world.fail_to_measure(what)
        case Alarm():
            _known(world.policy.triggers.alarms, what.name, what.column, "alarm")
            state = "OK" if what.ok else "ALARM"
            world.happens(AlarmChanged(alarm=what.name, state=state, changed_at=world.now))
        case Fire():
            _known([s.name for s in world.policy.triggers.schedules], what.name, what.column, "schedule")
            world.happens(ScheduleFired(schedule=what.name, fire_at=world.now))
        case Ordered():
            world.happens(_order(world, what))
        case ApprovalAsked():
            name = _awaited(world, what.column)
            world.happens(ApprovalRequested(execution=name, task_token=f"{name}-token"))
        case Ended():
            _end(world, what)
        case FleetTold():
            pass  # told before the time passes, as it holds from this moment on
        case _:
            assert_never(what)


def _known(names: Sequence[str], name: str, column: int, what: str) -> None:
    if name in names:
        return
    if not names:
        raise MistakeError(0, column, f"the policy has no {what}s; declare {name} in its triggers")
    raise MistakeError(0, column, f"the policy has no {what} {name!r}; {one_of(names, name)}")


def _order(world: World, what: Ordered) -> Event:
    request = f"case-{len(world.decided)}"
    match what.order:
        case Order.MANUAL:
            return RetrainingRequested(request=request, by=what.by, why=what.why)
        case Order.PAUSE:
            return ModelPaused(request=request, by=what.by, why=what.why)
        case Order.RESUME:
            return ModelResumed(request=request, by=what.by)
        case Order.APPROVE | Order.REJECT:
            name = _awaited(world, what.column)
            approved = what.order is Order.APPROVE
            return ApprovalAnswered(request=request, execution=name, approved=approved, by=what.by)
        case _:
            assert_never(what.order)


def _awaited(world: World, column: int) -> str:
    """The name of the execution in flight. Raises MistakeError where there is none."""
    if world.state.execution:
        return world.state.execution.name
    said = "no execution runs at this moment; a step above has to start one, as in manual -> retrain: manual"
    raise MistakeError(0, column, said)


def _end(world: World, what: Ended) -> None:
    if what.is_given and world.state.execution is None:
        world.plant()
    _awaited(world, what.column)
    if what.how not in {v.value for v in Verdict}:
        world.end(Status(what.how), None, what.why or "the training failed")
        return
    rows = what.figures.get("rows")
    outcome = Outcome(
        verdict=Verdict(what.how),
        why=what.why or "the gate's word",
        metric=world.policy.gate.metric,
        challenger=what.figures.get("challenger"),
        champion=what.figures.get("champion"),
        rows=None if rows is None else int(rows),
        cost=what.figures.get("cost"),
    )
    world.end(Status.SUCCEEDED, outcome, what.why)


def _tell_fleet(world: World, what: FleetTold, at: datetime) -> None:
    guards = world.policy.guards
    if not guards.fleet and not guards.after:
        raise MistakeError(0, what.column, "the policy has neither guards.fleet nor guards.after; nothing looks at it")
    match what.word:
        case FleetWord.BUSY:
            running = tuple(Running(model=m, since=at) for m in what.models)
            world.fleet = replace(world.fleet, running=running)
        case FleetWord.WAITING:
            world.fleet = replace(world.fleet, waiting=what.models)
        case FleetWord.STARTED:
            new = tuple(Start(model=m, at=at, cost=what.cost) for m in what.models)
            world.fleet = replace(world.fleet, starts=(*world.fleet.starts, *new))
        case FleetWord.IDLE:
            world.fleet = replace(ALONE, starts=world.fleet.starts)
        case _:
            assert_never(what.word)


# --- what came of it ---


def _got(world: World, decided: Sequence[Decided]) -> Got:
    """What a step brought: a retraining if one was planned, a hold if triggers are kept, else nothing."""
    reasons = tuple(d.decision.reason.value for d in decided)
    details = tuple(d.decision.detail for d in decided)
    last = decided[-1] if decided else world.decided[-1] if world.decided else None
    for each in decided:
        if started := each.started:
            words = tuple(dict.fromkeys(named(m) for m in started.triggers))
            return Got(kind=Kind.RETRAIN, words=words, reasons=reasons, details=details, last=each)
    if world.state.kept:
        held = objection(world.policy, world.state, world.now, last.fleet if last else ALONE)
        if held:
            words = (held.reason.value,)
            return Got(kind=Kind.HOLD, words=words, until=held.until, reasons=reasons, details=details, last=last)
    return Got(kind=Kind.NOTHING, reasons=reasons, details=details, last=last)


def _unmet(world: World, step: Step, got: Got, at: datetime, zone: ZoneInfo) -> str:
    """What was expected, in words, where it did not come; empty where it did."""
    expected = step.expected
    if expected is None:
        return "no retraining, of which the step says nothing" if got.kind is Kind.RETRAIN else ""
    _check_words(world.policy, expected)
    until = moments.resolved(expected.until, at, zone, later=True) if expected.until else None
    if _is_met(expected, got, until):
        return ""
    return said(expected)


def _is_met(expected: Expected, got: Got, until: datetime | None) -> bool:
    if expected.kind is Kind.REASON:
        return expected.words[0] in got.reasons
    if expected.kind is not got.kind:
        return False
    match expected.kind:
        case Kind.RETRAIN:
            return not expected.words or set(expected.words) == set(got.words)
        case Kind.HOLD:
            is_then = until is None or (got.until is not None and abs((got.until - until).total_seconds()) < 60)
            return is_then and (not expected.words or expected.words == got.words)
        case _:
            return all(any(_SAID.get(w, w) in told for told in (*got.reasons, *got.details)) for w in expected.words)


_SAID: Final = {"unless_fresh": "is skipped, the champion was promoted"}
"""What a decision says where a case names the setting that made it."""


def _check_words(policy: Policy, expected: Expected) -> None:
    if expected.kind is not Kind.RETRAIN:
        return
    names = [*policy.triggers.names, TriggerKind.MANUAL.value]
    for word in expected.words:
        if word not in names:
            said = f"{word!r} is no trigger of this policy; {one_of(names, word)}"
            raise MistakeError(expected.line, expected.column, said)


def said(expected: Expected) -> str:
    """An expectation as it is written."""
    if expected.kind is Kind.REASON:
        return expected.words[0]
    words = f": {', '.join(expected.words)}" if expected.words else ""
    until = f" until {expected.until.text}" if expected.until else ""
    return f"{expected.kind.value}{words}{until}"
