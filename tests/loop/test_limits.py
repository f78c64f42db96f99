"""What models do to one another: a limit over all of them, and one that waits for another."""

import asyncio
from datetime import datetime, timedelta

import pytest

from retrainer.core.decide import Decision
from retrainer.core.events import ModelPaused, RetrainingRequested
from retrainer.core.fleet import Fleet
from retrainer.core.reason import Reason
from retrainer.core.record import load_fleet
from retrainer.ports import Committed
from retrainer.replay import walk
from tests.fakes.memory_ledger import MemoryLedger
from tests.loop.house import House, World, batch, policy, until

pytestmark = pytest.mark.looptime

ONE_AT_A_TIME: dict[str, object] = {"cooldown": "1h", "fleet": {"concurrency": 1}}


class SlowLedger(MemoryLedger):
    """What it tells of the others is a second old."""

    async def fleet(self, model: str, since: datetime) -> Fleet:
        found = await super().fleet(model, since)
        await asyncio.sleep(1)
        return found


def world_of(**guards: dict[str, object]) -> World:
    """A model for each name, with these guards."""
    return World(policies={name: policy(name, guards=guards[name]) for name in guards}, ledger=SlowLedger())


async def asked(house: House, model: str) -> Decision:
    """The decision on a request, once the model has something to learn from."""
    await house.loop.take(model, batch(1, model))
    await asyncio.sleep(5)
    decided = await house.loop.take(model, RetrainingRequested(request=model, by="ann", why="now"))
    assert decided
    return decided


async def test_a_model_waits_while_others_take_up_the_limit_and_starts_by_itself() -> None:
    world = world_of(one=ONE_AT_A_TIME, two=ONE_AT_A_TIME)
    async with House(world).alive() as house:
        first, second = await asked(house, "one"), await asked(house, "two")
        assert (first.reason, second.reason) == (Reason.RETRAINING, Reason.FLEET_BUSY)
        assert first.state.execution
        assert second.state.wake_at
        await asyncio.sleep(600)
        assert list(world.engine.started) == [first.state.execution.name]
        world.engine.promote(first.state.execution.name)
        await until(lambda: len(world.engine.started) == 2, within=timedelta(minutes=10))
    assert Reason.RETRAINING in await world.reasons("two")
    # What was known of the other is kept with each decision, and enough to make it again.
    replayed = [again async for again in walk(world.ledger, "two")]
    assert not any(again.differences or again.cannot for again in replayed)
    fleets = [load_fleet(again.original.fleet or "") for again in replayed]
    assert [running.model for running in fleets[-1].running] == []
    assert {running.model for fleet in fleets for running in fleet.running} == {"one"}


async def test_of_two_replicas_that_plan_at_once_under_one_limit_one_is_first() -> None:
    world = world_of(one=ONE_AT_A_TIME, two=ONE_AT_A_TIME)
    async with House(world).alive() as here:
        there = House(world).loop
        for model in ("one", "two"):
            await here.loop.take(model, batch(1, model))
        await asyncio.sleep(5)
        event = RetrainingRequested(request="r", by="ann", why="now")
        answers = await asyncio.gather(here.loop.take("one", event), there.take("two", event))
        await asyncio.sleep(60)
        assert sorted(answer.reason for answer in answers if answer) == [Reason.FLEET_BUSY, Reason.RETRAINING]
        assert [c for _, c in world.telemetry.entries].count(Committed.CONFLICT) == 1
        assert len(world.engine.started) == 1


async def test_a_model_waits_for_the_one_it_is_after_as_long_as_that_one_has_a_policy() -> None:
    world = world_of(one={}, two={"after": ["one"]})
    async with House(world).alive() as house:
        await house.loop.take("one", ModelPaused(request="p", by="eve", why="a release"))
        assert (await asked(house, "one")).reason is Reason.PAUSED
        assert (await asked(house, "two")).reason is Reason.AFTER_OTHERS
        await asyncio.sleep(300)
        assert not world.engine.started
        del world.policies["one"]
        await until(lambda: bool(world.engine.started), within=timedelta(minutes=5))
    assert [start.split("-g")[0] for start in world.engine.started] == ["two"]


async def test_whose_policy_asks_for_nothing_of_others_is_told_nothing() -> None:
    world = world_of(one={}, two={})
    async with House(world).alive() as house:
        assert [(await asked(house, model)).reason for model in ("one", "two")] == [Reason.RETRAINING] * 2
    assert [original.fleet async for original in world.ledger.history("two", 1)][-1] is None
