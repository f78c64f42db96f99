"""A seed, lived through: `simulate(seed)` gives what was violated, and the transcript that shows how."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from retrainer.ports import Ledger
from tests.simulation.clockwork import run
from tests.simulation.final import at_rest, check
from tests.simulation.history import MONTH, History, Life, history
from tests.simulation.replica import Replica
from tests.simulation.world import World

PATIENCE_SECONDS = 3600.0
"""How long all may take to come to rest once nothing goes wrong any more."""

REST_SECONDS = 35.0
"""Timers look every 30 seconds: what is at rest for longer stays so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """What became of a seed."""

    seed: int
    violations: Sequence[tuple[str, str]]
    digest: str
    transcript: Sequence[tuple[float, str, str]]
    crashes: frozenset[tuple[str, bool]]
    calls: int = 0

    def told(self) -> str:
        """The transcript, and how to see it again."""
        lines = [f"{at:9.3f} {who:<5} {what}" for at, who, what in self.transcript]
        said = "\n".join(f"{invariant}: {what}" for invariant, what in self.violations)
        return "\n".join((*lines, "", said, f"again: pytest tests/simulation --seed {self.seed}"))


def simulate(seed: int, ledger: Ledger | None = None) -> Lived:
    """Live through the seed's history on virtual time; on a ledger in memory unless another is given."""
    return run(_simulated(history(seed), ledger))


async def _simulated(made_up: History, ledger: Ledger | None) -> Lived:
    world = World(made_up, ledger)
    living = asyncio.create_task(_lived(world))
    broken = asyncio.create_task(world.broken.wait())
    try:
        await asyncio.wait([living, broken], return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            living.result()
    finally:
        await world.end()
    return Lived(
        seed=made_up.seed,
        violations=world.violations,
        digest=world.digest(),
        transcript=world.transcript,
        crashes=frozenset(world.crashes),
    )


async def _lived(world: World) -> None:
    made_up = world.history
    for life in (_sends(world), _asks(world), _changes(world)):
        world.outside(life)
    slots = [asyncio.create_task(_slot(world, n, lives)) for n, lives in enumerate(made_up.lives)]
    await asyncio.gather(*slots)
    world.is_quiet = True
    world.say("world", "quiet")
    replicas = [Replica(world, f"r{n}.z", skew=lives[-1].skew, crash=None) for n, lives in enumerate(made_up.lives)]
    for replica in replicas:
        replica.start()
    if stuck := await _stuck(world):
        world.violate("no lane stuck", stuck)
        return
    await asyncio.gather(*(r.drain() for r in replicas))
    check(world)


async def _stuck(world: World) -> str:
    """What does not come to rest, and stay there; empty when all does."""
    until = world.loop_time() + PATIENCE_SECONDS
    while world.loop_time() < until:
        await asyncio.sleep(REST_SECONDS)
        if not at_rest(world):
            await asyncio.sleep(REST_SECONDS)
            if not at_rest(world):
                return ""
    return at_rest(world)


async def _slot(world: World, number: int, lives: Sequence[Life]) -> None:
    """One replica's processes, one after the other, until the world is quiet."""
    quiet_at = world.history.quiet_at
    sleeps_at = world.history.sleeps_at
    for n, life in enumerate(lives):
        left = (sleeps_at or quiet_at) - world.loop_time()
        if left <= 0:
            break
        replica = Replica(world, f"r{number}.{n}", skew=life.skew, crash=life.crash)
        replica.start()
        alive = await replica.lives(min(life.seconds, left))
        if alive and life.drains and not sleeps_at:
            await replica.drain()
        else:
            replica.kill()
            world.replicas.remove(replica)
        await asyncio.sleep(life.down_seconds)
    if sleeps_at:
        await asyncio.sleep(max(0.0, sleeps_at - world.loop_time()))
        world.say("world", "all sleep for a month")
        world.awake.clear()
        await asyncio.sleep(MONTH.total_seconds())
        world.awake.set()
        replica = Replica(world, f"r{number}.m", skew=lives[0].skew, crash=lives[0].crash)
        replica.start()
        await replica.lives(60.0)
        replica.kill()
        world.replicas.remove(replica)
        return
    await asyncio.sleep(max(0.0, quiet_at - world.loop_time()))


async def _sends(world: World) -> None:
    for sent in world.history.sent:
        await asyncio.sleep(max(0.0, sent.at - world.loop_time()))
        if sent.event:
            world.expect(sent.model, sent.event)
        name = world.queue.send(sent.body, sent.delay)
        if sent.event is None and sent.body not in ("wake", "weather"):
            world.refusable[name] = sent.body


async def _asks(world: World) -> None:
    for asked in world.history.asked:
        await asyncio.sleep(max(0.0, asked.at - world.loop_time()))
        world.outside(world.asks(asked.model, asked.event))


async def _changes(world: World) -> None:
    for at in world.history.changes:
        await asyncio.sleep(max(0.0, at - world.loop_time()))
        world.change_policies()
