"""Executions are followed to their end, whoever tells of it or not."""

import asyncio
from collections.abc import Collection
from datetime import timedelta

import pytest

from retrainer.core.events import ApprovalRequested, ExecutionEnded
from retrainer.core.reason import Reason
from retrainer.follow import KNOWN_WITHIN
from retrainer.ports import PermanentError, TransientError, UnknownExecutionError
from tests.fakes.engine import MemoryEngine
from tests.fakes.parser import body
from tests.loop.house import MACHINE, House, World, batch, policy, until

pytestmark = pytest.mark.looptime


async def started(world: World) -> list[str]:
    """The names of the executions, when every model's has been started."""
    world.analyst.drift_share = 1.0
    world.inbox.send(*(body(batch(1, model)) for model in world.policies))
    await until(lambda: len(world.engine.started) == len(world.policies))
    return list(world.engine.started)


async def test_an_end_that_nobody_told_of_is_found() -> None:
    world = World()
    async with House(world).alive():
        (name,) = await started(world)
        world.engine.promote(name)
        await asyncio.sleep(16)
    state = await world.state()
    assert state.champion
    assert state.champion.execution == name


async def test_an_end_that_came_while_nothing_ran_is_found_at_the_start() -> None:
    world = World()
    async with House(world).alive():
        (name,) = await started(world)
        await asyncio.sleep(1)
    world.engine.promote(name)
    async with House(world).alive():
        await asyncio.sleep(1)
    assert (await world.state()).champion


async def test_a_status_message_wakes_the_observer() -> None:
    world = World()
    async with House(world).alive():
        (name,) = await started(world)
        await asyncio.sleep(3)
        world.engine.promote(name)
        world.inbox.send("wake")
        await asyncio.sleep(2)
        assert (await world.state()).champion


async def test_a_storm_of_status_messages_does_not_become_a_storm_of_questions() -> None:
    world = World()
    async with House(world).alive():
        (name,) = await started(world)
        world.engine.asked.clear()
        world.engine.listed = 0
        for _ in range(100):
            world.inbox.send(*["wake"] * 10)
            await asyncio.sleep(0.1)
    assert world.engine.listed <= 12
    assert world.engine.asked[name] == 0, "it is listed as running, so nobody asks about it"


async def test_one_execution_that_cannot_be_asked_about_does_not_stop_the_others() -> None:
    class PartlyThrottled(MemoryEngine):
        async def ended(self, arn: str) -> ExecutionEnded | None:
            if "one-g1" in arn:
                raise TransientError("Rate exceeded")
            return await super().ended(arn)

    world = World(engine=PartlyThrottled(), policies={m: policy(m) for m in ("one", "two")})
    async with House(world).alive():
        for name in await started(world):
            world.engine.promote(name)
        await asyncio.sleep(16)
    assert ("observer", "Rate exceeded") in world.telemetry.failures
    assert (await world.state("two")).champion
    assert (await world.state("one")).execution


async def test_an_execution_known_only_by_its_approval_request_is_left_to_the_outbox_until_it_has_an_arn() -> None:
    world = World()
    async with House(world).alive() as house:
        world.engine.throttled = True
        world.analyst.drift_share = 1.0
        world.inbox.send(body(batch(1)))
        await until(lambda: world.engine.asked.total() > 0)
        name = (await world.execution()).name
        await house.loop.take("recommender", ApprovalRequested(execution=name, task_token="secret"))
        await asyncio.sleep(60)
        world.engine.throttled = False
        world.engine.promote(name)
        await until(lambda: name in world.engine.started, within=timedelta(minutes=2))
        await asyncio.sleep(16)
    assert all(what != "observer" for what, _ in world.telemetry.failures)
    assert (await world.state()).champion


async def test_the_end_of_an_execution_waits_for_its_policy() -> None:
    world = World()
    async with House(world).alive():
        (name,) = await started(world)
        await asyncio.sleep(1)
        gone = world.policies.pop("recommender")
        world.engine.promote(name)
        await asyncio.sleep(60)
        world.policies["recommender"] = gone
        await asyncio.sleep(16)
    assert Reason.PROMOTED in await world.reasons()


async def test_a_question_to_a_person_is_kept_open_until_it_is_answered() -> None:
    world = World()
    async with House(world).alive() as house:
        (name,) = await started(world)
        await house.loop.take("recommender", ApprovalRequested(execution=name, task_token="secret"))
        await asyncio.sleep(46)
        kept_open = world.engine.heartbeats["secret"]
        world.engine.promote(name)
        await asyncio.sleep(46)
    assert kept_open >= 3
    assert world.engine.heartbeats["secret"] <= kept_open + 1


async def test_where_executions_cannot_be_listed_each_is_asked_about() -> None:
    class Unlisted(MemoryEngine):
        async def running(self, arns: Collection[str]) -> Collection[str]:
            raise PermanentError("AccessDeniedException: states:ListExecutions")

    world = World(engine=Unlisted())
    async with House(world).alive():
        (name,) = await started(world)
        world.engine.promote(name)
        await asyncio.sleep(16)
    assert (await world.state()).champion
    assert ("observer", "AccessDeniedException: states:ListExecutions") in world.telemetry.failures


async def test_an_execution_that_aws_does_not_know_yet_is_not_taken_for_ended_and_one_it_forgot_is() -> None:
    class Lagging(MemoryEngine):
        async def running(self, arns: Collection[str]) -> Collection[str]:
            return ()

        async def ended(self, arn: str) -> ExecutionEnded | None:
            raise UnknownExecutionError(f"AWS does not know {arn}")

    world = World(
        engine=Lagging(),
        policies={
            "recommender": policy(action={"state_machine": MACHINE, "attempts": 1, "candidates": [{"name": "sasrec"}]})
        },
    )
    async with House(world).alive():
        (name,) = await started(world)
        await asyncio.sleep(KNOWN_WITHIN.total_seconds() - 20)
        assert (await world.execution()).name == name
        await asyncio.sleep(40)
    assert Reason.EXECUTION_FAILED in await world.reasons()
    assert list(world.engine.started) == [name]
