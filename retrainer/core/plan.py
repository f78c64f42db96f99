"""The retraining that a decision asks for: its execution, with the exact manifest and input, and the report on why."""

import hashlib
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from retrainer.core.effects import MeasureEvidence, PublishReport, StartExecution
from retrainer.core.execution import Execution, Status
from retrainer.core.policy import Candidate, Policy, Reference
from retrainer.core.record import canonical, digest
from retrainer.core.state import ModelState
from retrainer.core.window import Batch


def execution(policy: Policy, state: ModelState, identity: str, decision: str, now: datetime) -> Execution:
    """The next execution of a model. Its name is a function of the model, the generation and the deciding fact.

    It learns from what has been read and counted: a batch that nobody has looked at yet could fail the training.
    """
    generation = state.generation + 1
    fingerprint = hashlib.sha256(f"{state.model}/{generation}/{decision}/{identity}".encode()).hexdigest()[:8]
    return Execution(
        name=f"{state.model}-g{generation}-{fingerprint}",
        generation=generation,
        attempt=state.attempt + 1,
        decision=decision,
        status=Status.PLANNED,
        planned_at=now,
        triggers=state.kept,
        batches=tuple(b for b in (*state.training, *state.window) if b.rows is not None)[
            -policy.windows.training_batches :
        ],
    )


def start(policy: Policy, state: ModelState, planned: Execution) -> StartExecution:
    """The effect that starts it: every text in it is fixed here, and stays what it is at every retry."""
    bucket = policy.data.bucket
    manifest = canonical(
        {
            "model": policy.model,
            "generation": planned.generation,
            "objects": [_listed(b) for b in planned.batches],
            "rows": _rows(planned.batches),
        }
    )
    key = f"executions/{planned.name}/manifest.json"
    given = {
        "decision_id": planned.decision,
        "model": policy.model,
        "generation": planned.generation,
        "bucket": bucket,
        "manifest": {"uri": f"s3://{bucket}/{key}", "sha256": digest(manifest)},
        "data": {
            "format": policy.data.format,
            "required_columns": list(policy.data.required_columns),
            "timestamp": policy.data.timestamp,
            "holdout_share": _holdout_share(policy, state, planned),
            "rows": _rows(planned.batches),
        },
        "candidates": [_candidate(c, planned.generation) for c in policy.action.candidates],
        "processing_instance_type": policy.action.processing_instance_type,
        "serving_instance_type": policy.action.serving_instance_type,
        "timeouts": {
            "training_seconds": int(policy.action.timeouts.training.total_seconds()),
            "wait_seconds": int(policy.action.timeouts.wait.total_seconds()),
        },
        "gate": policy.gate.model_dump(mode="json", exclude_none=True),
        "approval": policy.approval,
        "input": policy.action.input,
        "poll_seconds": int(policy.action.poll.total_seconds()),
        "rollout": {
            "canary_percent": policy.rollout.canary_percent,
            "bake_seconds": int(policy.rollout.bake.total_seconds()),
            "alarms": list(policy.rollout.alarms),
        },
        "notify": list(policy.notify.on),
        **({"refit": True} if policy.action.refit else {}),  # a policy without it asks as before there was one
    }
    return StartExecution(
        key=planned.name,
        state_machine_arn=policy.action.state_machine,
        manifest_bucket=bucket,
        manifest_key=key,
        manifest=manifest,
        input=canonical(given),
    )


def _holdout_share(policy: Policy, state: ModelState, planned: Execution) -> float:
    """With `refit`, at most half of what the champion has not learned from.

    On other rows the champion would look too good, and without the other half the challenger would equal it.
    """
    share = policy.action.holdout_share
    if not policy.action.refit or state.champion is None:
        return share
    new = _rows(tuple(b for b in planned.batches if b not in state.training))
    return min(share, new / 2 / _rows(planned.batches)) if new else share


def measure(policy: Policy, state: ModelState, key: str, now: datetime) -> MeasureEvidence | None:
    """The effect that measures the windows; None while the current one is empty."""
    compared = current(policy, state, now)
    if not compared:
        return None
    against = reference(policy, state, compared)
    return MeasureEvidence(
        key=key,
        reference=against,
        current=compared,
        predictions=state.predictions,
        grid=grid(policy, state, against),
        profiles=profiles(policy, state),
        first_predictions=first_predictions(policy, state),
        classifier=classifier(policy),
    )


def report(policy: Policy, state: ModelState, decision: str, now: datetime) -> PublishReport | None:
    """The effect that stores Evidently's report beside the decision it explains; None while a window is empty."""
    compared = current(policy, state, now)
    against = reference(policy, state, compared)
    if not compared or not against:
        return None
    return PublishReport(
        key=f"{decision}.report",
        bucket=policy.data.bucket,
        report_key=f"reports/{policy.model}/{decision}.html",
        reference=against,
        current=compared,
        grid=grid(policy, state, against),
        profiles=profiles(policy, state),
        first_predictions=first_predictions(policy, state),
        since=state.drifting,
        predictions=state.predictions,
        classifier=classifier(policy),
    )


def reference(policy: Policy, state: ModelState, compared: tuple[Batch, ...]) -> tuple[Batch, ...]:
    """The reference window that the current one is compared with: see the policy's `Reference`."""
    wanted = policy.windows.reference
    if wanted.of == "training":
        return _of_the_season(wanted, state.training, compared)[-wanted.batches :]
    if wanted.of in ("fixed", "monitor"):
        return tuple(Batch(bucket=policy.data.bucket, key=key, version="", size_bytes=0) for key in wanted.keys)
    inside = {(b.key, b.version) for b in compared}
    before = tuple(b for b in (*state.training, *state.window) if (b.key, b.version) not in inside)
    return _of_the_season(wanted, before, compared)[-wanted.batches :]


def _of_the_season(wanted: Reference, known: tuple[Batch, ...], compared: tuple[Batch, ...]) -> tuple[Batch, ...]:
    """What arrived in the hours, or on the week days, in which the compared did; all where nothing of it did."""
    if wanted.season is None:
        return known
    zone = ZoneInfo(wanted.time_zone)

    def season(arrived_at: datetime) -> int:
        local = arrived_at.astimezone(zone)
        return local.hour if wanted.season == "hour" else local.weekday()

    seasons = {season(b.arrived_at) for b in compared if b.arrived_at}
    return tuple(b for b in known if b.arrived_at and season(b.arrived_at) in seasons) or known


def grid(policy: Policy, state: ModelState, against: tuple[Batch, ...]) -> tuple[Batch, ...]:
    """The batches from which the edges of the profiles are chosen; none where they are the reference.

    They stay the same for as long as a champion does, and with them the profiles of all batches counted since. Without
    a champion a reference that moves has the oldest batches instead, twice as many each time.
    """
    wanted = policy.windows.reference
    if wanted.of == "monitor":
        return ()
    chosen = state.training[-wanted.batches :]
    if not chosen and wanted.of == "trailing":
        chosen = state.window[: _power_of_two(len(against))]
    return () if chosen == against else chosen


def _power_of_two(count: int) -> int:
    """The largest that is not above `count`; 0 for 0."""
    return 1 << (count.bit_length() - 1) if count else 0


def profiles(policy: Policy, state: ModelState) -> str:
    """The key prefix of the profiles: beside what the champion's execution left."""
    return f"executions/{state.champion.execution}/profiles/" if state.champion else f"profiles/{policy.model}/"


def first_predictions(policy: Policy, state: ModelState) -> tuple[Batch, ...]:
    """What the newest predictions are compared with, where the policy watches them."""
    return state.first_predictions if policy.data.predictions and policy.data.predictions.test else ()


def classifier(policy: Policy) -> float | None:
    """The AUC from which all columns together have drifted; None where the policy does not ask."""
    return policy.triggers.drift.classifier if policy.triggers.drift else None


def current(policy: Policy, state: ModelState, now: datetime) -> tuple[Batch, ...]:
    """The current window: the newest of what the champion has not seen, and whatever nobody has counted yet."""
    wanted, window = policy.windows.current, state.window
    if wanted.time is not None:
        oldest = now - wanted.time
        return tuple(b for b in window if b.rows is None or (b.arrived_at is not None and b.arrived_at > oldest))
    newest = _newest(window, wanted.rows) if wanted.rows is not None else len(window) - (wanted.batches or 0)
    return tuple(b for i, b in enumerate(window) if i >= newest or b.rows is None)


def _newest(window: tuple[Batch, ...], rows: int) -> int:
    """Where the newest batches begin that hold so many rows together, or all that there are."""
    at, held = len(window), 0
    while at > 0 and held < rows:
        at -= 1
        held += window[at].rows or 0
    return at


def planned(state: ModelState, new: Execution, oldest: datetime) -> ModelState:
    """The state once the execution is decided: its triggers are in it now, and its start is counted."""
    starts = (*(s for s in state.starts if s > oldest), new.planned_at)
    return replace(state, generation=new.generation, execution=new, kept=(), starts=starts)


def _listed(batch: Batch) -> dict[str, object]:
    return {"uri": batch.uri, "version": batch.version, "rows": batch.rows}


def _rows(batches: tuple[Batch, ...]) -> int:
    return sum(b.rows or 0 for b in batches)


def _candidate(candidate: Candidate, generation: int) -> dict[str, object]:
    """As declared; the model is told its generation, so that what it serves can be traced to the decision."""
    told = candidate.model_dump(mode="json")
    told["hyperparameters"] = {**candidate.hyperparameters, "generation": str(generation)}
    return told
