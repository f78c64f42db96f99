"""The campaign's judge sees what it is there to see."""

from datetime import UTC, datetime, timedelta
from typing import Any

from retrainer.ports import Recorded
from tests.chaos import judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def recorded(model: str, number: int, identity: str, *starts: str, reason: str = "retraining") -> Recorded:
    """A model's n-th decision, which begins where the one before it ended."""
    return Recorded(
        id=f"{model}-{number}",
        model=model,
        at=NOW + timedelta(seconds=number),
        event_kind="RetrainingRequested",
        event_identity=identity,
        event="{}",
        reason=reason,
        detail="",
        policy_hash="",
        state_hash_before=f"state {number - 1}",
        state_hash_after=f"state {number}",
        effects=tuple((name, "StartExecution", "done") for name in starts),
    )


def execution(name: str, start: int, stop: int | None) -> dict[str, Any]:
    ended = {} if stop is None else {"stopDate": NOW + timedelta(seconds=stop)}
    return {"name": name, "startDate": NOW + timedelta(seconds=start), **ended}


def test_a_fact_without_a_decision_is_lost_and_one_with_two_is_doubled() -> None:
    found = judge.Findings()
    sent = {("m", "request:a"): NOW, ("m", "request:b"): NOW, ("m", "object:chaos/k"): NOW}
    rows = [recorded("m", 1, "request:a"), recorded("m", 2, "request:a"), recorded("m", 3, "object:chaos/k@7")]
    judge.decided(found, sent, rows)
    assert [line.split(",")[0:2] for line in found.lost] == [["('m'", " 'request:b')"]]
    assert len(found.doubled) == 1
    assert found.slowest == timedelta(seconds=3)


def test_what_was_decided_and_what_was_started_must_be_the_same() -> None:
    found = judge.Findings()
    rows = [recorded("m", 1, "request:a", "m-g1-aa"), recorded("m", 2, "request:b", "m-g2-bb")]
    judge.started(found, rows, [execution("m-g1-aa", 0, 1), execution("m-g1-cc", 2, 3)])
    assert found.lost == ["m-g2-bb was decided and never started"]
    assert sorted(found.doubled) == ["m-g1 exists 2 times", "m-g1-cc was started, and no decision says so"]


def test_two_executions_of_a_model_at_a_time_are_doubled_and_of_two_models_are_not() -> None:
    found = judge.Findings()
    judge.one_at_a_time(found, [execution("a-1-g1-x", 0, 5), execution("b-g1-x", 1, 2), execution("a-1-g2-y", 4, 6)])
    assert found.doubled == ["a-1-g2-y began while a-1-g1-x ran"]


def test_a_gap_in_the_decisions_of_a_model_is_wrong() -> None:
    found = judge.Findings()
    judge.chained(found, [recorded("m", 1, "request:a"), recorded("m", 3, "request:b")])
    assert found.wrong == ["m's decisions are not numbered 1 to 2", "m-3 does not begin where m-1 ended"]


def test_the_dead_letter_queue_holds_what_was_malformed_and_nothing_else() -> None:
    found = judge.Findings()
    judge.refused(found, {"bad", "worse"}, [{"Body": "bad"}, {"Body": "bad"}, {"Body": "good"}])
    assert found.lost == ["never refused: worse"]
    assert found.wrong == ["refused, though it is well formed: good"]
