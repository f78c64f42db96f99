"""One model's order of events, also where two replicas decide on it."""

import asyncio

import pytest

from retrainer.core.reason import Reason
from retrainer.loop import CONFLICTS_MAX, Loop, NoPolicyError
from retrainer.ports import Committed, Entry, TransientError
from tests.fakes.memory_ledger import MemoryLedger
from tests.loop.house import House, World, batch, policy

pytestmark = pytest.mark.looptime


async def test_a_replica_that_was_second_reloads_and_decides_again() -> None:
    world = World()
    one, two = House(world).loop, House(world).loop
    await one.take("recommender", batch(1))
    await two.take("recommender", batch(2))
    decided = await one.take("recommender", batch(3))
    assert decided
    assert decided.state.version == 3
    assert [b.key for b in decided.state.window] == [batch(n).key for n in (1, 2, 3)]
    assert [c for _, c in world.telemetry.entries] == [
        Committed.NEW,
        Committed.NEW,
        Committed.CONFLICT,
        Committed.NEW,
    ]


async def test_the_same_fact_at_two_replicas_is_decided_once() -> None:
    world = World()
    one, two = House(world).loop, House(world).loop
    answers = await asyncio.gather(one.take("recommender", batch(1)), two.take("recommender", batch(1)))
    assert sum(answer is not None for answer in answers) == 1
    assert await world.reasons() == [Reason.MEASURING]


async def test_endless_conflicts_give_the_event_back() -> None:
    class ContendedLedger(MemoryLedger):
        async def commit(self, entry: Entry) -> Committed:
            return Committed.CONFLICT

    world = World(ledger=ContendedLedger())
    with pytest.raises(TransientError, match=f"{CONFLICTS_MAX} times in a row"):
        await House(world).loop.take("recommender", batch(1))


async def test_models_are_decided_side_by_side_and_one_model_in_order() -> None:
    class SlowLedger(MemoryLedger):
        async def commit(self, entry: Entry) -> Committed:
            await asyncio.sleep(1.0)
            return await super().commit(entry)

    models = [f"m{i}" for i in range(20)]
    world = World(ledger=SlowLedger(), policies={m: policy(m) for m in models})
    loop: Loop = House(world).loop
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(loop.take(m, batch(n, m)) for n in (1, 2, 3) for m in models))
    assert asyncio.get_running_loop().time() - started == pytest.approx(3.0)
    for model in models:
        keys = [b.key for b in (await world.state(model)).window]
        assert keys == [batch(n, model).key for n in (1, 2, 3)]


async def test_without_a_policy_nothing_is_decided_and_nothing_forgotten() -> None:
    world = World(policies={})
    loop = House(world).loop
    with pytest.raises(NoPolicyError, match="recommender has no policy"):
        await loop.take("recommender", batch(1))
    world.policies["recommender"] = policy()
    assert await loop.take("recommender", batch(1))
