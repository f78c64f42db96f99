"""Whatever happens to a model, in whatever order, under whatever policy: a decision, a reason, and a record of both."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrainer.core.decide import decide, decision_id
from retrainer.core.effects import MeasureEvidence, StartExecution
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
from retrainer.core.evidence import ALL_COLUMNS, PREDICTIONS, BatchLoss, ColumnDrift, Evidence, Performance, Unusable
from retrainer.core.execution import Outcome, Status, Verdict
from retrainer.core.fleet import Fleet, Running, Start
from retrainer.core.policy import Policy
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState
from retrainer.core.window import Batch, Refusal
from tests.core.transcript import check, policy_with
from tests.hostile.budget import examples, seeds

START = datetime(2026, 1, 1, tzinfo=UTC)
_NUMBERS = (0.0, -0.0, 0.05, 0.2, 0.5, 1.0, 1e300, -1e300, 1.7976931348623157e308, 5e-324, -5e-324)
_ROWS = (0, 1, 50, 99, 100, 1000, 10**6, 2**63 - 1)
_TEXTS = ("", "x", "ü" * 500, "{0}", "%s", "a;b: c", "null")
_DURATIONS = ("0s", "1s", "1s", "6h", "3650d")


_OFTEN = (
    ('guards.quiet_hours = [{"from": "22:00", "to": "18:00", "time_zone": "Pacific/Apia"}]', 0.5),
    ('guards.backoff = {"after": 1, "first": "3650d", "most": "3650d"}', 0.9),
)
_RARER = (
    'windows.current = {"rows": 100}',
    'windows.current = {"time": "3650d"}',
    'windows.reference = {"of": "trailing"}',
    'windows.reference = {"of": "fixed", "keys": ["data/m/0.parquet"]}',
    'windows.reference = {"of": "trailing", "season": "hour", "time_zone": "Pacific/Apia"}',
    'windows.reference = {"of": "training", "season": "weekday"}',
    'windows.reference = {"of": "monitor", "keys": ["data/m/statistics.json"]}',
    'data.unusable = "hold"',
    'data.predictions.test = "psi"',
    "triggers.drift.correction = bh",
    "triggers.drift.correction = by",
    'triggers.concept = {"labels_min": 2, "margin": 0.01}',
    "triggers.drift.false_alarms_per_year = 365",
    "triggers.drift.clear = 5e-324",
    'triggers.regret = {"price": 1e-300}',
    'triggers.schedules = [{"name": "nightly", "cron": "0 2 * * *", "unless_fresh": "3650d"}]',
    'triggers.alarms = ["x"]',
    'guards.freezes = [{"from": "1970-01-01", "to": "9000-12-31", "why": "for ever"}]',
    'guards.budget = {"money": 1e-300, "executions": 1, "period": "3650d"}',
    'guards.fleet = {"concurrency": 1, "budget": {"money": 1e308, "period": "1s"}}',
    'guards.after = ["other"]',
)
"""Each in every eighth policy."""


def rules(rng: Random, names: tuple[str, ...]) -> str:
    """A rule over all the triggers that a policy declares."""
    levels, edges = [n for n in names if ":" not in n], [n for n in names if ":" in n]
    counted = {"of": {"any": levels}, "at_least": 1, "windows": rng.choice([1, 100])}
    within = rng.choice(["1s", "3650d"])
    return json.dumps(
        rng.choice([{"any": names}, {"all": names, "within": within}, {"all": [counted, *edges], "within": within}])
    )


def policies(rng: Random) -> Policy:
    """Any triggers, guards and windows that a policy file may declare."""
    lines = [
        f"guards.cooldown = {rng.choice(_DURATIONS)}",
        f"guards.rows_min = {rng.choice([1, 1, 1, 100, 2**63 - 1])}",
        f"windows.current.batches = {rng.choice([1, 2, 8, 2**63 - 1])}",
        f"windows.reference.batches = {rng.choice([1, 50, 2**63 - 1])}",
        f"windows.training_batches = {rng.choice([1, 3, 1000])}",
        f"action.attempts = {rng.randint(1, 5)}",
        f"triggers.drift.share = {rng.choice([5e-324, 0.5, 1.0])}",
        f"triggers.performance.limit = {rng.choice(['null', '0.5', '1e308', '-1e308'])}",
        f"approval = {rng.choice(['auto', 'manual'])}",
    ]
    if rng.random() < 0.5:
        lines.append(f'guards.budget = {{"executions": {rng.choice([1, 2, 10**9])}, "period": "30d"}}')
    if rng.random() < 0.5:
        lines.append(f'triggers.volume = {{"rows": {rng.choice([1, 10**6])}}}')
    if rng.random() < 0.5:
        lines.append('data.predictions.metric = "rmse"')
    lines += [line for line, often in _OFTEN if rng.random() < often]
    lines += [line for line in _RARER if rng.random() < 0.12]
    lines.append("costs.error = 1e-300")
    policy = policy_with(*lines)
    if rng.random() < 0.25:
        return policy_with(*lines, f"triggers.when = {rules(rng, policy.triggers.names)}")
    return policy


def answers(rng: Random, asked: MeasureEvidence) -> Event:
    """What an evidence worker may say: of batches it was asked about, or of others."""
    batches = tuple(replace(b, rows=rng.choice(_ROWS)) for b in asked.current if rng.random() < 0.9)
    refused = tuple(
        Refusal(bucket=b.bucket, key=b.key, version=b.version, why=rng.choice(_TEXTS))
        for b in asked.current
        if rng.random() < 0.05
    )
    drift = tuple(
        ColumnDrift(
            column=c,
            test="psi",
            score=rng.choice(_NUMBERS),
            threshold=0.1,
            drifted=rng.random() < 0.5,
            p_value=rng.choice([None, 0.0, 5e-324, 1e-5, 1.0]),
        )
        for c in rng.choice([(), ("x",), ("x", "y"), ("x", ALL_COLUMNS), (ALL_COLUMNS,), ("y", PREDICTIONS)])
    )
    seen = Performance(metric=rng.choice(["accuracy", "rmse"]), value=rng.choice(_NUMBERS), labels=rng.choice(_ROWS))
    evidence = Evidence(
        rows=sum(b.rows or 0 for b in batches),
        batches=batches,
        refused=refused,
        drift=drift,
        performance=seen if rng.random() < 0.5 else None,
        losses=tuple(
            BatchLoss(
                key=b.key,
                version=b.version,
                labels=rng.choice(_ROWS),
                mean=rng.choice([0.0, 0.1, 1.0, 1e300]),
                variance=rng.choice([0.0, 0.25, 1e300]),
            )
            for b in batches
            if rng.random() < 0.5
        ),
        estimated=seen if rng.random() < 0.5 else None,
        unusable=(Unusable(column="x", why=rng.choice(_TEXTS)),) if rng.random() < 0.1 else (),
    )
    return EvidenceMeasured(effect=asked.key, evidence=evidence)


def events(rng: Random, state: ModelState, now: datetime, asked: dict[str, MeasureEvidence], number: int) -> Event:
    """Any event: about what the state waits for, or about something long gone or never heard of."""
    execution = rng.choice([state.execution.name if state.execution else "m-g1-00000000", "m-g7-ffffffff"])
    at = now + timedelta(seconds=rng.choice([-(10**9), -1, 0, 1, 10**9]))
    request = f"r{number}"

    def arrived() -> Event:
        prefix = rng.choice(["data/m/", "data/m/", "data/m/", "predictions/m/", "elsewhere/"])
        key = f"{prefix}{number % 3}.parquet"
        return ObjectCreated(bucket="b", key=key, version=str(number), size_bytes=rng.choice(_ROWS))

    def ended() -> Event:
        metrics = {name: rng.choice(_NUMBERS) for name in ("accuracy", "") if rng.random() < 0.5}
        numbers = (rng.choice([None, *_NUMBERS]) for _ in range(2))
        outcome = Outcome(
            verdict=rng.choice([*Verdict, Verdict.REFUSED]),
            why=rng.choice(_TEXTS),
            metrics=metrics,
            challenger=next(numbers),
            champion=next(numbers),
            cost=rng.choice([None, 0.0, 1e-300, 1e300]),
            rows=rng.choice([None, *_ROWS]),
        )
        status = rng.choice([*[Status.SUCCEEDED] * 5, Status.FAILED, Status.TIMED_OUT, Status.ABORTED])
        return ExecutionEnded(execution=execution, status=status, outcome=rng.choice([outcome, outcome, outcome, None]))

    def answered() -> Event:
        return answers(rng, asked[rng.choice(sorted(asked))]) if asked else arrived()

    def gave_up() -> Event:
        effect = rng.choice([*asked, execution, "m-9.report"])
        return EffectFailed(effect=effect, kind="StartExecution", why=rng.choice(_TEXTS))

    kinds: tuple[Callable[[], Event], ...] = (
        *(arrived, arrived, ended, ended, answered, answered, answered, gave_up),
        lambda: ExecutionStarted(execution=execution, arn="arn:x", adopted=rng.random() < 0.5),
        lambda: ApprovalRequested(execution=execution, task_token=f"t{number}"),
        lambda: ApprovalAnswered(request=request, execution=execution, approved=rng.random() < 0.5, by="kim"),
        lambda: EffectDone(effect="m-9.report", kind="PublishReport"),
        lambda: RetrainingRequested(request=request, by=rng.choice(_TEXTS), why=rng.choice(_TEXTS)),
        lambda: ModelPaused(request=request, by="kim", why=rng.choice(_TEXTS)),
        lambda: ModelResumed(request=request, by="kim"),
        lambda: ScheduleFired(schedule="nightly", fire_at=at),
        lambda: AlarmChanged(alarm=rng.choice(_TEXTS), state=rng.choice(["OK", "ALARM"]), changed_at=at),
        lambda: TrainingJobChanged(job="m-g1-00000000-a-0", status="Completed", secondary_status="Completed"),
        lambda: PolicyChanged(policy_hash="0" * 64, changed_at=at),
    )
    if rng.random() < 0.5:  # what the world would do next, or else few histories would come far
        if state.measuring in asked:
            return answers(rng, asked[state.measuring])
        execution = state.execution.name if state.execution else execution
        return rng.choice([ended, *kinds[8:11]] if state.execution else [arrived, kinds[12], kinds[12]])()
    return rng.choice(kinds)()


def fleets(rng: Random, now: datetime) -> Fleet:
    """What the other models may be doing."""
    return Fleet(
        running=(Running(model="other", since=now),) if rng.random() < 0.2 else (),
        waiting=("other",) if rng.random() < 0.2 else (),
        starts=tuple(Start(model="o", at=now, cost=rng.choice([None, 0.0, 1e308])) for _ in range(rng.randint(0, 2))),
    )


@pytest.mark.parametrize("first", seeds(400)[::200])
def test_every_history_under_every_policy_is_decided_and_can_be_kept(first: int) -> None:
    reasons: set[Reason] = set()
    for seed in range(first, first + 200):
        reasons |= lived(Random(seed))  # noqa: S311 - the seed is the history
    assert not set(Reason) - reasons, "histories no longer come that far"


def lived(rng: Random) -> set[Reason]:
    """The reasons of a history, each decision of which was looked at."""
    policy = policies(rng)
    state, now = ModelState(model="m"), START
    asked: dict[str, MeasureEvidence] = {}
    reasons: set[Reason] = set()
    for number in range(60):
        if rng.random() < 0.05:
            policy = policies(rng)
        # Replicas' clocks differ, and a daemon may have slept for years.
        now += timedelta(seconds=rng.choice([-60, 0, 1, 600, 86_400, 10**8]))
        event = events(rng, state, now, asked, number)
        if state.wake_at and state.wake_at <= now:
            event = Woken(wake_at=state.wake_at, asked_by=decision_id(state.model, state.version))
        fleet = fleets(rng, now)
        decision = decide(policy, state, event, now, fleet)
        check(policy, state, event, now, decision, fleet)
        reasons.add(decision.reason)
        decision.detail.encode()
        assert len(decision.state.window) <= 1000
        starts = [e for e in decision.effects if isinstance(e, StartExecution)]
        assert len(starts) == decision.state.generation - state.generation
        assert not starts or decision.state.execution
        asked |= {e.key: e for e in decision.effects if isinstance(e, MeasureEvidence)}
        state = decision.state
    return reasons


@examples(40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_an_object_overwritten_again_and_again_is_one_batch(keys: list[int]) -> None:
    policy, state = policy_with(), ModelState(model="m")
    for version, key in enumerate(keys):
        event = ObjectCreated(bucket="b", key=f"data/m/{key}.parquet", version=str(version), size_bytes=1)
        state = decide(policy, state, event, START).state
    assert {b.key for b in state.window} == {f"data/m/{k}.parquet" for k in keys}
    assert len(state.window) == len(set(keys))
    assert all(isinstance(b, Batch) for b in state.window)
