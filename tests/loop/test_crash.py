"""A crash before or after a port call, and another process on the same ledger: nothing lost, nothing twice."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import pytest

from retrainer.core.events import ApprovalAnswered, ApprovalRequested, Event, RetrainingRequested
from retrainer.core.execution import Status
from retrainer.core.reason import Reason
from tests.fakes.clock import LoopClock
from tests.fakes.crash import CrashPoints
from tests.fakes.inbox import MemoryInbox
from tests.fakes.parser import body
from tests.loop.house import HandSchedules, House, World, batch, policy

pytestmark = pytest.mark.looptime

SEEDS = 4
"""Each seed is another history, and takes its share of the crash points."""

BATCHES = 3
FIRES_AFTER = (20, 70)


@dataclass
class History:
    """A world with a hostile queue, and what was sent into it."""

    world: World
    sent: list[Event] = field(default_factory=list)


def history(seed: int) -> History:
    """Batches that drift, a request by hand, a schedule and approvals by a person; doubled and in any order."""
    random = Random(seed)  # noqa: S311 - the same seed, the same history
    strict = policy(
        triggers={"drift": {"share": 0.5}, "schedules": [{"name": "often", "cron": "* * * * *"}]},
        guards={"cooldown": "10s"},
        approval="manual",
    )
    made_up = History(
        World(
            policies={"recommender": strict},
            inbox=MemoryInbox(receives_max=1000),
            schedules=HandSchedules([LoopClock().now() + timedelta(seconds=s) for s in FIRES_AFTER]),
        )
    )
    made_up.world.analyst.drift_share = 1.0
    made_up.world.engine.replies_lost = seed % 2
    made_up.sent = [
        *(batch(n) for n in range(BATCHES)),
        RetrainingRequested(request="r1", by="ann", why="a new label"),
    ]
    bodies = [body(event, "recommender") for event in made_up.sent for _ in range(random.choice((1, 1, 2)))]
    random.shuffle(bodies)
    made_up.world.inbox.send(*bodies)
    return made_up


async def outside(made_up: History) -> None:
    """What happens at AWS and among people, whether or not the daemon runs."""
    world, answered = made_up.world, set[str]()
    while True:
        for name in world.engine.started.keys() - answered:
            answered.add(name)
            request = ApprovalRequested(execution=name, task_token=f"token of {name}")
            made_up.sent.append(request)
            world.inbox.send(body(request, "recommender"))
        for decision in await world.ledger.decisions("recommender", limit=1000):
            name = json.loads(decision.event).get("execution")
            if decision.reason == Reason.APPROVAL_REQUESTED and f"answer to {name}" not in answered:
                answered.add(f"answer to {name}")
                answer = ApprovalAnswered(request=f"answer to {name}", execution=name, approved=True, by="ann")
                made_up.sent.append(answer)
                world.inbox.send(body(answer, "recommender"))
        for name in world.engine.answers.keys() - world.engine.ends.keys():
            world.engine.promote(name)
        await asyncio.sleep(2)


async def lived_through(seed: int, points: CrashPoints) -> History:
    """The history, with a first process that crashes, and a second one that does not."""
    made_up = history(seed)
    goes_on = asyncio.create_task(outside(made_up))
    first = House(made_up.world, points, seed=seed)
    async with first.alive(drain_seconds=0.0):
        try:
            async with asyncio.timeout(90):
                await points.dead.wait()
        except TimeoutError:
            pass
    async with House(made_up.world, seed=seed + 1).alive():
        await asyncio.sleep(150)
    goes_on.cancel()
    return made_up


async def check(made_up: History, told: str) -> None:
    world = made_up.world
    decisions = await world.ledger.decisions("recommender", limit=1000)
    state = await world.state()
    identities = Counter(d.event_identity for d in decisions)
    assert max(identities.values()) == 1, told
    assert sorted(d.id for d in decisions) == sorted(f"recommender-{n + 1}" for n in range(len(decisions))), told
    lost = {event.identity for event in made_up.sent} - identities.keys()
    assert not lost, f"{told}: {lost}"
    fires = [name for name in identities if name.startswith("schedule:often@")]
    assert len(fires) == len(FIRES_AFTER), f"{told}: {fires}"
    assert world.inbox.bodies == [], told
    assert world.inbox.dead == [], told
    assert (await world.ledger.counts())["effects_owed"] == 0, told
    planned = [d.detail.split(";")[0] for d in decisions if d.reason == Reason.RETRAINING]
    assert sorted(planned) == sorted(world.engine.started), f"{told}: {planned}"
    assert state.execution is None, told
    fired = " ".join(d.detail for d in decisions if d.reason == Reason.RETRAINING)
    kept = " ".join(m.why for m in state.kept)
    newest = f"due at {world.schedules.moments[-1]:%Y-%m-%d %H:%M}"
    for why in ("drift share 1.00", "a new label", newest):
        assert why in fired or why in kept, f"{told}: lost {why}"
    ends = [d for d in decisions if d.event_kind == "ExecutionEnded"]
    assert len(ends) == len(planned), told
    assert all(end.event_identity.endswith(Status.SUCCEEDED) for end in ends), told


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_crash_at_any_port_call_loses_nothing_and_doubles_nothing(seed: int) -> None:
    whole = CrashPoints()
    await check(await lived_through(seed, whole), "no crash")
    chosen = [(at, call, after) for at, call in first_of_each(whole.calls, 3) for after in (False, True)]
    for at, call, after in chosen[seed::SEEDS]:
        lived = await lived_through(seed, CrashPoints(at, after=after))
        await check(lived, f"seed {seed}, died {'after' if after else 'before'} call {at}, {call}")


def first_of_each(calls: list[str], most: int) -> list[tuple[int, str]]:
    """The numbers of the first calls of each method; most calls of a quiet daemon are the same few."""
    seen: Counter[str] = Counter()
    seen_before = []
    for call in calls:
        seen_before.append(seen[call])
        seen[call] += 1
    return [(at, call) for at, (call, n) in enumerate(zip(calls, seen_before, strict=True), start=1) if n < most]


async def test_every_port_that_the_loop_calls_is_crashed() -> None:
    whole = CrashPoints()
    await lived_through(1, whole)
    assert set(whole.calls) == {
        "MemoryInbox.receive",
        "MemoryInbox.acknowledge",
        "MemoryLedger.state",
        "MemoryLedger.commit",
        "MemoryLedger.owed",
        "MemoryLedger.postpone",
        "MemoryLedger.active",
        "MemoryLedger.fire",
        "MemoryEngine.start",
        "MemoryEngine.answer",
        "MemoryEngine.ended",
        "KnowingAnalyst.measure",
        "KnowingAnalyst.publish",
    }
