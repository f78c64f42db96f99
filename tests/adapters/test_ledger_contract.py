"""What every ledger promises, in memory and in SQL alike."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.core.decide import decide
from retrainer.core.effects import AnswerApproval, StartExecution
from retrainer.core.events import ApprovalAnswered, EffectFailed, ModelPaused
from retrainer.core.record import digest, dump, load_event
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Ledger, PermanentError, Quarantined
from tests.fakes.memory_ledger import MemoryLedger
from tests.fakes.story import (
    START,
    Story,
    approval_requested,
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


@pytest.fixture(params=["memory", "sqlite"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    opened = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    await opened.close()


@pytest.fixture
def story(ledger: Ledger) -> Story:
    return Story(ledger)


# --- commit ---


async def test_a_model_never_seen_has_version_0(ledger: Ledger) -> None:
    assert await ledger.state("recommender") == ModelState(model="recommender")
    assert await ledger.decision("recommender-1") is None


async def test_a_committed_decision_is_the_models_state_and_can_be_told_by_three_names(story: Story) -> None:
    await story.stocked()
    entry = await story.tell(requested("r1"))
    state = entry.decision.state
    assert await story.ledger.state("recommender") == state
    assert await story.ledger.known("recommender", "request:r1")
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
    assert await story.ledger.commit(again) is Committed.DUPLICATE
    assert await story.ledger.counts() == before
    assert (await story.ledger.state("recommender")).version == 1


async def test_an_event_delivered_twice_at_once_is_decided_once(story: Story) -> None:
    entry = await story.entry(arrived("recommender", 1))
    committed = await asyncio.gather(*(story.ledger.commit(entry) for _ in range(2)))
    assert committed == [Committed.NEW, Committed.DUPLICATE]
    assert (await story.ledger.counts())["decisions"] == 1


async def test_one_fact_may_concern_two_models(ledger: Ledger) -> None:
    await Story(ledger, "recommender").tell(requested("r1"))
    assert not await ledger.known("vision", "request:r1")
    await Story(ledger, "vision").tell(requested("r1"))
    assert [d.id for d in await ledger.decisions(None, limit=9)] == ["vision-1", "recommender-1"]


async def test_a_decision_on_an_old_state_conflicts_and_writes_nothing(story: Story) -> None:
    effect = await story.effect()
    late = await story.entry(measured(effect.key), completes=effect.key)
    await story.tell(arrived("recommender", 2))
    before, state = await story.ledger.counts(), await story.ledger.state("recommender")
    assert await story.ledger.commit(late) is Committed.CONFLICT
    assert await story.ledger.counts() == before
    assert await story.ledger.state("recommender") == state
    assert not await story.ledger.known("recommender", late.event.identity)


async def test_of_replicas_deciding_on_one_state_at_once_one_is_first(story: Story) -> None:
    await story.stocked()
    rivals = [await story.entry(requested(f"r{n}")) for n in range(5)]
    committed = await asyncio.gather(*(story.ledger.commit(entry) for entry in rivals))
    assert committed.count(Committed.NEW) == 1
    assert committed.count(Committed.CONFLICT) == 4
    assert (await story.ledger.counts())["executions"] == 1


async def test_entries_of_one_model_committed_together_build_on_each_other(story: Story) -> None:
    entries: list[Entry] = []
    state = ModelState(model="recommender")
    for number in range(5):
        entries.append(decided(state, arrived("recommender", number), START))
        state = entries[-1].decision.state
    committed = await asyncio.gather(*(story.ledger.commit(entry) for entry in entries))
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
    committed = await asyncio.gather(*(story.ledger.commit(entry) for entry in (first, second, third)))
    assert committed == [Committed.NEW] * 3
    assert [owed.effect.key for owed in await story.ledger.owed(story.now, limit=9, lease_seconds=1)] == [again]


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
    results = await asyncio.gather(*(ledger.commit(entry) for entry in entries), return_exceptions=True)
    assert [results[0], results[2]] == [Committed.NEW, Committed.NEW]
    assert isinstance(results[1], ValueError)
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
    results = await asyncio.gather(*map(story.ledger.commit, (double, other)), return_exceptions=True)
    assert isinstance(results[0], PermanentError)
    assert results[1] is Committed.NEW
    counts = await story.ledger.counts()
    assert counts == {**before, **{table: before[table] + 1 for table in _OF_ONE_ARRIVAL}}


_OF_ONE_ARRIVAL = ("events", "model_state", "decisions", "effects", "effects_owed")


async def test_a_second_active_execution_of_a_model_is_forbidden(story: Story) -> None:
    await story.running()
    entry = await story.entry(arrived("recommender", 1))
    blind = replace(entry, state_before=replace(entry.state_before, execution=None))
    before = await story.ledger.counts()
    with pytest.raises(PermanentError):
        await story.ledger.commit(_forged(blind, generation=2, name="recommender-g2-forged"))
    assert await story.ledger.counts() == before


async def test_a_second_effect_of_one_key_is_forbidden(story: Story) -> None:
    effect = await story.effect()
    entry = await story.entry(arrived("recommender", 2))
    before = await story.ledger.counts()
    with pytest.raises(PermanentError):
        await story.ledger.commit(replace(entry, decision=replace(entry.decision, effects=(effect,))))
    assert await story.ledger.counts() == before


# --- effects ---


async def _keys(story: Story, after: timedelta = timedelta(0), *, limit: int = 9) -> list[tuple[str, int]]:
    leased = await story.ledger.owed(story.now + after, limit=limit, lease_seconds=60)
    return [(owed.effect.key, owed.tries) for owed in leased]


async def test_an_effect_is_owed_as_it_was_decided(story: Story) -> None:
    await story.stocked()
    entry = await story.tell(requested("r1"))
    (owed,) = await story.ledger.owed(story.now, limit=9, lease_seconds=60)
    assert isinstance(owed.effect, StartExecution)
    assert (owed.effect,) == entry.decision.effects
    assert (owed.model, owed.decision, owed.tries, owed.created_at) == ("recommender", "recommender-3", 1, entry.now)


async def test_a_leased_effect_is_nobody_elses_until_the_lease_ends(story: Story) -> None:
    key = await story.planned()
    assert await _keys(story) == [(key, 1)]
    assert await _keys(story, timedelta(seconds=59)) == []
    assert await _keys(story, timedelta(seconds=60)) == [(key, 2)]


async def test_replicas_asking_at_once_never_lease_the_same_effect(ledger: Ledger) -> None:
    await asyncio.gather(*(Story(ledger, f"model-{n}").planned() for n in range(20)))
    asked = [ledger.owed(START + HOUR, limit=7, lease_seconds=60) for _ in range(4)]
    keys = [owed.effect.key for leased in await asyncio.gather(*asked) for owed in leased]
    assert len(keys) == len(set(keys)) == 20


async def test_the_effect_longest_due_comes_first(ledger: Ledger) -> None:
    older, newer = Story(ledger, "older"), Story(ledger, "newer")
    newer.now += HOUR
    late, early = await newer.planned(), await older.planned()
    assert [(await _keys(newer, limit=1))[0][0] for _ in range(2)] == [early, late]


async def test_a_postponed_effect_is_due_again_at_its_moment(story: Story) -> None:
    key = await story.planned()
    assert await _keys(story) == [(key, 1)]
    await story.ledger.postpone(key, story.now + HOUR, "throttled")
    assert await _keys(story, HOUR - timedelta(microseconds=1)) == []
    assert await _keys(story, HOUR) == [(key, 2)]


async def test_an_effect_that_is_done_never_comes_back(story: Story) -> None:
    key = await story.running()
    await story.ledger.postpone(key, story.now, "too late")
    assert await _keys(story, 24 * HOUR) == []
    told = await story.ledger.decision(key)
    assert told
    assert told.effects == ((key, "StartExecution", "done"),)


async def test_an_effect_that_failed_for_good_never_comes_back(story: Story) -> None:
    effect = await story.effect()
    given_up = EffectFailed(effect=effect.key, kind="MeasureEvidence", why="no such bucket")
    await story.tell(given_up, completes=effect.key)
    assert await _keys(story, 24 * HOUR) == []
    told = await story.ledger.decision("recommender-1")
    assert told
    assert told.effects == ((effect.key, "MeasureEvidence", "failed"),)
    assert (await story.ledger.counts())["effects_owed"] == 0


async def test_an_effect_that_is_done_stays_done_when_another_try_of_it_fails(story: Story) -> None:
    key = await story.running()
    await story.tell(EffectFailed(effect=key, kind="StartExecution", why="the name is taken"), completes=key)
    told = await story.ledger.decision(key)
    assert told
    assert told.effects == ((key, "StartExecution", "done"),)


async def test_a_duplicate_answer_still_completes_its_effect(story: Story) -> None:
    name = await story.planned()
    await story.tell(started(name))
    assert await _keys(story) == [(name, 1)]
    again = await story.entry(started(name), completes=name)
    assert await story.ledger.commit(again) is Committed.DUPLICATE
    assert await _keys(story, 24 * HOUR) == []


async def test_a_start_that_failed_for_good_is_tried_as_a_new_execution(story: Story) -> None:
    name = await story.planned()
    given_up = EffectFailed(effect=name, kind="StartExecution", why="the name is taken")
    entry = await story.tell(given_up, completes=name)
    assert entry.decision.state.execution
    assert [key for key, _ in await _keys(story)] == [entry.decision.state.execution.name] != [name]


# --- the rest ---


async def test_active_models_are_those_with_an_execution_or_a_moment_to_wake_at(ledger: Ledger) -> None:
    names = ("idle", "planned", "running", "cooling", "ended")
    idle, planned, running, cooling, ended = (Story(ledger, name) for name in names)
    await idle.tell(arrived("idle", 1))
    await planned.planned()
    await running.running()
    await cooling.tell(promoted(await cooling.running()))
    await cooling.stocked()
    await cooling.tell(requested("r2"))
    await ended.tell(promoted(await ended.running()))
    active = await ledger.active()
    assert set(active) == {"planned", "running", "cooling"}
    assert active["cooling"] == await ledger.state("cooling")


async def test_a_schedules_cursor_moves_on_and_never_back(ledger: Ledger) -> None:
    assert await ledger.fire("recommender", "nightly", START) is None
    assert await ledger.fire("recommender", "nightly", START + HOUR) == START
    assert await ledger.fire("recommender", "nightly", START) == START + HOUR
    assert await ledger.fire("recommender", "nightly", START + 2 * HOUR) == START + HOUR
    assert await ledger.fire("vision", "nightly", START) is None


async def test_replicas_moving_one_cursor_at_once_see_each_other(ledger: Ledger) -> None:
    moved = await asyncio.gather(*(ledger.fire("recommender", "nightly", START + n * HOUR) for n in range(9)))
    assert moved == [None, *(START + n * HOUR for n in range(8))]


async def test_a_refused_message_is_kept_once_a_queue(ledger: Ledger) -> None:
    message = Quarantined(message_id="m1", queue="events", received_at=START, why="no JSON", body="{")
    await ledger.quarantine(message)
    await asyncio.gather(*(ledger.quarantine(replace(message, why="again")) for _ in range(3)))
    await ledger.quarantine(replace(message, queue="alarms"))
    assert (await ledger.counts())["quarantine"] == 2


async def test_decisions_are_told_newest_first_and_of_one_model_if_wanted(ledger: Ledger) -> None:
    one, two = Story(ledger, "one"), Story(ledger, "two")
    for number in range(3):
        await one.tell(arrived("one", number))
        await two.tell(arrived("two", number))
    assert [d.id for d in await ledger.decisions(None, limit=3)] == ["two-3", "one-3", "two-2"]
    assert [d.id for d in await ledger.decisions("one", limit=2)] == ["one-3", "one-2"]
    assert await ledger.decisions("three", limit=9) == []


async def test_a_task_token_is_kept_for_its_answer_and_never_told(story: Story) -> None:
    token = 'to"ken\\with quotes'
    name = await story.running()
    await story.tell(approval_requested(name, token))
    await story.tell(ApprovalAnswered(request="a1", execution=name, approved=True, by="ana"))
    (owed,) = await story.ledger.owed(story.now, limit=9, lease_seconds=60)
    assert isinstance(owed.effect, AnswerApproval)
    assert owed.effect.task_token == token
    told = await story.ledger.decisions("recommender", limit=99)
    assert not any("ken" in dump_of.event.replace("task_token", "") for dump_of in told)
    assert json.loads(told[1].event) == {"execution": name, "model_package_arn": None, "task_token": "(left out)"}


async def test_words_that_look_like_a_task_token_are_told_as_they_are(story: Story) -> None:
    entry = await story.tell(ModelPaused(request="p1", by="task_token", why='the "task_token": is lost'))
    told = await story.ledger.decision("request:p1")
    assert told
    assert told.event == dump(entry.event)
