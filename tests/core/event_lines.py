"""Reads the events of a transcript: `kind word ... key=value ...`."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest

from retrainer.core.decide import decision_id
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
from retrainer.core.evidence import (
    ALL_COLUMNS,
    PREDICTIONS,
    BatchLoss,
    ColumnDrift,
    Evidence,
    Performance,
    Unusable,
)
from retrainer.core.execution import Outcome, Status, Verdict
from retrainer.core.state import ModelState
from retrainer.core.window import Batch, Refusal


def read_event(text: str, state: ModelState, now: datetime, asked: dict[str, tuple[Batch, ...]]) -> Event:
    """`kind word ... key=value ...`; what is left out is what the state waits for."""
    kind, *words = shlex.split(text)
    plain = [w for w in words if "=" not in w]
    given = dict(w.split("=", 1) for w in words if "=" in w)
    if kind == "evidence":
        effect = given.get("effect", state.measuring or "none")
        return EvidenceMeasured(effect=effect, evidence=_evidence(given, asked.get(effect, ())))
    return READERS[kind](plain, given, state, now)


def _object(plain: list[str], given: dict[str, str], state: ModelState, now: datetime) -> Event:
    bucket = given.get("bucket", "b")
    key = given.get("key", f"data/m/{plain[0]}.parquet" if plain else "")
    return ObjectCreated(bucket=bucket, key=key, version=given.get("version", "1"), size_bytes=10)


def _predictions(plain: list[str], given: dict[str, str], state: ModelState, now: datetime) -> Event:
    return ObjectCreated(bucket="b", key=f"predictions/m/{plain[0]}.parquet", version="1", size_bytes=10)


def _evidence(given: dict[str, str], current: tuple[Batch, ...]) -> Evidence:
    """`rows=` is what each batch asked about holds; `drift=` and `p=` are of x and y; `refused=` is a batch's name.

    `losses=` are a batch's name, its labels and their mean loss, as in losses=a:100:0.25,b:50:0.1. `classifier=` and
    `predicted=` are a score and a p-value, as in classifier=0.8:0.001; `unusable=` is a column and why.
    """
    rows = int(given.get("rows", "0"))
    bad = f"/{given.get('refused')}.parquet"
    good = tuple(replace(b, rows=rows) for b in current if not b.key.endswith(bad))
    refused = tuple(
        Refusal(bucket=b.bucket, key=b.key, version=b.version, why="it is truncated")
        for b in current
        if b.key.endswith(bad)
    )
    scores = zip_longest(("x", "y"), ("wasserstein", "psi"), _listed(given, "drift"), _listed(given, "p"))
    drift = tuple(
        ColumnDrift(
            column=name,
            test=test,
            score=float(score),
            threshold=0.1,
            drifted=float(score) >= 0.1,
            p_value=float(p_value) if p_value else None,
        )
        for name, test, score, p_value in scores
        if score
    )
    together = [
        ColumnDrift(
            column=name,
            test=test,
            score=float(score),
            threshold=threshold,
            drifted=float(score) >= threshold,
            p_value=float(p_value),
        )
        for word, name, test, threshold in (
            ("classifier", ALL_COLUMNS, "classifier", 0.7),
            ("predicted", PREDICTIONS, "psi", 0.2),
        )
        for score, _, p_value in [given.get(word, "").partition(":")]
        if score
    ]
    labels = int(given.get("labels", "60"))
    seen = [Performance(metric=m, value=float(given[m]), labels=labels) for m in ("accuracy", "rmse") if m in given]
    losses = (loss.split(":") for loss in _listed(given, "losses"))
    return Evidence(
        rows=sum(b.rows or 0 for b in good),
        batches=good,
        refused=refused,
        drift=(*drift, *together),
        unusable=tuple(
            Unusable(column=c, why=why) for c, _, why in (u.partition(":") for u in _listed(given, "unusable"))
        ),
        performance=seen[0] if seen else None,
        losses=tuple(
            BatchLoss(key=f"data/m/{name}.parquet", version="1", labels=int(n), mean=float(mean), variance=0.1)
            for name, n, mean in losses
        ),
        estimated=Performance(metric="accuracy", value=float(given["estimated"]), labels=rows)
        if "estimated" in given
        else None,
    )


def _listed(given: dict[str, str], name: str) -> list[str]:
    return given[name].split(",") if name in given else []


def _name(given: dict[str, str], state: ModelState) -> str:
    return given.get("execution", state.execution.name if state.execution else "none")


def _ended(plain: list[str], given: dict[str, str], state: ModelState, now: datetime) -> Event:
    status = Status(plain[0])
    outcome = None
    if len(plain) > 1:
        metrics = {"accuracy": float(given["accuracy"])} if "accuracy" in given else {}
        outcome = Outcome(
            verdict=Verdict(plain[1]),
            why=given.get("why", "the gate's word"),
            metrics=metrics,
            cost=float(given["cost"]) if "cost" in given else None,
        )
    return ExecutionEnded(execution=_name(given, state), status=status, outcome=outcome, cause=given.get("cause", ""))


def _failed(plain: list[str], given: dict[str, str], state: ModelState, now: datetime) -> Event:
    effect = {"measure": state.measuring, "start": _name(given, state)}.get(plain[0]) or f"{plain[0]}-x"
    kind = {"measure": "MeasureEvidence", "start": "StartExecution"}.get(plain[0], "PublishReport")
    return EffectFailed(effect=effect, kind=kind, why=given.get("why", "it cannot be done"))


def _approval(plain: list[str], given: dict[str, str], state: ModelState, now: datetime) -> Event:
    return ApprovalRequested(execution=_name(given, state), task_token="token-1", model_package_arn="arn:package/1")


def _answer(approved: bool) -> "Reader":
    return lambda plain, given, state, now: ApprovalAnswered(
        request=f"r{now:%H%M}", execution=_name(given, state), approved=approved, by="ann"
    )


Reader = Callable[[list[str], dict[str, str], ModelState, datetime], Event]
READERS: dict[str, Reader] = {
    "object": _object,
    "predictions": _predictions,
    "ended": _ended,
    "failed": _failed,
    "approval": _approval,
    "approve": _answer(True),
    "reject": _answer(False),
    "started": lambda plain, given, state, now: ExecutionStarted(
        execution=_name(given, state), arn="arn:execution/1", adopted="adopted" in plain
    ),
    "done": lambda plain, given, state, now: EffectDone(effect=plain[0], kind="PublishReport"),
    "schedule": lambda plain, given, state, now: ScheduleFired(schedule=plain[0], fire_at=now),
    "alarm": lambda plain, given, state, now: AlarmChanged(alarm=plain[0], state=plain[1], changed_at=now),
    "manual": lambda plain, given, state, now: RetrainingRequested(
        request=f"r{now:%H%M}", by="ann", why=" ".join(plain)
    ),
    "pause": lambda plain, given, state, now: ModelPaused(request=f"r{now:%H%M}", by="ann", why=" ".join(plain)),
    "resume": lambda plain, given, state, now: ModelResumed(request=f"r{now:%H%M}", by="ann"),
    "woken": lambda plain, given, state, now: Woken(
        wake_at=state.wake_at or now, asked_by=decision_id(state.model, state.version)
    ),
    "job": lambda plain, given, state, now: TrainingJobChanged(
        job=plain[0], status=plain[1], secondary_status=plain[2]
    ),
    "repoliced": lambda plain, given, state, now: PolicyChanged(policy_hash="abcdef0123456789", changed_at=now),
}
