"""What each event alone changes, before triggers and guards are looked at: one arm an event."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import assert_never

from retrainer.core import concept, costs, plan, triggers, window
from retrainer.core.effects import AnswerApproval, Effect
from retrainer.core.events import (
    AlarmChanged,
    ApprovalAnswered,
    ApprovalRequested,
    EffectDone,
    EffectFailed,
    Event,
    EvidenceMeasured,
    ExecutionEnded,
    ExecutionStarted,
    ModelPaused,
    ModelResumed,
    ObjectCreated,
    PolicyChanged,
    RetrainingRequested,
    ScheduleFired,
    TrainingJobChanged,
    Woken,
)
from retrainer.core.evidence import BatchLoss, Drifting, Evidence
from retrainer.core.execution import LEVELS, Approval, Champion, Cycle, Execution, Outcome, Status, Verdict
from retrainer.core.policy import Policy
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState, Pause, Spent

MEASURE_AGAIN_AFTER = timedelta(minutes=10)
"""How long after a measurement failed for good it is asked again, if nothing new comes before."""

FIRST_PREDICTIONS = 8
"""So many objects are the reference of the predictions' drift: as many as the current window has batches by default."""

CYCLES_MAX = 50
COSTS_MAX = 5
LOSS_MAX = 1e30


@dataclass(frozen=True, slots=True)
class Step:
    """What an event alone brings, before triggers and guards are looked at (if `look`)."""

    state: ModelState
    reason: Reason
    detail: str = ""
    effects: tuple[Effect, ...] = ()
    look: bool = False


def decision_id(model: str, version: int) -> str:
    """The name of a model's n-th decision."""
    return f"{model}-{version}"


def take(policy: Policy, state: ModelState, event: Event, now: datetime) -> Step:
    """The event's own step from `state`, the one before it.

    When the moment has passed that the state asked to be woken at, whatever comes first is looked at in its stead.
    """
    taken = _take(policy, replace(state, version=state.version + 1, wake_at=None), event, now)
    if not taken.look and state.wake_at is not None and state.wake_at <= now:
        return replace(taken, look=True)
    return taken


def _take(policy: Policy, state: ModelState, event: Event, now: datetime) -> Step:  # noqa: C901 - one arm an event
    match event:
        case ObjectCreated():
            return _object_created(policy, state, event, now)
        case EvidenceMeasured():
            return _evidence_measured(policy, state, event, now)
        case ExecutionStarted():
            return _execution_started(state, event, now)
        case ExecutionEnded():
            return _execution_ended(policy, state, event, now)
        case EffectFailed():
            return _effect_failed(policy, state, event, now)
        case ApprovalRequested():
            return _approval_requested(state, event, now)
        case ApprovalAnswered():
            return _approval_answered(state, event)
        case ModelPaused():
            pause = Pause(by=event.by, why=event.why, since=now)
            return Step(replace(state, pause=pause), Reason.PAUSED, f"by {event.by}: {event.why}")
        case ModelResumed():
            return Step(replace(state, pause=None), Reason.RESUMED, f"by {event.by}", look=True)
        case Woken():
            return _woken(policy, state, now)
        case AlarmChanged():
            return Step(state, Reason.NOTHING_MET, f"{event.alarm} is {event.state}", look=True)
        case ScheduleFired() | RetrainingRequested():
            return Step(state, Reason.NOTHING_MET, look=True)
        case PolicyChanged():
            return Step(state, Reason.NOTED, f"policy {event.policy_hash[:12]}", look=True)
        case TrainingJobChanged():
            return Step(state, Reason.NOTED, f"{event.job} is {event.status} ({event.secondary_status})")
        case EffectDone():
            return Step(state, Reason.NOTED, f"{event.kind} {event.effect} done")
        case _:  # pragma: no cover - mypy proves it
            assert_never(event)


def _object_created(policy: Policy, state: ModelState, event: ObjectCreated, now: datetime) -> Step:
    batch = window.Batch(
        bucket=event.bucket, key=event.key, version=event.version, size_bytes=event.size_bytes, arrived_at=now
    )
    logged = policy.data.predictions
    if event.bucket == policy.data.bucket and event.key.startswith(policy.data.prefix):
        kept = window.add(state.window, batch, newest=policy.windows.training_batches)
        return _measured(policy, replace(state, window=kept), f"{batch.uri} arrived", now)
    if logged and event.bucket == policy.data.bucket and event.key.startswith(logged.prefix):
        kept = window.add(state.predictions, batch, newest=logged.batches)
        first = window.first(state.first_predictions, batch, most=FIRST_PREDICTIONS) if logged.test else ()
        state = replace(state, predictions=kept, first_predictions=first)
        return _measured(policy, state, f"predictions {batch.uri} arrived", now)
    return Step(state, Reason.NOT_WATCHED, f"{batch.uri} is under no prefix of the policy")


def _measured(policy: Policy, state: ModelState, why: str, now: datetime) -> Step:
    """Asks for evidence on the windows, or, while some is on its way, remembers to ask again."""
    if state.measuring:
        state = state if state.measure_again else replace(state, measure_again=True)
        return Step(state, Reason.MEASURING, f"{why}; {state.measuring} is on its way")
    asked = plan.measure(policy, state, f"{decision_id(state.model, state.version)}.measure", now)
    if asked is None:
        return Step(state, Reason.NOTHING_MET, f"{why}; the current window is empty")
    state = replace(state, measuring=asked.key, measure_again=False, measure_again_at=None)
    return Step(state, Reason.MEASURING, f"{why}; evidence asked on {len(asked.current)} batches", (asked,))


def _evidence_measured(policy: Policy, state: ModelState, event: EvidenceMeasured, now: datetime) -> Step:
    if event.effect != state.measuring:
        return Step(state, Reason.STALE, f"{event.effect} is no longer awaited")
    evidence = event.evidence
    kept = window.counted(window.without(state.window, evidence.refused), evidence.batches)
    training = window.without(state.training, evidence.refused)
    predictions = window.without(state.predictions, evidence.refused)
    first_predictions = window.without(state.first_predictions, evidence.refused)
    again = state.measure_again
    state = replace(
        state,
        window=kept,
        training=training,
        predictions=predictions,
        first_predictions=first_predictions,
        evidence=evidence,
        drifting=_drifting(state.drifting, evidence, now),
        losses=_with_losses(policy, state.losses, evidence.losses, kept),
        measuring=None,
        measure_again=False,
    )
    state = _with_baseline(policy, state)
    effects: tuple[Effect, ...] = ()
    if again:
        asked = _measured(policy, state, "more has arrived", now)
        state, effects = asked.state, asked.effects
    if why := "; ".join(evidence.cannot_be_used()):
        return Step(state, Reason.DATA_UNUSABLE, why, effects, look=True)
    return Step(state, Reason.NOTHING_MET, _told(evidence), effects, look=True)


def _drifting(known: tuple[Drifting, ...], evidence: Evidence, now: datetime) -> tuple[Drifting, ...]:
    """The columns that have drifted, each since when it has at every measurement; as known where none was measured."""
    if not evidence.drift:
        return known
    before = {d.column: d for d in known}
    drifted = (c.column for c in evidence.drift if c.drifted)
    return tuple(before.get(name) or Drifting(column=name, since=now) for name in drifted)


def _with_losses(
    policy: Policy, known: tuple[BatchLoss, ...], new: tuple[BatchLoss, ...], kept: tuple[window.Batch, ...]
) -> tuple[BatchLoss, ...]:
    """The champion's losses with those just measured on batches that it has not learned from, oldest first."""
    if not new:
        return known
    unseen = {(b.key, b.version) for b in kept}
    by_key = {loss.key: loss for loss in known}
    by_key.update((loss.key, _bounded(loss)) for loss in new if (loss.key, loss.version) in unseen and loss.labels > 0)
    return _newest(policy, tuple(by_key.values()))


def _newest(policy: Policy, losses: tuple[BatchLoss, ...]) -> tuple[BatchLoss, ...]:
    """As many losses as batches are kept; where a concept is judged, those of its baseline besides."""
    most, first = policy.windows.training_batches, 0
    if len(losses) > most and policy.triggers.concept:
        baseline = concept.FREEZE * policy.triggers.concept.labels_min
        first = 1 + sum(seen < baseline for seen in accumulate(loss.labels for loss in losses))
    return losses[:first] + losses[first:][-most:]


def _bounded(loss: BatchLoss) -> BatchLoss:
    """A loss that can be squared: data of strangers may be off by any number."""
    if loss.mean <= LOSS_MAX and loss.variance <= LOSS_MAX**2:
        return loss
    return replace(loss, mean=min(loss.mean, LOSS_MAX), variance=min(loss.variance, LOSS_MAX**2))


def _with_baseline(policy: Policy, state: ModelState) -> ModelState:
    """The champion's first live figure on enough labels, or estimate, is what later ones are compared with."""
    champion, wanted = state.champion, policy.triggers.performance
    if champion is None or champion.baseline or wanted is None or state.evidence is None:
        return state
    seen, _ = triggers.judged(wanted, state.evidence)
    return replace(state, champion=replace(champion, baseline=seen)) if seen else state


def _told(evidence: Evidence) -> str:
    seen = evidence.performance
    done = f", {seen.metric} {seen.value:.4f} on {seen.labels} labels" if seen else ""
    return f"{evidence.rows} rows, drift share {evidence.drift_share:.2f}{done}"


def _execution_started(state: ModelState, event: ExecutionStarted, now: datetime) -> Step:
    known = state.execution
    if known is None or known.name != event.execution:
        return Step(state, Reason.STALE, f"{event.execution} is not the execution awaited")
    running = replace(known, status=Status.RUNNING, arn=event.arn, started_at=now)
    how = "adopted" if event.adopted else "started"
    return Step(replace(state, execution=running), Reason.EXECUTION_STARTED, f"{event.execution} {how}")


def _execution_ended(policy: Policy, state: ModelState, event: ExecutionEnded, now: datetime) -> Step:
    known = state.execution
    if known is None or known.name != event.execution:
        return Step(state, Reason.STALE, f"{event.execution} is not the execution awaited")
    if event.status is not Status.SUCCEEDED or event.outcome is None:
        why = f"{event.execution} {event.status}: {event.cause or 'no outcome in its output'}"
        return _failed(policy, state, known, why, now)
    outcome = event.outcome
    state = _counted(policy, replace(state, execution=None, attempt=0, ended_at=now), known, outcome, now)
    # What was read off the windows is out of date, and so is an answer still on its way: all of it is measured
    # again, and fires again if it still holds.
    kept = tuple(m for m in state.kept if m.kind not in LEVELS)
    state = replace(state, kept=kept, levels=(), measuring=None, measure_again=False)
    if outcome.verdict is Verdict.PROMOTED:
        state = _promoted(state, known, outcome, now)
    else:
        state = replace(state, window=window.tried(state.window, known.batches))
    asked = _measured(policy, state, outcome.why, now) if window_is_new(state) else Step(state, Reason.NOTED)
    return Step(asked.state, Reason(outcome.verdict.value), f"{known.name}: {outcome.why}", asked.effects, look=True)


def _counted(policy: Policy, state: ModelState, ended: Execution, outcome: Outcome, now: datetime) -> ModelState:
    """The state with what the execution has taught: how it ended, what it cost, whether it was fruitless."""
    cycle = Cycle(
        generation=ended.generation,
        verdict=outcome.verdict,
        at=now,
        labels=sum(loss.labels for loss in state.losses),
        challenger=outcome.challenger,
        champion=outcome.champion,
        rows=outcome.rows,
    )
    spent = outcome.cost if outcome.cost is not None else costs.expected(policy, state)
    known = () if outcome.cost is None else (outcome.cost,)
    return replace(
        state,
        cycles=(*state.cycles, cycle)[-CYCLES_MAX:],
        fruitless=state.fruitless + 1 if outcome.verdict is Verdict.REFUSED else 0,
        costs=(*state.costs, *known)[-COSTS_MAX:],
        spent=_with_spent(policy, state.spent, spent, now),
    )


def _with_spent(policy: Policy, known: tuple[Spent, ...], money: float | None, now: datetime) -> tuple[Spent, ...]:
    """What was spent as far back as a budget looks; nothing is remembered where none does."""
    oldest = now - policy.guards.longest_period
    new = () if money is None else (Spent(at=now, money=money),)
    return tuple(s for s in (*known, *new) if s.at > oldest)


def window_is_new(state: ModelState) -> bool:
    """Whether something in the window has not been tried by a finished execution."""
    return any(not b.tried for b in state.window)


def _promoted(state: ModelState, ended: Execution, outcome: Outcome, now: datetime) -> ModelState:
    champion = Champion(
        generation=ended.generation,
        execution=ended.name,
        model_package_arn=outcome.model_package_arn,
        promoted_at=now,
        metrics=outcome.metrics,
    )
    rest = window.without(state.window, ended.batches)
    return replace(
        state,
        champion=champion,
        training=ended.batches,
        window=rest,
        predictions=(),
        first_predictions=(),
        losses=(),
        drifting=(),
    )


def _failed(policy: Policy, state: ModelState, known: Execution, why: str, now: datetime) -> Step:
    """Another attempt with the same triggers while any is left; then they are given up, with the reason."""
    # Nobody knows what it has cost: what one is expected to cost, unless it never ran.
    money = None if known.status is Status.PLANNED else costs.expected(policy, state)
    state = replace(state, execution=None, spent=_with_spent(policy, state.spent, money, now))
    if known.attempt < policy.action.attempts:
        state = replace(state, attempt=known.attempt, kept=triggers.merged(known.triggers, state.kept))
        return Step(state, Reason.EXECUTION_FAILED, why, look=True)
    state = replace(state, attempt=0, ended_at=now)
    given_up = ", ".join(m.kind for m in known.triggers)
    return Step(state, Reason.EXECUTION_FAILED, f"{why}; given up after {known.attempt}: {given_up}", look=True)


def _effect_failed(policy: Policy, state: ModelState, event: EffectFailed, now: datetime) -> Step:
    if event.effect == state.measuring:
        state = replace(state, measuring=None, measure_again=False, measure_again_at=now + MEASURE_AGAIN_AFTER)
        return Step(state, Reason.EVIDENCE_FAILED, event.why, look=True)
    known = state.execution
    if known and known.status is Status.PLANNED and event.effect == known.name:
        return _failed(policy, state, known, f"{known.name} could not start: {event.why}", now)
    return Step(state, Reason.EFFECT_FAILED, f"{event.kind} {event.effect}: {event.why}")


def _approval_requested(state: ModelState, event: ApprovalRequested, now: datetime) -> Step:
    known = state.execution
    if known is None or known.name != event.execution:
        return Step(state, Reason.STALE, f"{event.execution} is not the execution awaited")
    approval = Approval(task_token=event.task_token, model_package_arn=event.model_package_arn, requested_at=now)
    waiting = replace(known, status=Status.RUNNING, approval=approval)
    return Step(replace(state, execution=waiting), Reason.APPROVAL_REQUESTED, f"{event.execution} waits for a person")


def _approval_answered(state: ModelState, event: ApprovalAnswered) -> Step:
    known = state.execution
    if known is None or known.name != event.execution or known.approval is None:
        return Step(state, Reason.NOT_WAITING, f"{event.execution} does not wait for an approval")
    answer = AnswerApproval(
        key=f"{decision_id(state.model, state.version)}.answer",
        execution=known.name,
        approved=event.approved,
        by=event.by,
        task_token=known.approval.task_token,
    )
    state = replace(state, execution=replace(known, approval=None))
    reason = Reason.APPROVED if event.approved else Reason.REJECTED
    return Step(state, reason, f"{event.execution} by {event.by}", (answer,))


def _woken(policy: Policy, state: ModelState, now: datetime) -> Step:
    if state.measure_again_at and now >= state.measure_again_at:
        asked = _measured(policy, replace(state, measure_again_at=None), "measured again after a failure", now)
        return replace(asked, look=True)
    return Step(state, Reason.NOTED, "woken", look=True)
