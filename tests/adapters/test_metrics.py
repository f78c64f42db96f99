"""What Prometheus is told: bounded labels that start at 0, and figures that follow the decisions."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retrainer.adapters.metrics import CONTENT_TYPE, Metrics
from retrainer.core.decide import Decision
from retrainer.core.effects import StartExecution
from retrainer.core.events import EvidenceMeasured, ExecutionEnded, ObjectCreated
from retrainer.core.evidence import ColumnDrift, Evidence, Performance
from retrainer.core.execution import Billing, Outcome, Status
from retrainer.core.execution import Verdict as Promotion
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState
from retrainer.core.window import Batch
from retrainer.ports import Committed, Entry, Owed, Verdict
from retrainer.telemetry import EVENTS, Health, Telemetries, word
from tests.fakes.story import policy_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/retrainer-events"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def metrics() -> Metrics:
    made = Metrics(
        queues=[QUEUE], kinds=["ObjectCreated", "ApprovalRequested"], tasks=["http"], pollers=["poller-0", "poller-1"]
    )
    made.watch(["recommender"])
    return made


async def samples(of: Metrics) -> Samples:
    families = text_string_to_metric_families((await of.render()).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


async def value(of: Metrics, name: str, **labels: str) -> float:
    return (await samples(of))[name, tuple(sorted(labels.items()))]


def entry(
    state: ModelState, event: ObjectCreated | EvidenceMeasured | ExecutionEnded, reason: Reason = Reason.MEASURING
) -> Entry:
    return Entry(
        model=state.model,
        event=event,
        now=NOW,
        decision=Decision(state=state, reason=reason, detail="", effects=()),
        policy=policy_of("recommender"),
        policy_hash="h",
        state_before=replace(state, version=state.version - 1),
    )


def created(key: str = "data/recommender/1.parquet") -> ObjectCreated:
    return ObjectCreated(bucket="b", key=key, version="1", size_bytes=1)


async def test_every_reason_and_event_of_every_model_starts_at_zero() -> None:
    found = await samples(metrics())
    for reason in Reason:
        assert found["retrainer_decisions_total", (("model", "recommender"), ("reason", reason.value))] == 0
    for kind in EVENTS:
        assert found["retrainer_events_total", (("kind", kind), ("model", "recommender"))] == 0
    for verdict in Verdict:
        labels = (("kind", "object_created"), ("queue", "retrainer-events"), ("verdict", verdict.value))
        assert found["retrainer_messages_total", labels] == 0


async def test_a_performance_not_measured_yet_is_not_a_zero_that_rings() -> None:
    assert math.isnan(await value(metrics(), "retrainer_performance", model="recommender", metric="accuracy"))


async def test_a_decision_counts_and_shows_the_state_it_led_to() -> None:
    drift = tuple(ColumnDrift(column=c, test="psi", score=0.3, threshold=0.2, drifted=c == "a") for c in "ab")
    seen = Evidence(rows=10, drift=drift, performance=Performance(metric="accuracy", value=0.7, labels=5))
    batch = Batch(bucket="b", key="k", version="1", size_bytes=1, rows=7)
    state = ModelState(model="recommender", version=4, generation=2, evidence=seen, window=(batch,))
    made = metrics()
    made.decided(entry(state, EvidenceMeasured(effect="e", evidence=seen)), Committed.NEW, 0.01)
    assert await value(made, "retrainer_decisions_total", model="recommender", reason="measuring") == 1
    assert await value(made, "retrainer_events_total", model="recommender", kind="evidence_measured") == 1
    assert await value(made, "retrainer_drift_share", model="recommender") == 0.5
    assert await value(made, "retrainer_performance", model="recommender", metric="accuracy") == 0.7
    assert await value(made, "retrainer_generation", model="recommender") == 2
    assert await value(made, "retrainer_rows_untried", model="recommender") == 7
    assert await value(made, "retrainer_decision_seconds_count") == 1


async def test_a_duplicate_is_a_commit_but_no_decision() -> None:
    made = metrics()
    made.decided(entry(ModelState(model="recommender", version=1), created()), Committed.DUPLICATE, 0.01)
    assert await value(made, "retrainer_commits_total", result="duplicate") == 1
    assert await value(made, "retrainer_decisions_total", model="recommender", reason="measuring") == 0


async def test_a_conflict_and_an_event_known_before_are_commits_of_their_own_kind() -> None:
    made = metrics()
    made.decided(entry(ModelState(model="recommender", version=1), created()), Committed.CONFLICT, 0.01)
    made.duplicate("recommender", created())
    results = [await value(made, "retrainer_commits_total", result=c.value) for c in Committed]
    assert dict(zip(Committed, results, strict=True)) == {"new": 0, "duplicate": 1, "conflict": 1}


async def test_a_poller_that_rests_is_not_shown_as_one_that_hangs() -> None:
    made = metrics()
    made.poller_ages({"poller-0": 4.0, "poller-1": 300.0})
    made.poller_ages({"poller-0": 5.0, "poller-99": 1.0})
    found = await samples(made)
    ages = {dict(labels)["poller"]: v for (name, labels), v in found.items() if name == "retrainer_poller_age_seconds"}
    assert ages == {"poller-0": 5.0, "poller-1": 0.0}


async def test_no_stranger_can_add_a_series() -> None:
    made = metrics()
    before = set(await samples(made))
    made.received("https://elsewhere/9/other", "Anything At All", Verdict.IGNORED, "")
    made.received(QUEUE, "ObjectCreated", Verdict.EVENT, "")
    made.decided(entry(ModelState(model="stranger", version=1), created("x" * 900)), Committed.NEW, 0.01)
    made.failed("something new", ValueError("x"))
    made.health(Health(live=True, ready=True, poll_age_seconds={QUEUE: 3.0}))
    assert set(await samples(made)) == before
    labels = {"queue": "unknown", "kind": "unknown", "verdict": "ignored"}
    assert await value(made, "retrainer_messages_total", **labels) == 1
    assert await value(made, "retrainer_last_poll_age_seconds", queue="retrainer-events") == 3


async def test_an_effect_is_counted_by_kind_and_result() -> None:
    made = metrics()
    effect = StartExecution(
        key="recommender-g1-00000000",
        state_machine_arn="arn",
        manifest_bucket="b",
        manifest_key="k",
        manifest="{}",
        input="{}",
    )
    owed = Owed(model="recommender", effect=effect, decision="recommender-1", tries=1, created_at=NOW)
    made.carried_out(owed, "throttled", 0.2)
    made.carried_out(replace(owed, tries=2), None, 0.3)
    assert await value(made, "retrainer_effects_total", kind="start_execution", result="error") == 1
    assert await value(made, "retrainer_effects_total", kind="start_execution", result="done") == 1
    assert await value(made, "retrainer_effect_seconds_count", kind="start_execution") == 2
    assert await value(made, "retrainer_effect_retries_total", kind="start_execution") == 1
    assert await value(made, "retrainer_effect_retries_total", kind="measure_evidence") == 0


async def test_a_model_without_a_policy_keeps_its_counters_and_loses_its_gauges() -> None:
    made = metrics()
    made.watch([])
    found = await samples(made)
    assert not [key for key in found if key[0] == "retrainer_drift_share"]
    assert ("retrainer_decisions_total", (("model", "recommender"), ("reason", "promoted"))) in found


async def test_what_training_ran_and_what_of_it_is_billed_are_counted_by_model() -> None:
    made = metrics()
    for seconds, billable in ((90.0, 30.0), (110.0, 88.0)):
        billing = Billing(seconds=seconds, billable_seconds=billable, interruptions=1)
        outcome = Outcome(verdict=Promotion.REFUSED, why="", billing=billing)
        ended = ExecutionEnded(execution="recommender-g1-00000000", status=Status.SUCCEEDED, outcome=outcome)
        made.decided(entry(ModelState(model="recommender", version=1), ended), Committed.NEW, 0.01)
    assert await value(made, "retrainer_training_seconds_total", model="recommender") == 200
    assert await value(made, "retrainer_training_billable_seconds_total", model="recommender") == 118
    assert await value(made, "retrainer_training_interruptions_total", model="recommender") == 2
    assert await value(made, "retrainer_spot_saving", model="recommender") == pytest.approx(0.2)
    assert await value(made, "retrainer_training_seconds_total", model="unknown") == 0


async def test_the_training_of_a_failed_execution_is_counted_as_well() -> None:
    made = metrics()
    billing = Billing(seconds=90.0, billable_seconds=30.0, interruptions=1)
    ended = ExecutionEnded(execution="recommender-g1-00000000", status=Status.FAILED, billing=billing)
    made.decided(entry(ModelState(model="recommender", version=1), ended), Committed.NEW, 0.01)
    assert await value(made, "retrainer_training_seconds_total", model="recommender") == 90
    assert await value(made, "retrainer_training_billable_seconds_total", model="recommender") == 30
    assert await value(made, "retrainer_training_interruptions_total", model="recommender") == 1


async def test_the_ledger_and_the_policy_files_are_shown() -> None:
    made = metrics()
    made.ledger({"decisions": 12, "effects_owed": 3}, size_bytes=4096)
    made.policy_files({"a.yaml": True, "b.yaml": False})
    assert await value(made, "retrainer_ledger_rows", table="decisions") == 12
    assert await value(made, "retrainer_effects_owed") == 3
    assert await value(made, "retrainer_ledger_bytes") == 4096
    assert await value(made, "retrainer_policy_valid", file="b.yaml") == 0
    assert await value(made, "retrainer_policy_errors") == 1
    made.policy_files({"a.yaml": True})
    assert "b.yaml" not in (await made.render()).decode()
    assert CONTENT_TYPE.startswith("text/plain; version=")


async def test_several_listeners_are_told_the_same() -> None:
    one, other = metrics(), metrics()
    both = Telemetries([one, other])
    both.received(QUEUE, "ObjectCreated", Verdict.EVENT, "")
    both.decided(entry(ModelState(model="recommender", version=1), created()), Committed.NEW, 0.01)
    both.failed("http", OSError("x"))
    for made in (one, other):
        assert await value(made, "retrainer_task_failures_total", task="http") == 1
        assert await value(made, "retrainer_decisions_total", model="recommender", reason="measuring") == 1


def test_a_kind_has_one_word_however_it_is_written() -> None:
    assert {word(k) for k in ("ExecutionEnded", "Execution Ended", "execution_ended")} == {"execution_ended"}
