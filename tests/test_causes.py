"""A decision is told with what led to it, the rules it was made by, and what became of it, through the whole chain."""

import json
from collections.abc import Mapping
from typing import Any

from retrainer import causes, explain
from retrainer.core.events import ApprovalAnswered, ExecutionEnded, ModelPaused, ModelResumed, RetrainingRequested
from retrainer.core.execution import Billing, Outcome, Status, Verdict
from tests.fakes.small_daemon import TASK_TOKEN, SmallDaemon

PROMOTED = Outcome(
    verdict=Verdict.PROMOTED,
    why="ndcg_at_10 is better",
    metric="ndcg_at_10",
    challenger=0.3,
    champion=0.2,
    cost=3.5,
    billing=Billing(seconds=90, billable_seconds=30, interruptions=2),
)


async def told(daemon: SmallDaemon, name: str) -> dict[str, Any]:
    found = await daemon.ledger.decision(name)
    assert found
    account = await causes.account(daemon.ledger, found)
    told_as_json: dict[str, Any] = json.loads(json.dumps(account))
    return told_as_json


def names(links: list[Mapping[str, Any]]) -> list[str]:
    return [link["decision"] for link in links]


async def a_whole_life() -> tuple[SmallDaemon, str]:
    """recommender-1: data, -2: measured, -3: asked for, -4: started, -5: a person asked, -6: approved, -7: promoted."""
    daemon = SmallDaemon()
    execution = await daemon.waits_for_approval()
    answer = ApprovalAnswered(request="a-1", execution=execution, approved=True, by="kim")
    await daemon.take("recommender", answer)
    ended = ExecutionEnded(execution=execution, status=Status.SUCCEEDED, outcome=PROMOTED)
    await daemon.take("recommender", ended)
    return daemon, execution


async def test_from_the_promotion_the_chain_leads_back_to_what_was_asked() -> None:
    daemon, execution = await a_whole_life()
    account = await told(daemon, "recommender-7")
    assert names(account["led_to_it"]) == ["recommender-3"]
    assert account["led_to_it"][0]["came"] == "kim: new catalogue"
    assert account["outcome"]["execution"] == execution
    assert account["outcome"]["status"] == "SUCCEEDED"
    assert account["outcome"]["outcome"]["cost"] == 3.5
    text = explain.text(account)
    assert "  led to it recommender-3 2026-01-02T03:04:07+00:00 retraining_requested: kim: new catalogue" in text
    assert f"  outcome   {execution} SUCCEEDED at 2026-01-02T03:04:11+00:00, promoted" in text
    assert "            ndcg_at_10: challenger 0.3000, champion 0.2000" in text
    assert "            cost 3.50" in text
    assert "            trained 90 s, billed 30 s, spot saved 67%, interrupted 2 times" in text


async def test_from_the_request_the_chain_leads_on_to_the_promotion() -> None:
    daemon, execution = await a_whole_life()
    account = await told(daemon, execution)
    assert account["decision"] == "recommender-3"
    assert account["led_to_it"] == []
    assert names(account["followed"]) == [f"recommender-{number}" for number in (4, 5, 6, 7)]
    assert [link["reason"] for link in account["followed"]] == [
        "execution_started",
        "approval_requested",
        "approved",
        "promoted",
    ]
    text = explain.text(account)
    assert "  then      recommender-4 " in text
    assert TASK_TOKEN not in text
    assert TASK_TOKEN not in json.dumps(account)


async def test_an_object_that_arrived_leads_to_its_evidence_and_back() -> None:
    daemon, _ = await a_whole_life()
    arrived = await told(daemon, "recommender-1")
    assert names(arrived["followed"]) == ["recommender-2"]
    assert arrived["followed"][0]["event"] == "evidence_measured"
    measured = await told(daemon, "recommender-2")
    assert names(measured["led_to_it"]) == ["recommender-1"]
    assert measured["led_to_it"][0]["came"] == "s3://my-data/data/recommender/1.parquet (9 bytes)"


async def test_the_rules_are_told_with_every_value_against_its_threshold() -> None:
    daemon, _ = await a_whole_life()
    account = await told(daemon, "recommender-3")
    rules = account["rules"]
    assert rules["triggers"]["met"] is True
    guards = {guard["name"]: guard for guard in rules["guards"]}
    assert guards["rows_min"]["met"] is True
    assert "500" in guards["rows_min"]["value"]
    lines = explain.text(account).splitlines()
    assert any(line.startswith("  rules     yes triggers: ") for line in lines)
    assert any("yes rows_min: " in line and ", against " in line for line in lines)


async def test_a_guard_that_objects_shows_in_the_rules() -> None:
    daemon = SmallDaemon()
    await daemon.has_data()
    await daemon.take("recommender", ModelPaused(request="p", by="kim", why="holidays"))
    await daemon.take("recommender", RetrainingRequested(request="r", by="kim", why="now"))
    account = await told(daemon, "recommender-4")
    assert account["reason"] == "paused"
    held = [guard["name"] for guard in account["rules"]["guards"] if not guard["met"]]
    assert held == ["paused"]
    await daemon.take("recommender", ModelResumed(request="q", by="kim"))
    assert (await told(daemon, "recommender-5"))["reason"] == "retraining"


async def test_where_the_rules_cannot_be_evaluated_again_it_is_said_and_the_rest_is_told() -> None:
    daemon, _ = await a_whole_life()
    await daemon.take("recommender", ModelPaused(request="p", by="kim", why="holidays"))
    daemon.ledger._policies.clear()
    account = await told(daemon, "recommender-7")
    assert account["rules"] is None
    assert names(account["led_to_it"]) == ["recommender-3"]
    assert "  rules     cannot be told: the ledger has no policy" in explain.text(account)


async def test_what_was_compacted_is_told_as_far_as_it_is_known() -> None:
    daemon, execution = await a_whole_life()
    await daemon.take("recommender", ModelPaused(request="p", by="kim", why="holidays"))
    daemon.time = daemon.time.replace(year=2027)
    assert await daemon.ledger.compact(daemon.time) > 0
    account = await told(daemon, "recommender-7")
    assert names(account["led_to_it"]) == ["recommender-3"]
    assert account["event"]["fields"] == {}
    assert f"{execution} SUCCEEDED at 2026-01-02T03:04:11+00:00, promoted" in explain.text(account)
    assert "its event was dropped when the ledger was compacted" in explain.text(account)


async def test_what_a_stranger_wrote_into_the_chain_cannot_move_the_cursor() -> None:
    daemon = SmallDaemon()
    await daemon.has_data()
    await daemon.take("recommender", RetrainingRequested(request="r", by="kim", why="\x1b[2J\u202ehidden"))
    account = await told(daemon, "recommender-3")
    assert "\x1b" not in explain.text(account)
    assert "kim: \\u001b[2J\\u202ehidden" in explain.text(account)
