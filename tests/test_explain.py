"""A decision is told so that a person understands it, and so that it cannot harm their terminal."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from retrainer import explain
from retrainer.core.events import EvidenceMeasured
from retrainer.core.evidence import ColumnDrift, Evidence, Performance, Unusable
from retrainer.core.reason import Reason
from retrainer.core.record import dump
from retrainer.ports import Recorded
from retrainer.telemetry import EVENTS

EVENT = EvidenceMeasured(
    effect="recommender-1.measure",
    evidence=Evidence(
        rows=5210,
        reference_rows=48000,
        drift=(ColumnDrift(column="genre", test="psi", score=0.312, threshold=0.2, drifted=True),),
        performance=Performance(metric="accuracy", value=0.7, labels=50),
    ),
)
RECORDED = Recorded(
    id="recommender-2",
    model="recommender",
    at=datetime(2026, 1, 2, tzinfo=UTC),
    event_kind="EvidenceMeasured",
    event_identity=EVENT.identity,
    event=dump(EVENT),
    reason="retraining",
    detail="recommender-g1-00000000; drift: drift share 1.00 >= 0.5",
    policy_hash="a" * 64,
    state_hash_before="b" * 64,
    state_hash_after="c" * 64,
    effects=(
        ("recommender-g1-00000000", "StartExecution", "done"),
        ("recommender-2.report", "PublishReport", "owed"),
    ),
)


def test_evidence_is_told_with_its_certainty_its_nulls_and_what_cannot_be_used() -> None:
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    columns = (
        ColumnDrift(
            column="genre",
            test="psi",
            score=0.312,
            threshold=0.2,
            drifted=True,
            p_value=0.00012,
            low=0.311,
            high=0.313,
            nulls=0.4,
            unseen=0.02,
        ),
        ColumnDrift(column="year", test="ks", score=0.9, threshold=0.05, drifted=False, p_value=0.9, low=0.9, high=0.9),
    )
    seen = replace(
        EVENT.evidence,
        drift=columns,
        unusable=(Unusable(column="price", why="7 infinite values"),),
        began=begins,
        ended=begins.replace(hour=6),
    )
    told = explain.text(explain.facts(replace(RECORDED, event=dump(replace(EVENT, evidence=seen)))))
    assert (
        "genre: psi 0.312, threshold 0.2, from 0.311 to 0.313, p 0.00012: drifted (40.0% nulls after 0.0%, 2.0%" in told
    )
    assert "year: ks 0.9, threshold 0.05, p 0.9: no drift\n" in told
    assert "rows of 2026-01-01T00:00:00Z to 2026-01-01T06:00:00Z\n" in told
    assert "unusable column price: 7 infinite values\n" in told


def test_a_decision_of_before_evidence_had_all_that_is_told_as_it_was() -> None:
    event = json.loads(dump(EVENT))
    for name in ("unusable", "began", "ended"):
        del event["evidence"][name]
    for name in ("low", "high", "nulls", "reference_nulls", "unseen", "p_value"):
        del event["evidence"]["drift"][0][name]
    old = explain.text(explain.facts(replace(RECORDED, event=json.dumps(event))))
    assert old == explain.text(explain.facts(RECORDED))


def test_a_decision_is_told_whole() -> None:
    assert explain.text(explain.facts(RECORDED, "my-data")).splitlines() == [
        "recommender-2: retraining - a retraining starts",
        "  at        2026-01-02T00:00:00+00:00",
        "  came      evidence_measured: the answer to recommender-1.measure",
        "            5210 rows against 48000 of the reference window",
        "            genre: psi 0.312, threshold 0.2: drifted",
        "            accuracy 0.7000 on 50 labels",
        "  identity  effect:recommender-1.measure",
        "  why       recommender-g1-00000000; drift: drift share 1.00 >= 0.5",
        "  execution recommender-g1-00000000",
        "  effects   start_execution recommender-g1-00000000: done",
        "            publish_report recommender-2.report: owed",
        "  report    s3://my-data/reports/recommender/recommender-2.html",
        "  page      s3://my-data/reports/recommender/recommender-2.page.html",
        "  hashes    policy aaaaaaaaaaaa, state bbbbbbbbbbbb -> cccccccccccc",
    ]


def test_every_reason_and_every_event_has_its_words() -> None:
    assert set(explain.MEANING) == set(Reason)
    assert set(explain._CAME) == set(EVENTS)


def test_what_a_stranger_wrote_cannot_move_the_cursor() -> None:
    event = json.dumps({"by": "kim", "why": "\x1b[2J\u202ehidden", "request": "r"})
    recorded = replace(RECORDED, event_kind="RetrainingRequested", event=event)
    told = explain.text(explain.facts(recorded))
    assert "kim: \\u001b[2J\\u202ehidden" in told
    assert "\x1b" not in told


def test_an_event_of_another_version_is_told_as_it_is_stored() -> None:
    recorded = replace(RECORDED, event_kind="MoonRisen", event='{"task_token":"x","phase":"full"}')
    told = explain.text(explain.facts(recorded))
    assert 'moon_risen: {"phase": "full"}' in told


def test_status_says_whose_policy_is_gone_and_which_file_is_broken() -> None:
    known = {"policy_hash": None, "execution": None}
    told = {
        "live": True,
        "ready": True,
        "why": "",
        "models": {"gone": known, "here": {**known, "policy_hash": "h"}},
        "policy_errors": ["policies/x.yaml:1:1: modle: there is no such field; write model"],
        "ledger": {"decisions": 3, "effects_owed": 1},
    }
    assert explain.notes(told) == [
        "policy: policies/x.yaml:1:1: modle: there is no such field; write model",
        "gone has no policy any more: nothing is decided on it until it has one again",
        "3 decisions, 1 effects owed",
    ]
