"""What decisions ask for is done, whatever fails on the way."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from retrainer.core.effects import StartExecution
from retrainer.core.events import ApprovalAnswered, ApprovalRequested
from retrainer.core.execution import Status
from retrainer.core.reason import Reason
from retrainer.loop import LEASE_SECONDS
from retrainer.outbox import START_WITHIN, TRIES_MAX
from retrainer.ports import Owed, PermanentError, TransientError
from tests.fakes.clock import LoopClock
from tests.fakes.engine import MemoryEngine
from tests.fakes.memory_ledger import MemoryLedger
from tests.fakes.parser import body
from tests.loop.house import House, World, batch, policy, until

pytestmark = pytest.mark.looptime


def drifting(**changes: object) -> World:
    """A world where the first batch asks for a retraining."""
    world = World(policies={"recommender": policy(**changes)})
    world.analyst.drift_share = 1.0
    world.inbox.send(body(batch(1)))
    return world


async def test_a_batch_that_drifts_starts_an_execution() -> None:
    world = drifting()
    async with House(world).alive():
        await until(lambda: bool(world.engine.started), within=timedelta(seconds=2))
        await asyncio.sleep(1)
    execution = await world.execution()
    assert execution.status is Status.RUNNING
    assert list(world.engine.started) == [execution.name]
    assert (await world.ledger.counts())["effects_owed"] == 0


async def test_a_start_whose_reply_was_lost_is_adopted_and_not_started_twice() -> None:
    world = drifting()
    world.engine.replies_lost = 2
    async with House(world).alive():
        await until(lambda: world.engine.asked.total() >= 3)
        await asyncio.sleep(1)
    assert len(world.engine.started) == 1
    newest = (await world.ledger.decisions("recommender", limit=1))[0]
    assert (newest.reason, newest.detail.endswith("adopted")) == (Reason.EXECUTION_STARTED, True)


async def test_a_throttle_outage_of_hours_loses_no_start() -> None:
    world = drifting()
    world.engine.throttled = True
    async with House(world).alive():
        await asyncio.sleep(2 * 3600)
        assert world.inbox.bodies == [], "the message was not kept waiting for it"
        assert (await world.execution()).status is Status.PLANNED
        assert world.engine.asked.total() > 2 * 60
        world.engine.throttled = False
        await until(lambda: bool(world.engine.started), within=timedelta(minutes=2))
        await asyncio.sleep(1)
    assert (await world.execution()).status is Status.RUNNING


async def test_a_start_refused_for_good_becomes_an_event_and_another_attempt() -> None:
    world = drifting()
    world.engine.refuses = "AccessDeniedException"
    async with House(world).alive():
        await until(lambda: len(world.engine.asked) == 2)
        await asyncio.sleep(1)
    reasons = await world.reasons()
    assert reasons[-1] is Reason.EXECUTION_FAILED
    assert (await world.state()).execution is None
    assert all(count == 1 for count in world.engine.asked.values())


async def test_a_measurement_that_keeps_failing_is_given_up_and_asked_again_later() -> None:
    world = World()
    world.inbox.send(body(batch(1)))
    world.analyst.errors = [TransientError("worker lost")] * TRIES_MAX
    async with House(world).alive():
        await until(lambda: world.analyst.measured.total() > TRIES_MAX)
        await asyncio.sleep(1)
    assert await world.reasons() == [
        Reason.MEASURING,
        Reason.EVIDENCE_FAILED,
        Reason.MEASURING,
        Reason.NOTHING_MET,
    ]


async def test_a_measurement_that_cannot_succeed_is_tried_once() -> None:
    world = World()
    world.inbox.send(body(batch(1)))
    world.analyst.errors = [PermanentError("no such column")]
    async with House(world).alive():
        await until(lambda: world.analyst.measured.total() == 1)
        await asyncio.sleep(1)
        newest = (await world.ledger.decisions("recommender", limit=1))[0]
    assert (newest.reason, newest.detail) == (Reason.EVIDENCE_FAILED, "no such column")


async def test_a_defect_of_an_adapter_loses_no_effect() -> None:
    world = World()
    world.inbox.send(body(batch(1)))
    world.analyst.errors = [KeyError("a defect")]
    async with House(world).alive():
        await until(lambda: world.analyst.measured.total() == 2)
    assert ("carry_out", "'a defect'") in world.telemetry.failures
    assert (await world.reasons())[-1] is Reason.NOTHING_MET


async def test_work_longer_than_the_lease_is_done_once_by_two_replicas() -> None:
    world = World()
    world.inbox.send(body(batch(1)))
    world.analyst.seconds = 10 * LEASE_SECONDS
    ahead = LoopClock(skew=timedelta(seconds=5))
    async with House(world).alive(), House(world, clock=ahead).alive():
        await until(lambda: world.analyst.measured.total() == 1)
        await asyncio.sleep(2 * LEASE_SECONDS)
    assert world.analyst.begun.total() == 1


async def test_slow_measurements_do_not_keep_a_start_waiting() -> None:
    slow = {f"m{i}": policy(f"m{i}") for i in range(40)}
    world = drifting()
    world.policies.update(slow)
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
        world.engine.throttled = True
        world.analyst.seconds = 1000.0
        world.inbox.send(*(body(batch(1, model)) for model in slow))
        await until(lambda: world.analyst.begun.total() >= 40)
        world.engine.throttled = False
        await until(lambda: bool(world.engine.started), within=timedelta(minutes=2))


async def test_a_persons_answer_reaches_the_execution_also_through_an_outage() -> None:
    world = drifting(approval="manual")
    async with House(world).alive() as house:
        await until(lambda: bool(world.engine.started))
        name = next(iter(world.engine.started))
        world.inbox.send(body(ApprovalRequested(execution=name, task_token="secret"), "recommender"))
        await until(lambda: not world.inbox.bodies)
        world.engine.throttled = True
        answer = ApprovalAnswered(request="r1", execution=name, approved=True, by="ann")
        await house.loop.take("recommender", answer)
        await asyncio.sleep(3600)
        world.engine.throttled = False
        await until(lambda: world.engine.answers == {name: True}, within=timedelta(minutes=2))


async def test_effects_of_a_model_without_a_policy_wait_for_it() -> None:
    world = drifting()
    world.engine.throttled = True
    async with House(world).alive():
        await until(lambda: world.engine.asked.total() > 0)
        gone = world.policies.pop("recommender")
        world.engine.throttled = False
        await asyncio.sleep(600)
        assert world.engine.started == {}
        assert (world.telemetry.effects[-1][1]) == "recommender has no policy"
        world.policies["recommender"] = gone
        await until(lambda: bool(world.engine.started), within=timedelta(minutes=2))


async def test_at_a_drain_the_start_in_hand_is_finished_and_the_measurement_given_back() -> None:
    class SlowEngine(MemoryEngine):
        async def start(self, effect: StartExecution) -> tuple[str, bool]:
            await asyncio.sleep(40)  # the intake, with its long poll, has ended before
            return await super().start(effect)

    world = World(engine=SlowEngine(), policies={"recommender": policy(), "other": policy("other")})
    world.analyst.drift_share = 1.0
    world.inbox.send(body(batch(1)))
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
        await asyncio.sleep(1)
        world.analyst.seconds = 1000.0
        world.inbox.send(body(batch(1, "other")))
        await until(lambda: world.analyst.begun.total() == 2)
    assert (await world.execution()).status is Status.RUNNING
    owed = await world.ledger.owed(LoopClock().now(), limit=9, lease_seconds=1)
    assert [o.model for o in owed] == ["other"], "nobody has to wait for a dead lease"


async def test_a_start_planned_too_long_ago_expires_and_another_attempt_is_made() -> None:
    world = drifting()
    world.engine.throttled = True
    async with House(world).alive(drain_seconds=0.0):
        await until(lambda: world.engine.asked.total() > 0)
    stale = await world.execution()
    world.engine.throttled = False
    late = LoopClock(skew=START_WITHIN + timedelta(hours=1))
    async with House(world, clock=late).alive():
        await until(lambda: bool(world.engine.started), within=timedelta(minutes=5))
        await asyncio.sleep(1)
    failed = [d for d in await world.ledger.decisions("recommender", limit=9) if d.event_kind == "EffectFailed"]
    assert "expired: planned 30 days ago and never started" in failed[0].detail
    assert stale.name not in world.engine.started
    assert (await world.execution()).generation == stale.generation + 1


async def test_a_start_planned_long_ago_that_took_effect_is_adopted() -> None:
    world = drifting()
    world.engine.replies_lost = 1
    async with House(world).alive(drain_seconds=0.0):
        await until(lambda: bool(world.engine.started))
    name = (await world.execution()).name
    async with House(world, clock=LoopClock(skew=START_WITHIN + timedelta(hours=1))).alive():
        await asyncio.sleep(60)
    assert list(world.engine.started) == [name]
    assert (await world.execution()).status is Status.RUNNING


async def test_what_a_replica_decided_it_carries_out_without_asking_the_ledger() -> None:
    class WitnessLedger(MemoryLedger):
        found = 0

        async def owed(self, now: datetime, *, limit: int, lease_seconds: float) -> Sequence[Owed]:
            claimed = await super().owed(now, limit=limit, lease_seconds=lease_seconds)
            self.found += len(claimed)
            return claimed

    world = drifting()
    world.ledger = ledger = WitnessLedger()
    async with House(world).alive(), House(world, seed=1).alive():
        await until(lambda: bool(world.engine.started))
        await asyncio.sleep(1)
    assert ledger.found == 0


async def test_what_a_dead_replica_kept_to_itself_is_carried_out_within_a_lease() -> None:
    world = World()
    dead = House(world)
    assert await dead.loop.take("recommender", batch(1))
    began = asyncio.get_running_loop().time()
    async with House(world, seed=1).alive():
        await until(lambda: world.analyst.measured.total() == 1)
    assert LEASE_SECONDS - 1 <= asyncio.get_running_loop().time() - began <= LEASE_SECONDS + 25
