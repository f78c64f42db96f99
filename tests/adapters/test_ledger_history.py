"""What every ledger promises of what it keeps: that each decision can be made again, and how far back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from retrainer.core.events import ApprovalAnswered
from retrainer.core.record import digest, dump
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Ledger, PermanentError
from retrainer.replay import COMPACTED, again, walk
from tests.fakes.story import (
    START,
    Story,
    approval_requested,
    arrived,
    decided,
    failed,
    policy_of,
    promoted,
    requested,
    started,
)

HOUR = timedelta(hours=1)


async def _long(ledger: Ledger, model: str, upto: int) -> None:
    """Arrivals until the model has that many decisions, in chains."""
    while (state := await ledger.state(model)).version < upto:
        chain = list[Entry]()
        for number in range(state.version, min(upto, state.version + 100)):
            chain.append(decided(state, arrived(model, number), START + number * timedelta(minutes=1)))
            state = chain[-1].decision.state
        assert set(await ledger.commit(chain)) == {Committed.NEW}


async def _replayed(ledger: Ledger, model: str) -> tuple[int, list[str], int]:
    """How many are identical, why others cannot be made again, and how many differ."""
    found = [replayed async for replayed in walk(ledger, model)]
    cannot = [replayed.cannot for replayed in found if replayed.cannot]
    return len(found) - len(cannot), cannot, sum(bool(replayed.differences) for replayed in found)


async def test_every_decision_of_an_execution_is_made_again_byte_by_byte(story: Story) -> None:
    name = await story.running()
    await story.tell(approval_requested(name, "a secret"))
    await story.tell(ApprovalAnswered(request="a1", execution=name, approved=True, by="ana\0"))
    await story.tell(promoted(name))
    await Story(story.ledger, "other").stocked()
    assert await story.ledger.models() == ["other", "recommender"]
    assert await _replayed(story.ledger, "recommender") == (7, [], 0)
    assert await _replayed(story.ledger, "nobody") == (0, [], 0)


async def test_a_decision_comes_with_all_that_it_was_made_of(story: Story) -> None:
    name = await story.running()
    entry = await story.tell(approval_requested(name, "a secret"))
    originals = [original async for original in story.ledger.history("recommender", 2)]
    assert [original.version for original in originals] == [2, 3, 4, 5]
    planned, last = originals[1], originals[-1]
    assert (last.event, last.at) == (dump(entry.event), entry.now)
    assert last.policy == dump(policy_of("recommender"))
    assert digest(last.policy) == last.policy_hash
    # Beside the newest there is always a state.
    assert [original.state_after for original in originals] == [None] * 3 + [dump(entry.decision.state)]
    (effect,) = planned.effects
    assert (effect[0], effect[1]) == (name, "StartExecution")


async def test_a_state_is_kept_so_often_that_any_other_is_not_far_from_one(ledger: Ledger) -> None:
    await _long(ledger, "recommender", 600)
    assert [await ledger.kept_state("recommender", version) for version in (255, 256, 511, 512, 600)] == [
        0,
        256,
        256,
        512,
        512,
    ]
    assert await ledger.kept_state("other", 9) == 0
    originals = [original async for original in ledger.history("recommender", 512)]
    assert (originals[0].version, len(originals)) == (512, 89)
    assert originals[0].state_after
    assert digest(originals[0].state_after) == originals[0].state_hash_after
    assert await _replayed(ledger, "recommender") == (600, [], 0)
    recorded = await ledger.decision("recommender-600")
    assert recorded
    replayed = await again(ledger, recorded)
    assert (replayed.original.id, replayed.differences, replayed.cannot) == ("recommender-600", (), "")


async def test_what_compacting_leaves_is_made_again_and_what_it_took_is_told(ledger: Ledger) -> None:
    await _long(ledger, "recommender", 300)
    # Between the state kept at 256 and the newest.
    assert await ledger.compact(START + 280 * timedelta(minutes=1)) > 0
    assert await _replayed(ledger, "recommender") == (44, [COMPACTED] * 256, 0)
    await _long(ledger, "recommender", 400)
    assert await ledger.compact(START + 390 * timedelta(minutes=1)) > 0
    assert await _replayed(ledger, "recommender") == (100, [COMPACTED] * 300, 0)
    assert await ledger.kept_state("recommender", 299) == 0
    assert [await ledger.kept_state("recommender", version) for version in (300, 400)] == [300, 400]


async def test_the_policies_that_decisions_were_made_under_are_kept_once(ledger: Ledger) -> None:
    await _long(ledger, "recommender", 150)
    state = await ledger.state("recommender")
    entry = decided(state, requested("r1"), START + 9 * HOUR)
    changed = entry.policy.model_copy(update={"approval": "manual"})
    await ledger.commit([replace(entry, policy=changed, policy_hash=digest(dump(changed)))])
    assert (await ledger.counts())["policies"] == 2
    # After a transaction that failed it is written with the next one.
    bad = decided(ModelState(model="other"), arrived("other", 1), START)
    bad = replace(bad, decision=replace(bad.decision, effects=bad.decision.effects * 2))
    with pytest.raises(PermanentError):
        await ledger.commit([bad])
    assert (await ledger.counts())["policies"] == 2
    await Story(ledger, "other").effect()
    assert (await ledger.counts())["policies"] == 3
    assert await _replayed(ledger, "other") == (1, [], 0)


async def test_what_became_of_an_execution_is_told_in_order(story: Story) -> None:
    first = await story.running()
    await story.tell(failed(first))
    second = (await story.ledger.state("recommender")).execution
    assert second
    await story.tell(started(second.name))
    await story.tell(approval_requested(second.name, "a secret"))
    await story.tell(arrived("recommender", 7))
    await story.tell(ApprovalAnswered(request="a1", execution=second.name, approved=True, by="ana"))
    await story.tell(promoted(second.name))
    ledger = story.ledger
    kinds = [told.event_kind for told in await ledger.about(second.name)]
    assert kinds == ["ExecutionStarted", "ApprovalRequested", "ApprovalAnswered", "ExecutionEnded"]
    assert [told.event_kind for told in await ledger.about(first)] == ["ExecutionStarted", "ExecutionEnded"]
    assert await ledger.about("nothing") == []
    await ledger.compact(story.now + HOUR)
    await story.tell(arrived("recommender", 8))
    await ledger.compact(story.now + HOUR)
    assert [told.event_kind for told in await ledger.about(first)] == ["ExecutionStarted", "ExecutionEnded"]
    assert [told.event for told in await ledger.about(first)] == ["", ""]
    assert "a secret" not in str(await ledger.about(second.name))
    planned = await ledger.decision(second.name)
    assert planned
    assert planned.event_identity == f"execution:{first}:FAILED"
    asked = await ledger.decision("recommender-1.measure")
    assert asked
    assert asked.id == "recommender-1"
