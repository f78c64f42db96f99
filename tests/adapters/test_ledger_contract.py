"""What every ledger promises, in memory and in SQL alike."""

import asyncio
import math
from dataclasses import replace
from datetime import timedelta

import pytest

from retrainer.core.decide import decide
from retrainer.core.events import Event
from retrainer.core.record import digest, dump, load_event
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Ledger, PermanentError
from tests.fakes.story import (
    START,
    Story,
    arrived,
    decided,
    failed,
    measured,
    policy_of,
    promoted,
    requested,
    started,
)

HOUR = timedelta(hours=1)


async def only(ledger: Ledger, entry: Entry) -> Committed:
    """A chain of one."""
    (verdict,) = await ledger.commit([entry])
    return verdict


# --- commit ---


async def test_a_model_never_seen_has_version_0(ledger: Ledger) -> None:
    assert await ledger.state("recommender") == ModelState(model="recommender")
    assert await ledger.decision("recommender-1") is None


async def test_a_committed_decision_is_the_models_state_and_can_be_told_by_three_names(story: Story) -> None:
    await story.stocked()
    entry = await story.tell(requested("r1"))
    state = entry.decision.state
    assert await story.ledger.state("recommender") == state
    asked = ["request:r1", "request:r2"]
    assert set(await story.ledger.known("recommender", asked)) == {"request:r1"}
    assert state.execution
    told = await story.ledger.decision("recommender-3")
    assert told
    assert told == await story.ledger.decision("request:r1") == await story.ledger.decision(state.execution.name)
    assert (told.at, told.at.utcoffset()) == (entry.now, timedelta(0))
    assert (told.event_kind, load_event(told.event_kind, told.event)) == ("RetrainingRequested", entry.event)
    assert (told.reason, told.detail, told.policy_hash) == ("retraining", entry.decision.detail, entry.policy_hash)
    assert told.effects == ((state.execution.name, "StartExecution", "owed"),)


async def test_a_duplicate_event_is_decided_once(story: Story) -> None:
    await story.tell(requested("r1"))
    before = await story.ledger.counts()
    again = await story.entry(requested("r1"))
    assert await only(story.ledger, again) is Committed.DUPLICATE
    assert await story.ledger.counts() == before
    assert (await story.ledger.state("recommender")).version == 1


async def test_an_event_delivered_twice_at_once_is_decided_once(story: Story) -> None:
    entry = await story.entry(arrived("recommender", 1))
    committed = await asyncio.gather(*(only(story.ledger, entry) for _ in range(2)))
    assert committed == [Committed.NEW, Committed.DUPLICATE]
    assert (await story.ledger.counts())["decisions"] == 1


async def test_one_fact_may_concern_two_models(ledger: Ledger) -> None:
    await Story(ledger, "recommender").tell(requested("r1"))
    assert not await ledger.known("vision", ["request:r1"])
    await Story(ledger, "vision").tell(requested("r1"))
    assert [d.id for d in await ledger.decisions(None, limit=9)] == ["vision-1", "recommender-1"]


async def test_a_decision_on_an_old_state_conflicts_and_writes_nothing(story: Story) -> None:
    effect = await story.effect()
    late = await story.entry(measured(effect.key), completes=effect.key)
    await story.tell(arrived("recommender", 2))
    before, state = await story.ledger.counts(), await story.ledger.state("recommender")
    assert await only(story.ledger, late) is Committed.CONFLICT
    assert await story.ledger.counts() == before
    assert await story.ledger.state("recommender") == state
    assert not await story.ledger.known("recommender", [late.event.identity])


async def test_of_replicas_deciding_on_one_state_at_once_one_is_first(story: Story) -> None:
    await story.stocked()
    rivals = [await story.entry(requested(f"r{n}")) for n in range(5)]
    committed = await asyncio.gather(*(only(story.ledger, entry) for entry in rivals))
    assert committed.count(Committed.NEW) == 1
    assert committed.count(Committed.CONFLICT) == 4
    assert (await story.ledger.counts())["executions"] == 1


async def test_entries_of_one_model_committed_together_build_on_each_other(story: Story) -> None:
    entries: list[Entry] = []
    state = ModelState(model="recommender")
    for number in range(5):
        entries.append(decided(state, arrived("recommender", number), START))
        state = entries[-1].decision.state
    committed = await asyncio.gather(*(only(story.ledger, entry) for entry in entries))
    assert committed == [Committed.NEW] * 5
    assert await story.ledger.state("recommender") == state
    told = await story.ledger.decisions("recommender", limit=9)
    assert [d.id for d in told] == [f"recommender-{version}" for version in (5, 4, 3, 2, 1)]


async def test_a_whole_execution_committed_together_is_followed_to_its_end(story: Story) -> None:
    await story.stocked()
    first = await story.entry(requested("r1"))
    assert first.decision.state.execution
    name = first.decision.state.execution.name
    second = decided(first.decision.state, started(name), story.now, completes=name)
    third = decided(second.decision.state, failed(name), story.now)
    assert third.decision.state.execution
    again = third.decision.state.execution.name
    assert again != name
    committed = await asyncio.gather(*(only(story.ledger, entry) for entry in (first, second, third)))
    assert committed == [Committed.NEW] * 3
    assert [owed.effect.key for owed in await story.ledger.owed(story.now, limit=9, lease_seconds=1)] == [again]


async def _chain(ledger: Ledger, model: str, *events: Event) -> list[Entry]:
    """Decisions that each build on the one before, none committed."""
    entries: list[Entry] = []
    state = await ledger.state(model)
    for event in events:
        entries.append(decided(state, event, START))
        state = entries[-1].decision.state
    return entries


async def test_what_follows_a_decision_that_was_not_taken_conflicts_though_its_version_is_right(story: Story) -> None:
    await story.tell(arrived("recommender", 1))
    known, *_ = await _chain(story.ledger, "recommender", arrived("recommender", 1))
    theirs, rest = await _chain(story.ledger, "recommender", arrived("recommender", 2), arrived("recommender", 3))
    ours = decided(theirs.state_before, theirs.event, START + HOUR)
    built = decided(ours.decision.state, requested("r1"), START + HOUR)
    assert await story.ledger.commit([theirs]) == [Committed.NEW]
    assert built.state_before.version == (await story.ledger.state("recommender")).version
    verdicts = await story.ledger.commit([ours, built, known])
    assert verdicts == [Committed.DUPLICATE, Committed.CONFLICT, Committed.DUPLICATE]
    assert await story.ledger.commit([rest]) == [Committed.NEW]
    assert await story.ledger.state("recommender") == rest.decision.state
    assert await story.ledger.commit([]) == []


async def test_a_chain_on_an_old_state_conflicts_to_its_end(story: Story) -> None:
    late = await _chain(story.ledger, "recommender", *(arrived("recommender", n) for n in range(3)))
    await story.tell(requested("r1"))
    before = await story.ledger.counts()
    assert await story.ledger.commit(late) == [Committed.CONFLICT] * 3
    assert await story.ledger.counts() == before


async def test_what_a_chain_builds_on_its_own_decision_conflicts_if_another_replica_decided_on_that_event(
    story: Story,
) -> None:
    mine = await _chain(story.ledger, "recommender", *(arrived("recommender", n) for n in range(3)))
    theirs = await story.tell(arrived("recommender", 0))
    assert theirs.decision.state.version == mine[1].state_before.version
    assert theirs.now != mine[0].now
    assert await story.ledger.commit(mine) == [Committed.DUPLICATE, Committed.CONFLICT, Committed.CONFLICT]
    assert await story.ledger.state("recommender") == theirs.decision.state


async def test_a_chain_with_a_forbidden_entry_is_not_committed_at_all_and_spoils_no_other(story: Story) -> None:
    effect = await story.effect()
    good, bad = await _chain(story.ledger, "recommender", arrived("recommender", 2), arrived("recommender", 3))
    bad = replace(bad, decision=replace(bad.decision, effects=(effect,)))
    other = await _chain(story.ledger, "other", arrived("other", 1), requested("r1"))
    commits = [story.ledger.commit(chain) for chain in ([good, bad], other)]
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert isinstance(results[0], PermanentError)
    assert results[1] == [Committed.NEW] * 2
    assert (await story.ledger.state("recommender")).version == 1
    assert not await story.ledger.known("recommender", [good.event.identity, bad.event.identity])
    assert await story.ledger.commit([good]) == [Committed.NEW]


async def test_entries_of_many_models_committed_together_are_all_there(ledger: Ledger) -> None:
    stories = [Story(ledger, f"model-{number}") for number in range(300)]
    await asyncio.gather(*(story.tell(arrived(story.model, 1)) for story in stories))
    counts = await ledger.counts()
    assert [counts[table] for table in ("events", "model_state", "decisions", "effects")] == [300] * 4


async def test_an_entry_that_cannot_be_written_down_spoils_no_other(ledger: Ledger) -> None:
    good, bad = Story(ledger, "good"), Story(ledger, "bad")
    name = await bad.running()
    before = await ledger.state("bad")
    entries = [await good.entry(requested("r1")), await bad.entry(promoted(name, value=math.nan))]
    entries.append(decided(entries[0].decision.state, arrived("good", 1), START))
    results = await asyncio.gather(*(only(ledger, entry) for entry in entries), return_exceptions=True)
    assert [results[0], results[2]] == [Committed.NEW, Committed.NEW]
    assert isinstance(results[1], PermanentError)
    assert await ledger.state("bad") == before


async def test_the_decisions_replay_to_the_same_states(story: Story) -> None:
    effect = await story.effect()
    await story.tell(measured(effect.key), completes=effect.key)
    await story.tell(failed(await story.running()))
    retried = (await story.ledger.state("recommender")).execution
    assert retried
    await story.tell(started(retried.name), completes=retried.name)
    await story.tell(promoted(retried.name))
    state = ModelState(model="recommender")
    for told in reversed(await story.ledger.decisions("recommender", limit=99)):
        assert told.state_hash_before == digest(dump(state))
        decision = decide(policy_of("recommender"), state, load_event(told.event_kind, told.event), told.at)
        assert (decision.id, decision.reason, decision.detail) == (told.id, told.reason, told.detail)
        state = decision.state
        assert told.state_hash_after == digest(dump(state))
    assert await story.ledger.state("recommender") == state


# --- what is forbidden, whatever the code above does ---


def _forged(entry: Entry, **changes: object) -> Entry:
    execution = entry.decision.state.execution
    assert execution
    state = replace(entry.decision.state, execution=replace(execution, **changes))  # type: ignore[arg-type]
    return replace(entry, decision=replace(entry.decision, state=state, effects=()))


async def test_a_second_execution_of_one_generation_is_forbidden_and_spoils_no_other(story: Story) -> None:
    await story.tell(promoted(await story.running()))
    story.now += 2 * HOUR
    await story.stocked()
    double = _forged(await story.entry(requested("r2")), generation=1)
    other = await Story(story.ledger, "other").entry(arrived("other", 1))
    before = await story.ledger.counts()
    results = await asyncio.gather(*(only(story.ledger, entry) for entry in (double, other)), return_exceptions=True)
    assert isinstance(results[0], PermanentError)
    assert results[1] is Committed.NEW
    counts = await story.ledger.counts()
    assert counts == {**before, **{table: before[table] + 1 for table in _OF_ONE_ARRIVAL}}


_OF_ONE_ARRIVAL = ("events", "model_state", "policies", "decisions", "effects", "effects_owed")


async def test_a_second_active_execution_of_a_model_is_forbidden(story: Story) -> None:
    await story.running()
    entry = await story.entry(arrived("recommender", 1))
    blind = replace(entry, state_before=replace(entry.state_before, execution=None))
    before = await story.ledger.counts()
    with pytest.raises(PermanentError):
        await only(story.ledger, _forged(blind, generation=2, name="recommender-g2-forged"))
    assert await story.ledger.counts() == before


async def test_a_second_effect_of_one_key_is_forbidden(story: Story) -> None:
    effect = await story.effect()
    entry = await story.entry(arrived("recommender", 2))
    before = await story.ledger.counts()
    with pytest.raises(PermanentError):
        await only(story.ledger, replace(entry, decision=replace(entry.decision, effects=(effect,))))
    assert await story.ledger.counts() == before
