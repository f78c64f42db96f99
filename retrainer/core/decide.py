"""The one place where anything is decided: an event and what is known give the next state, a reason and effects."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from retrainer.core import plan, window
from retrainer.core.effects import AnswerApproval, Effect, MeasureEvidence
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
from retrainer.core.execution import LEVELS, Approval, Champion, Execution, Outcome, Status, Verdict
from retrainer.core.guards import objection
from retrainer.core.policy import Policy
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState, Pause
from retrainer.core.triggers import merged, met

_PLAIN = frozenset({Reason.NOTHING_MET, Reason.NOTED, Reason.RESUMED})
"""Reasons that say nothing which a guard's objection or a retraining would not say better."""

MEASURE_AGAIN_AFTER = timedelta(minutes=10)
"""How long after a measurement failed for good it is asked again, if nothing new comes before."""


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


@dataclass(frozen=True, slots=True)
class _Step:
    """What an event alone brings, before triggers and guards are looked at (if `look`)."""

    state: ModelState
    reason: Reason
    detail: str = ""
    effects: tuple[Effect, ...] = ()
    look: bool = False


def decision_id(model: str, version: int) -> str:
    """The name of a model's n-th decision."""
    return f"{model}-{version}"


def decide(policy: Policy, state: ModelState, event: Event, now: datetime) -> Decision:
    """The next state of the model, why, and what is to be done. Pure: the same arguments give the same decision."""
    known = replace(state, version=state.version + 1, wake_at=None)
    step = _take(policy, known, event, now)
    if new := met(policy, step.state, event, now) if step.look else ():
        step = replace(step, state=replace(step.state, kept=merged(step.state.kept, new)))
    if step.look and step.state.kept:
        step = _consider(policy, step, event.identity, now)
    wake_at = _wake_at(policy, step.state, now)
    return Decision(
        state=replace(step.state, wake_at=wake_at) if wake_at else step.state,
        reason=step.reason,
        detail=step.detail,
        effects=step.effects,
    )


def _consider(policy: Policy, step: _Step, identity: str, now: datetime) -> _Step:
    """Triggers are met: either a guard objects and they are kept, or the retraining is planned."""
    state = step.state
    asked = "; ".join(f"{m.kind}: {m.why}" for m in state.kept)
    if objected := objection(policy, state, now):
        if step.reason in _PLAIN:
            return replace(step, reason=objected.reason, detail=f"{objected.why}; kept: {asked}")
        return replace(step, detail=f"{step.detail}; kept, {objected.reason} {objected.why}: {asked}")
    decision = decision_id(state.model, state.version)
    new = plan.execution(policy, state, identity, decision, now)
    oldest = now - (policy.guards.budget.period if policy.guards.budget else timedelta(0))
    effects: tuple[Effect, ...] = (*step.effects, plan.start(policy, new))
    if plan.reference(policy, state) and plan.current(policy, state):
        effects = (*effects, plan.report(policy, state, decision))
    said = f"{new.name}; {asked}" if step.reason in _PLAIN else f"{new.name}; {asked}; after {step.detail}"
    return _Step(plan.planned(state, new, oldest), Reason.RETRAINING, said, effects)


def _wake_at(policy: Policy, state: ModelState, now: datetime) -> datetime | None:
    """When a guard lets go by time alone, or a failed measurement is to be tried again."""
    objected = objection(policy, state, now) if state.kept else None
    moments = [t for t in (objected and objected.until, state.measure_again_at) if t]
    return min(moments, default=None)


def _take(policy: Policy, state: ModelState, event: Event, now: datetime) -> _Step:  # noqa: C901 - one arm an event
    match event:
        case ObjectCreated():
            return _object_created(policy, state, event)
        case EvidenceMeasured():
            return _evidence_measured(policy, state, event)
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
            return _Step(replace(state, pause=pause), Reason.PAUSED, f"by {event.by}: {event.why}")
        case ModelResumed():
            return _Step(replace(state, pause=None), Reason.RESUMED, f"by {event.by}", look=True)
        case Woken():
            return _woken(policy, state, now)
        case AlarmChanged():
            return _Step(state, Reason.NOTHING_MET, f"{event.alarm} is {event.state}", look=True)
        case ScheduleFired() | RetrainingRequested():
            return _Step(state, Reason.NOTHING_MET, look=True)
        case PolicyChanged():
            return _Step(state, Reason.NOTED, f"policy {event.policy_hash[:12]}", look=True)
        case TrainingJobChanged():
            return _Step(state, Reason.NOTED, f"{event.job} is {event.status} ({event.secondary_status})")
        case EffectDone():
            return _Step(state, Reason.NOTED, f"{event.kind} {event.effect} done")
        case _:  # pragma: no cover - mypy proves it
            assert_never(event)


def _object_created(policy: Policy, state: ModelState, event: ObjectCreated) -> _Step:
    batch = window.Batch(bucket=event.bucket, key=event.key, version=event.version, size_bytes=event.size_bytes)
    logged = policy.data.predictions
    if event.bucket == policy.data.bucket and event.key.startswith(policy.data.prefix):
        kept = window.add(state.window, batch, newest=policy.windows.training_batches)
        return _measured(policy, replace(state, window=kept), f"{batch.uri} arrived")
    if logged and event.bucket == policy.data.bucket and event.key.startswith(logged.prefix):
        kept = window.add(state.predictions, batch, newest=policy.windows.current_batches)
        return _measured(policy, replace(state, predictions=kept), f"predictions {batch.uri} arrived")
    return _Step(state, Reason.NOT_WATCHED, f"{batch.uri} is under no prefix of the policy")


def _measured(policy: Policy, state: ModelState, why: str) -> _Step:
    """Asks for evidence on the windows, or, while some is on its way, remembers to ask again."""
    if state.measuring:
        state = state if state.measure_again else replace(state, measure_again=True)
        return _Step(state, Reason.MEASURING, f"{why}; {state.measuring} is on its way")
    current = plan.current(policy, state)
    if not current:
        return _Step(state, Reason.NOTHING_MET, f"{why}; the current window is empty")
    key = f"{decision_id(state.model, state.version)}.measure"
    asked = MeasureEvidence(
        key=key, reference=plan.reference(policy, state), current=current, predictions=state.predictions
    )
    state = replace(state, measuring=key, measure_again=False, measure_again_at=None)
    return _Step(state, Reason.MEASURING, f"{why}; evidence asked on {len(current)} batches", (asked,))


def _evidence_measured(policy: Policy, state: ModelState, event: EvidenceMeasured) -> _Step:
    if event.effect != state.measuring:
        return _Step(state, Reason.STALE, f"{event.effect} is no longer awaited")
    evidence = event.evidence
    kept = window.counted(window.without(state.window, evidence.refused), evidence.batches)
    training = window.without(state.training, evidence.refused)
    predictions = window.without(state.predictions, evidence.refused)
    again = state.measure_again
    state = replace(
        state,
        window=kept,
        training=training,
        predictions=predictions,
        evidence=evidence,
        measuring=None,
        measure_again=False,
    )
    state = _with_baseline(policy, state)
    effects: tuple[Effect, ...] = ()
    if again:
        asked = _measured(policy, state, "more has arrived")
        state, effects = asked.state, asked.effects
    if evidence.refused:
        why = "; ".join(f"s3://{r.bucket}/{r.key}: {r.why}" for r in evidence.refused)
        return _Step(state, Reason.DATA_UNUSABLE, why, effects, look=True)
    return _Step(state, Reason.NOTHING_MET, _told(state), effects, look=True)


def _with_baseline(policy: Policy, state: ModelState) -> ModelState:
    """The champion's first live measurement on enough labels is what later ones are compared with."""
    champion, wanted = state.champion, policy.triggers.performance
    seen = state.evidence.performance if state.evidence else None
    if champion is None or champion.baseline or wanted is None or seen is None or seen.labels < wanted.labels_min:
        return state
    return replace(state, champion=replace(champion, baseline=seen))


def _told(state: ModelState) -> str:
    evidence = state.evidence
    assert evidence is not None
    seen = evidence.performance
    done = f", {seen.metric} {seen.value:.4f} on {seen.labels} labels" if seen else ""
    return f"{evidence.rows} rows, drift share {evidence.drift_share:.2f}{done}"


def _execution_started(state: ModelState, event: ExecutionStarted, now: datetime) -> _Step:
    known = state.execution
    if known is None or known.name != event.execution:
        return _Step(state, Reason.STALE, f"{event.execution} is not the execution awaited")
    running = replace(known, status=Status.RUNNING, arn=event.arn, started_at=now)
    how = "adopted" if event.adopted else "started"
    return _Step(replace(state, execution=running), Reason.EXECUTION_STARTED, f"{event.execution} {how}")


def _execution_ended(policy: Policy, state: ModelState, event: ExecutionEnded, now: datetime) -> _Step:
    known = state.execution
    if known is None or known.name != event.execution:
        return _Step(state, Reason.STALE, f"{event.execution} is not the execution awaited")
    if event.status is not Status.SUCCEEDED or event.outcome is None:
        why = f"{event.execution} {event.status}: {event.cause or 'no outcome in its output'}"
        return _failed(policy, state, known, why, now)
    outcome = event.outcome
    state = replace(state, execution=None, attempt=0, ended_at=now)
    # What was read off the windows is out of date, and so is an answer still on its way: all of it is measured
    # again, and fires again if it still holds.
    state = replace(
        state, kept=tuple(m for m in state.kept if m.kind not in LEVELS), measuring=None, measure_again=False
    )
    if outcome.verdict is Verdict.PROMOTED:
        state = _promoted(state, known, outcome, now)
    else:
        state = replace(state, window=window.tried(state.window, known.batches))
    asked = _measured(policy, state, outcome.why) if window_is_new(state) else _Step(state, Reason.NOTED)
    return _Step(asked.state, Reason(outcome.verdict.value), f"{known.name}: {outcome.why}", asked.effects, look=True)


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
    return replace(state, champion=champion, training=ended.batches, window=rest, predictions=())


def _failed(policy: Policy, state: ModelState, known: Execution, why: str, now: datetime) -> _Step:
    """Another attempt with the same triggers while any is left; then they are given up, with the reason."""
    state = replace(state, execution=None)
    if known.attempt < policy.action.attempts:
        state = replace(state, attempt=known.attempt, kept=merged(known.triggers, state.kept))
        return _Step(state, Reason.EXECUTION_FAILED, why, look=True)
    state = replace(state, attempt=0, ended_at=now)
    given_up = ", ".join(m.kind for m in known.triggers)
    return _Step(state, Reason.EXECUTION_FAILED, f"{why}; given up after {known.attempt}: {given_up}", look=True)


def _effect_failed(policy: Policy, state: ModelState, event: EffectFailed, now: datetime) -> _Step:
    if event.effect == state.measuring:
        state = replace(state, measuring=None, measure_again=False, measure_again_at=now + MEASURE_AGAIN_AFTER)
        return _Step(state, Reason.EVIDENCE_FAILED, event.why, look=True)
    known = state.execution
    if known and known.status is Status.PLANNED and event.effect == known.name:
        return _failed(policy, state, known, f"{known.name} could not start: {event.why}", now)
    return _Step(state, Reason.EFFECT_FAILED, f"{event.kind} {event.effect}: {event.why}")


def _approval_requested(state: ModelState, event: ApprovalRequested, now: datetime) -> _Step:
    known = state.execution
    if known is None or known.name != event.execution:
        return _Step(state, Reason.STALE, f"{event.execution} is not the execution awaited")
    approval = Approval(task_token=event.task_token, model_package_arn=event.model_package_arn, requested_at=now)
    waiting = replace(known, status=Status.RUNNING, approval=approval)
    return _Step(replace(state, execution=waiting), Reason.APPROVAL_REQUESTED, f"{event.execution} waits for a person")


def _approval_answered(state: ModelState, event: ApprovalAnswered) -> _Step:
    known = state.execution
    if known is None or known.name != event.execution or known.approval is None:
        return _Step(state, Reason.NOT_WAITING, f"{event.execution} does not wait for an approval")
    answer = AnswerApproval(
        key=f"{decision_id(state.model, state.version)}.answer",
        execution=known.name,
        approved=event.approved,
        by=event.by,
        task_token=known.approval.task_token,
    )
    state = replace(state, execution=replace(known, approval=None))
    reason = Reason.APPROVED if event.approved else Reason.REJECTED
    return _Step(state, reason, f"{event.execution} by {event.by}", (answer,))


def _woken(policy: Policy, state: ModelState, now: datetime) -> _Step:
    if state.measure_again_at and now >= state.measure_again_at:
        asked = _measured(policy, replace(state, measure_again_at=None), "measured again after a failure")
        return replace(asked, look=True)
    return _Step(state, Reason.NOTED, "woken", look=True)
