"""The retraining that a decision asks for: its execution, with the exact manifest and input, and the report on why."""

import hashlib
from dataclasses import replace
from datetime import datetime

from retrainer.core.effects import PublishReport, StartExecution
from retrainer.core.execution import Execution, Status
from retrainer.core.policy import Candidate, Policy
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


def start(policy: Policy, planned: Execution) -> StartExecution:
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
            "format": "parquet",
            "required_columns": list(policy.data.required_columns),
            "timestamp": policy.data.timestamp,
            "holdout_share": policy.action.holdout_share,
            "rows": _rows(planned.batches),
        },
        "candidates": [_candidate(c, planned.generation) for c in policy.action.candidates],
        "processing_instance_type": policy.action.processing_instance_type,
        "serving_instance_type": policy.action.serving_instance_type,
        "timeouts": {
            "training_seconds": int(policy.action.timeouts.training.total_seconds()),
            "wait_seconds": int(policy.action.timeouts.wait.total_seconds()),
        },
        "gate": policy.gate.model_dump(mode="json"),
        "approval": policy.approval,
        "poll_seconds": int(policy.action.poll.total_seconds()),
    }
    return StartExecution(
        key=planned.name,
        state_machine_arn=policy.action.state_machine,
        manifest_bucket=bucket,
        manifest_key=key,
        manifest=manifest,
        input=canonical(given),
    )


def report(policy: Policy, state: ModelState, decision: str) -> PublishReport:
    """The effect that stores Evidently's report beside the decision it explains."""
    return PublishReport(
        key=f"{decision}.report",
        bucket=policy.data.bucket,
        report_key=f"reports/{policy.model}/{decision}.html",
        reference=reference(policy, state),
        current=current(policy, state),
    )


def reference(policy: Policy, state: ModelState) -> tuple[Batch, ...]:
    """The reference window: the newest of what the champion learned from."""
    return state.training[-policy.windows.reference_batches :]


def current(policy: Policy, state: ModelState) -> tuple[Batch, ...]:
    """The current window: the newest of what the champion has not seen, and whatever nobody has counted yet."""
    newest = len(state.window) - policy.windows.current_batches
    return tuple(b for i, b in enumerate(state.window) if i >= newest or b.rows is None)


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
