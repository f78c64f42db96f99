"""What happens because time has passed."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from retrainer.core.events import RetrainingRequested
from retrainer.core.policy import Schedule
from retrainer.core.reason import Reason
from retrainer.ports import Committed, Entry, TransientError, Verdict
from tests.fakes.clock import START, LoopClock
from tests.fakes.memory_ledger import MemoryLedger
from tests.fakes.parser import body
from tests.loop.house import HandSchedules, House, World, batch, policy, until

pytestmark = pytest.mark.looptime

NIGHTLY = {"name": "nightly", "cron": "0 2 * * *", "misfire_grace": "1h"}


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def scheduled(*minutes: float) -> World:
    """A model whose schedule is due at these minutes of the test."""
    told = policy(triggers={"schedules": [NIGHTLY]})
    return World(policies={"recommender": told}, schedules=HandSchedules([at(m) for m in minutes]))


async def fires(world: World) -> list[str]:
    """The fire times decided upon."""
    newest_first = await world.ledger.decisions("recommender", limit=100)
    return [d.event_identity for d in reversed(newest_first) if d.event_kind == "ScheduleFired"]


def fired(minutes: float) -> str:
    return f"schedule:nightly@{at(minutes).isoformat()}"


async def test_a_trigger_kept_in_the_cooldown_fires_when_it_ends() -> None:
    world = World(policies={"recommender": policy(guards={"cooldown": "10m"})})
    async with House(world).alive() as house:
        world.analyst.drift_share = 1.0
        world.inbox.send(body(batch(1)))
        await until(lambda: len(world.engine.started) == 1)
        world.engine.promote(next(iter(world.engine.started)))
        await asyncio.sleep(20)
        world.analyst.drift_share = 0.0
        world.inbox.send(body(batch(2)))
        await asyncio.sleep(20)
        await house.loop.take("recommender", RetrainingRequested(request="r1", by="ann", why="now"))
        state = await world.state()
        assert state.ended_at
        ends_at = state.ended_at + timedelta(minutes=10)
        assert (len(state.kept), state.wake_at) == (1, ends_at)
        await until(lambda: len(world.engine.started) == 2, within=timedelta(hours=2))
    woken = [d for d in await world.ledger.decisions("recommender", limit=9) if d.event_kind == "Woken"]
    assert [d.reason for d in woken] == [Reason.RETRAINING]
    assert woken[0].at - ends_at < timedelta(seconds=0.1)


async def test_a_moment_sooner_than_the_next_look_is_not_overslept() -> None:
    world = World(policies={"recommender": policy(guards={"cooldown": "10s"})})
    world.analyst.drift_share = 1.0
    world.inbox.send(body(batch(1)))
    async with House(world).alive():
        await until(lambda: len(world.engine.started) == 1)
        world.engine.promote(next(iter(world.engine.started)))
        world.inbox.send(body(batch(2)))
        await until(lambda: len(world.engine.started) == 2, within=timedelta(minutes=1))
    state = await world.state()
    assert state.ended_at
    assert state.execution
    assert state.execution.planned_at - state.ended_at < timedelta(seconds=10.1)


async def test_a_moment_asked_for_again_by_a_slower_clock_still_wakes() -> None:
    world = World(policies={"recommender": policy(guards={"cooldown": "10m"})})
    world.analyst.drift_share = 1.0
    world.inbox.send(body(batch(1)))
    async with House(world).alive() as house:
        await until(lambda: len(world.engine.started) == 1)
        world.engine.promote(next(iter(world.engine.started)))
        await asyncio.sleep(20)
        await house.loop.take("recommender", RetrainingRequested(request="r1", by="ann", why="now"))
        wake_at = (await world.state()).wake_at
        assert wake_at
        async with House(world, clock=LoopClock(skew=timedelta(hours=1))).alive(drain_seconds=0.0):
            await asyncio.sleep(1)
        assert (await world.reasons())[-1] is Reason.TOO_FEW_ROWS, "the fast clock was woken long before"
        world.inbox.send(body(batch(2)))
        await asyncio.sleep(20)
        assert (await world.state()).wake_at == wake_at
        await until(lambda: len(world.engine.started) == 2, within=timedelta(hours=1))


async def test_a_schedule_fires_once_though_two_replicas_see_it() -> None:
    world = scheduled(10)
    async with House(world).alive(), House(world, seed=1).alive():
        await asyncio.sleep(20 * 60)
    assert await fires(world) == [fired(10)]
    newest = (await world.ledger.decisions("recommender", limit=1))[0]
    assert newest.at - at(10) < timedelta(seconds=0.1)


async def test_a_schedule_seen_for_the_first_time_does_not_fire_for_the_past() -> None:
    world = scheduled(-30, -1)
    async with House(world).alive():
        await asyncio.sleep(600)
    async with House(world).alive():
        await asyncio.sleep(600)
    assert await fires(world) == []


async def test_a_fire_that_came_while_nothing_ran_is_made_up_for() -> None:
    world = scheduled(30)
    async with House(world).alive():
        await asyncio.sleep(60)
    await asyncio.sleep(45 * 60)
    async with House(world).alive():
        await asyncio.sleep(1)
    assert await fires(world) == [fired(30)]


async def test_a_fire_that_could_not_be_committed_before_the_process_died_is_made_up_for() -> None:
    class FullLedger(MemoryLedger):
        full = False

        async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
            if self.full:
                raise TransientError("disk full")
            return await super().commit(entries)

    world = scheduled(30)
    world.ledger = ledger = FullLedger()
    async with House(world).alive(drain_seconds=0.0):
        await asyncio.sleep(29 * 60)
        ledger.full = True
        await asyncio.sleep(10 * 60)
    ledger.full = False
    async with House(world).alive():
        await asyncio.sleep(1)
    assert await fires(world) == [fired(30)]


async def test_a_fire_noticed_after_its_grace_is_skipped_and_counted() -> None:
    world = scheduled(30)
    async with House(world).alive():
        await asyncio.sleep(60)
    await asyncio.sleep(91 * 60)
    async with House(world).alive():
        await asyncio.sleep(600)
    assert await fires(world) == []
    told = [(verdict, why) for kind, verdict, why in world.telemetry.messages if kind == "ScheduleFired"]
    assert told == [(Verdict.IGNORED, "nightly noticed after its misfire grace")]


async def test_of_several_fires_due_at_once_only_the_newest_fires() -> None:
    world = scheduled(30, 40, 50)
    async with House(world).alive():
        await asyncio.sleep(60)
    await asyncio.sleep(60 * 60)
    async with House(world).alive():
        await asyncio.sleep(600)
    assert await fires(world) == [fired(50)]
    assert sum(kind == "ScheduleFired" for kind, _, _ in world.telemetry.messages) == 2


async def test_one_schedule_that_cannot_be_computed_does_not_stop_the_others() -> None:
    class Broken(HandSchedules):
        def due(self, schedule: Schedule, after: datetime, until: datetime) -> Sequence[datetime]:
            if schedule.name == "broken":
                raise ValueError("no such time zone")
            return super().due(schedule, after, until)

    world = scheduled()
    world.schedules = Broken([at(10)])
    world.policies = {
        "recommender": policy(triggers={"schedules": [NIGHTLY | {"name": "broken"}, NIGHTLY]}),
    }
    async with House(world).alive():
        await asyncio.sleep(900)
    assert await fires(world) == [fired(10)]
    assert ("schedule", "no such time zone") in world.telemetry.failures


async def test_nothing_due_asks_little_of_the_ledger() -> None:
    class CountingLedger(MemoryLedger):
        calls = 0

        async def see(self, model: str, schedule: str, until: datetime) -> None:
            self.calls += 1
            await super().see(model, schedule, until)

    world = scheduled()
    world.ledger = ledger = CountingLedger()
    async with House(world).alive():
        await asyncio.sleep(3600)
    assert ledger.calls <= 2 + 3600 / 300
