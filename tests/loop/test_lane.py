"""One model's order of events, also where two replicas decide on it."""

import asyncio
from collections.abc import Sequence

import pytest

from retrainer.core.events import EffectFailed
from retrainer.core.reason import Reason
from retrainer.loop import CONFLICTS_MAX, NoPolicyError
from retrainer.ports import Committed, Entry, PermanentError, TransientError
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
        async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
            return [Committed.CONFLICT for _ in entries]

    world = World(ledger=ContendedLedger())
    with pytest.raises(TransientError, match=f"{CONFLICTS_MAX} times in a row"):
        await House(world).loop.take("recommender", batch(1))


class SlowLedger(MemoryLedger):
    """Takes a second to commit; remembers what came together."""

    def __init__(self) -> None:
        super().__init__()
        self.chains: list[list[str]] = []

    async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
        await asyncio.sleep(1.0)
        self.chains.append([e.event.identity for e in entries])
        return await super().commit(entries)


async def test_models_are_decided_side_by_side_and_one_model_in_order() -> None:
    models = [f"m{i}" for i in range(20)]
    world = World(ledger=SlowLedger(), policies={m: policy(m) for m in models})
    loop = House(world).loop
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(loop.take(m, batch(n, m)) for n in (1, 2, 3) for m in models))
    assert asyncio.get_running_loop().time() - started == pytest.approx(1.0)
    for model in models:
        keys = [b.key for b in (await world.state(model)).window]
        assert keys == [batch(n, model).key for n in (1, 2, 3)]


async def test_what_comes_while_a_commit_lasts_is_committed_together_after_it() -> None:
    world = World(ledger=(ledger := SlowLedger()))
    loop = House(world).loop
    first = asyncio.create_task(loop.take("recommender", batch(0)))
    await asyncio.sleep(0.5)
    rest = await asyncio.gather(*(loop.take("recommender", batch(n)) for n in range(1, 8)))
    assert (await first, [len(c) for c in ledger.chains]) == (await first, [1, 7])
    assert [d.state.version for d in rest if d] == list(range(2, 9))


async def test_one_fact_many_times_in_a_chain_is_decided_once_and_breaks_nothing() -> None:
    world = World(ledger=(ledger := SlowLedger()))
    loop = House(world).loop
    await loop.take("recommender", batch(1))
    told = [batch(n) for n in (1, 2, 2, 3, 1, 3, 2, 4)]
    answers = await asyncio.gather(*(loop.take("recommender", event) for event in told))
    assert [bool(a) for a in answers] == [False, True, False, True, False, False, False, True]
    assert [len(c) for c in ledger.chains] == [1, 3]
    assert Committed.CONFLICT not in [c for _, c in world.telemetry.entries]


async def test_a_fact_known_from_another_replica_does_not_have_the_rest_decided_twice() -> None:
    world = World(ledger=(ledger := SlowLedger()))
    await House(world).loop.take("recommender", batch(2))
    loop = House(world).loop
    answers = await asyncio.gather(*(loop.take("recommender", batch(n)) for n in (1, 2, 3)))
    assert [bool(a) for a in answers] == [True, False, True]
    assert len(ledger.chains[1]) == 2


async def test_an_answer_that_is_known_still_completes_its_effect() -> None:
    world = World()
    house = House(world)
    decided = await house.loop.take("recommender", batch(1))
    assert decided
    (effect,) = decided.effects
    answer = EffectFailed(effect=effect.key, kind="MeasureEvidence", why="no such column")
    assert await house.loop.take("recommender", answer)
    assert (await world.ledger.counts())["effects_owed"] == 1
    answers = await asyncio.gather(
        house.loop.take("recommender", answer, completes=effect.key), house.loop.take("recommender", batch(2))
    )
    assert [bool(a) for a in answers] == [False, True]
    assert (await world.ledger.decision(decided.id)).effects[0][2] == "failed"  # type: ignore[union-attr]


async def test_an_event_that_the_ledger_forbids_takes_nobody_with_it() -> None:
    class Forbids(MemoryLedger):
        async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
            if any(e.event == batch(2) for e in entries):
                raise PermanentError("the ledger forbids it")
            return await super().commit(entries)

    world = World(ledger=Forbids())
    loop = House(world).loop
    takes = (loop.take("recommender", batch(n)) for n in (1, 2, 3))
    answers = await asyncio.gather(*takes, return_exceptions=True)
    assert [type(a).__name__ for a in answers] == ["Decision", "PermanentError", "Decision"]
    assert [b.key for b in (await world.state()).window] == [batch(n).key for n in (1, 3)]


async def test_whoever_stops_waiting_takes_nobody_with_him() -> None:
    world = World(ledger=SlowLedger())
    loop = House(world).loop
    takes = [asyncio.create_task(loop.take("recommender", batch(n))) for n in (1, 2, 3)]
    await asyncio.sleep(0.5)
    takes[0].cancel()
    answers = await asyncio.gather(*takes, return_exceptions=True)
    assert [type(a).__name__ for a in answers] == ["CancelledError", "Decision", "Decision"]
    assert (await world.state()).version == 3


async def test_without_a_policy_nothing_is_decided_and_nothing_forgotten() -> None:
    world = World(policies={})
    loop = House(world).loop
    with pytest.raises(NoPolicyError, match="recommender has no policy"):
        await loop.take("recommender", batch(1))
    world.policies["recommender"] = policy()
    assert await loop.take("recommender", batch(1))
