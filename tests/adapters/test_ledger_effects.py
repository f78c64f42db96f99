"""What every ledger promises of the outbox: an effect is owed until it is answered, and to one replica at a time."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.core.effects import StartExecution
from retrainer.core.events import EffectFailed
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Ledger
from tests.fakes.story import START, Story, arrived, decided, measured, requested, started

HOUR = timedelta(hours=1)


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


async def test_an_effect_that_is_leased_with_its_decision_is_the_committers_until_the_lease_ends(story: Story) -> None:
    entry = decided(ModelState(model="recommender"), arrived("recommender", 1), START, leased_until=START + HOUR)
    assert await story.ledger.commit([entry]) == [Committed.NEW]
    (effect,) = entry.decision.effects
    assert await _keys(story, HOUR - timedelta(microseconds=1)) == []
    assert await _keys(story, HOUR) == [(effect.key, 2)]


async def test_an_effect_may_be_answered_in_the_chain_that_asks_for_it(story: Story) -> None:
    asked = await story.entry(arrived("recommender", 1))
    (effect,) = asked.decision.effects
    answer = measured(effect.key, *asked.decision.state.window)
    answered = decided(asked.decision.state, answer, story.now, completes=effect.key)
    assert await story.ledger.commit([asked, answered]) == [Committed.NEW] * 2
    assert await _keys(story, HOUR) == []
    assert (await story.ledger.counts())["effects_owed"] == 0


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
    assert await story.ledger.commit([again]) == [Committed.DUPLICATE]
    assert await _keys(story, 24 * HOUR) == []


async def test_a_start_that_failed_for_good_is_tried_as_a_new_execution(story: Story) -> None:
    name = await story.planned()
    given_up = EffectFailed(effect=name, kind="StartExecution", why="the name is taken")
    entry = await story.tell(given_up, completes=name)
    assert entry.decision.state.execution
    assert [key for key, _ in await _keys(story)] == [entry.decision.state.execution.name] != [name]


async def _changed(ledger: SqlLedger, change: str, key: str) -> None:
    statement = text(f"UPDATE effects SET {change} WHERE key = :key")  # noqa: S608
    await ledger._write(lambda connection: connection.execute(statement, {"key": key}).close())


@pytest.mark.parametrize("ledger", ["sqlite", "postgres"], indirect=True)
async def test_an_effect_that_cannot_be_read_any_more_is_put_off_and_the_others_come(ledger: SqlLedger) -> None:
    stories = [Story(ledger, name) for name in ("unknown-kind", "no-json", "good")]
    keys = [(await story.effect()).key for story in stories]
    for key, change in ((keys[0], "kind = 'MeasureMoon'"), (keys[1], "body = '{'")):
        await _changed(ledger, change, key)
    now = stories[0].now
    assert [owed.effect.key for owed in await ledger.owed(now, limit=9, lease_seconds=60)] == [keys[2]]
    assert await ledger.owed(now + HOUR / 2, limit=2, lease_seconds=1) != []
    why = "SELECT count(*) FROM effects WHERE last_error LIKE 'this version cannot read it: %'"
    assert await ledger._write(lambda c: c.execute(text(why)).scalar()) == 2
    # Once somebody has mended it, it is done like any other.
    await _changed(ledger, "kind = 'MeasureEvidence'", keys[0])
    after = await ledger.owed(now + HOUR, limit=9, lease_seconds=60)
    assert [owed.effect.key for owed in after if owed.model == "unknown-kind"] == [keys[0]]
