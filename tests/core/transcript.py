"""Runs a readable timeline through `decide`: a line an event, under it what was decided and what is to be done.

2026-01-01 00:00 object a rows later
-> measuring: s3://b/data/m/a.parquet arrived; evidence asked on 1 batches
   MeasureEvidence m-1.measure reference=0 current=1
"""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from retrainer.core import record
from retrainer.core.decide import Decision, decide, decision_id
from retrainer.core.effects import AnswerApproval, Effect, MeasureEvidence, PublishReport, StartExecution
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
from retrainer.core.evidence import ColumnDrift, Evidence, Performance
from retrainer.core.execution import Outcome, Status, Verdict
from retrainer.core.policy import Policy
from retrainer.core.state import ModelState
from retrainer.core.window import Batch, Refusal

POLICY: dict[str, Any] = {
    "model": "m",
    "data": {
        "bucket": "b",
        "prefix": "data/m/",
        "timestamp": "at",
        "columns": {
            "x": {"kind": "numerical", "test": "wasserstein", "threshold": 0.1},
            "y": {"kind": "categorical", "test": "psi", "threshold": 0.1},
        },
        "predictions": {
            "prefix": "predictions/m/",
            "key": "id",
            "prediction": "p",
            "label": "y",
            "metric": "accuracy",
        },
    },
    "triggers": {"drift": {"share": 0.5, "rows_min": 100}, "performance": {"drop": 0.1, "labels_min": 50}},
    "guards": {"cooldown": "6h", "rows_min": 100},
    "action": {
        "state_machine": "arn:aws:states:us-east-1:123456789012:stateMachine:retraining",
        "candidates": [{"name": "a", "hyperparameters": {"epochs": 3}}],
    },
    "gate": {"metric": "accuracy"},
}


def policy_with(*settings: str) -> Policy:
    """The policy above with lines like `guards.cooldown = 1h` applied; the value is JSON where it can be."""
    raw = json.loads(json.dumps(POLICY))
    for line in settings:
        path, _, text = (part.strip() for part in line.partition("="))
        *parents, last = path.split(".")
        place = raw
        for name in parents:
            place = place.setdefault(name, {})
        try:
            place[last] = json.loads(text)
        except json.JSONDecodeError:
            place[last] = text
    return Policy.model_validate(raw)


def run(text: str) -> str:
    """The transcript with its answers recomputed; comments, settings and blank lines stay as they are."""
    lines = [line for line in text.splitlines() if not line.startswith(("->", "   "))]
    policy = policy_with(*(line.removeprefix("policy ") for line in lines if line.startswith("policy ")))
    state = ModelState(model=policy.model)
    asked: dict[str, tuple[Batch, ...]] = {}
    told: list[str] = []
    for line in lines:
        told.append(line)
        if not line or line.startswith(("#", "policy ")):
            continue
        now = datetime.strptime(line[:16], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        if line[17:].startswith("repolicy "):
            policy = policy_with(line[17:].removeprefix("repolicy "))
            continue
        event = read_event(line[17:], state, now, asked)
        decision = decide(policy, state, event, now)
        check(policy, state, event, now, decision)
        state = decision.state
        asked |= {e.key: e.current for e in decision.effects if isinstance(e, MeasureEvidence)}
        told.extend(tell(decision))
    return "\n".join(told) + "\n"


def check(policy: Policy, state: ModelState, event: Event, now: datetime, decision: Decision) -> None:
    """What holds for every decision: it is repeatable, recordable, and its version and wake-up move forward."""
    assert decide(policy, state, event, now) == decision
    assert record.load_state(record.dump(decision.state)) == decision.state
    assert record.load_event(type(event).__name__, record.dump(event)) == event
    for effect in decision.effects:
        assert record.load_effect(type(effect).__name__, record.dump(effect)) == effect
    assert decision.state.version == state.version + 1
    assert decision.id == f"{state.model}-{decision.state.version}"
    assert decision.state.generation >= state.generation
    assert decision.state.wake_at is None or decision.state.wake_at > now
    assert len({e.key for e in decision.effects}) == len(decision.effects)


def tell(decision: Decision) -> Iterator[str]:
    yield f"-> {decision.reason}: {decision.detail}".rstrip()
    for effect in decision.effects:
        yield f"   {tell_effect(effect)}"
    if decision.state.wake_at:
        yield f"   wake at {decision.state.wake_at:%Y-%m-%d %H:%M}"


def tell_effect(effect: Effect) -> str:
    match effect:
        case MeasureEvidence():
            sizes = f"reference={len(effect.reference)} current={len(effect.current)}"
            return f"MeasureEvidence {effect.key} {sizes} predictions={len(effect.predictions)}"
        case StartExecution():
            objects = [
                o["uri"].rsplit("/", 1)[1].removesuffix(".parquet") for o in json.loads(effect.manifest)["objects"]
            ]
            return f"StartExecution {effect.key} on {','.join(objects)}"
        case PublishReport():
            return f"PublishReport {effect.report_key}"
        case AnswerApproval():
            return f"AnswerApproval {effect.execution} approved={effect.approved} token={effect.task_token}"


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
    """`rows=` is what each batch asked about holds; `drift=` the scores of x and y; `refused=` a batch's name."""
    rows = int(given.get("rows", "0"))
    bad = f"/{given.get('refused')}.parquet"
    good = tuple(replace(b, rows=rows) for b in current if not b.key.endswith(bad))
    refused = tuple(
        Refusal(bucket=b.bucket, key=b.key, version=b.version, why="it is truncated")
        for b in current
        if b.key.endswith(bad)
    )
    drift = tuple(
        ColumnDrift(column=name, test=test, score=float(score), threshold=0.1, drifted=float(score) >= 0.1)
        for name, test, score in zip("xy", ("wasserstein", "psi"), given.get("drift", "").split(","), strict=False)
        if score
    )
    labels = int(given.get("labels", "60"))
    seen = [Performance(metric=m, value=float(given[m]), labels=labels) for m in ("accuracy", "rmse") if m in given]
    return Evidence(
        rows=sum(b.rows or 0 for b in good),
        batches=good,
        refused=refused,
        drift=drift,
        performance=seen[0] if seen else None,
    )


def _name(given: dict[str, str], state: ModelState) -> str:
    return given.get("execution", state.execution.name if state.execution else "none")


def _ended(plain: list[str], given: dict[str, str], state: ModelState, now: datetime) -> Event:
    status = Status(plain[0])
    outcome = None
    if len(plain) > 1:
        metrics = {"accuracy": float(given["accuracy"])} if "accuracy" in given else {}
        outcome = Outcome(verdict=Verdict(plain[1]), why=given.get("why", "the gate's word"), metrics=metrics)
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
