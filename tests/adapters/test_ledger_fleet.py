"""What every ledger promises of all models together: what each may know of the others, and that no limit is outrun."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from retrainer.core.events import ExecutionEnded
from retrainer.core.execution import Outcome, Status, Verdict
from retrainer.core.fleet import ALONE, Fleet, Running, Start
from retrainer.core.record import load_fleet
from retrainer.ports import Committed, Entry, Ledger
from tests.fakes.story import START, Story, arrived, decided, failed, promoted, requested

HOUR = timedelta(hours=1)


async def test_a_model_knows_what_the_others_run_wait_for_and_have_started(ledger: Ledger) -> None:
    one, two, three = (Story(ledger, name) for name in ("one", "two", "three"))
    assert await ledger.fleet("one", START) == ALONE
    name = await two.running()
    planned_at = (await ledger.state("two")).starts[0]
    await three.tell(requested("r3"))
    assert (await ledger.state("three")).kept
    told = await ledger.fleet("one", START)
    assert told == Fleet(
        running=(Running(model="two", since=planned_at),),
        waiting=("three",),
        starts=(Start(model="two", at=planned_at, cost=None),),
    )
    assert await ledger.fleet("one", planned_at) == replace(told, starts=())
    assert (await ledger.fleet("two", START)).running == ()
    outcome = Outcome(verdict=Verdict.REFUSED, why="worse", cost=0.1 + 0.2)
    await two.tell(ExecutionEnded(execution=name, status=Status.SUCCEEDED, outcome=outcome))
    # What it has cost is known to the last bit.
    assert (await ledger.fleet("one", START)).starts == (Start(model="two", at=planned_at, cost=0.1 + 0.2),)
    assert (await ledger.fleet("one", START)).running == ()
    await one.stocked()
    entry = replace(await one.entry(arrived("one", 9)), fleet=told)
    assert await ledger.commit([entry]) == [Committed.NEW]
    kept = [original.fleet async for original in ledger.history("one", 1)]
    assert kept[:2] == [None, None]
    assert kept[2]
    assert load_fleet(kept[2]) == told


async def _plan(story: Story, fleet: Fleet | None) -> Entry:
    """A retraining planned on what was known of the others, not committed."""
    await story.stocked()
    entry = decided(await story.ledger.state(story.model), requested("r"), story.now, fleet=fleet)
    assert entry.decision.state.execution
    return entry


async def test_a_plan_that_did_not_know_of_an_execution_conflicts(ledger: Ledger) -> None:
    one, two = Story(ledger, "one"), Story(ledger, "two")
    known = await ledger.fleet("one", START)
    late = await _plan(one, known)
    name = await two.running()
    assert await ledger.commit([late]) == [Committed.CONFLICT]
    assert (await ledger.counts())["executions"] == 1
    # Whom nothing limits, nothing holds; and who does know of it may plan.
    free = await _plan(Story(ledger, "three"), None)
    assert await ledger.commit([free]) == [Committed.NEW]
    told = await _plan(Story(ledger, "four"), await ledger.fleet("four", START))
    assert await ledger.commit([told]) == [Committed.NEW]
    await two.tell(failed(name))


async def test_of_models_that_plan_at_once_under_one_limit_one_is_first(ledger: Ledger) -> None:
    stories = [Story(ledger, f"model-{number}") for number in range(4)]
    entries = [await _plan(story, await ledger.fleet(story.model, START)) for story in stories]
    verdicts = await asyncio.gather(*(ledger.commit([entry]) for entry in entries))
    assert sorted(verdict for (verdict,) in verdicts) == [Committed.CONFLICT] * 3 + [Committed.NEW]


async def test_an_execution_that_has_ended_meanwhile_is_in_nobodys_way(ledger: Ledger) -> None:
    one, two = Story(ledger, "one"), Story(ledger, "two")
    name = await two.running()
    entry = await _plan(one, await ledger.fleet("one", START))
    await two.tell(promoted(name))
    assert await ledger.commit([entry]) == [Committed.NEW]


async def test_what_plans_nothing_conflicts_with_nobody(ledger: Ledger) -> None:
    await Story(ledger, "two").running()
    entry = decided(await ledger.state("one"), arrived("one", 1), START, fleet=ALONE)
    assert await ledger.commit([entry]) == [Committed.NEW]
