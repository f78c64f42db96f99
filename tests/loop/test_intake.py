"""From a received message to its acknowledgement."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from retrainer.core.events import AlarmChanged, RetrainingRequested
from retrainer.core.reason import Reason
from retrainer.intake import HOLD_SECONDS
from retrainer.ports import Committed, ConfigError, Entry, Message, TransientError, Verdict
from tests.fakes.clock import START
from tests.fakes.inbox import MemoryInbox
from tests.fakes.memory_ledger import MemoryLedger
from tests.fakes.parser import body
from tests.loop.house import House, World, batch, policy, until

pytestmark = pytest.mark.looptime


class FailingLedger(MemoryLedger):
    """Cannot be written to while `away`; `commits_lost` commits take effect without their reply arriving."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.commits_lost = 0

    async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
        if self.away:
            raise TransientError("disk full")
        committed = await super().commit(entries)
        if self.commits_lost:
            self.commits_lost -= 1
            raise TransientError("the connection was closed")
        return committed


async def test_a_message_is_acknowledged_only_when_its_decision_is_in_the_ledger() -> None:
    class WitnessInbox(MemoryInbox):
        async def acknowledge(self, messages: Sequence[Message]) -> None:
            committed.append((await world.ledger.counts())["decisions"])
            await super().acknowledge(messages)

    committed: list[int] = []
    world = World(inbox=WitnessInbox())
    world.inbox.send(body(batch(1)), body(batch(2)))
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
    assert committed[0] >= 2


async def test_what_one_receive_brought_is_acknowledged_together() -> None:
    class CountingInbox(MemoryInbox):
        async def acknowledge(self, messages: Sequence[Message]) -> None:
            sizes.append(len(messages))
            await super().acknowledge(messages)

    sizes: list[int] = []
    world = World(inbox=CountingInbox())
    world.inbox.send(*(body(batch(n)) for n in range(10)))
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
    assert sizes == [10]


async def test_while_the_ledger_is_away_messages_stay_and_none_goes_to_the_dead_letter_queue() -> None:
    ledger = FailingLedger()
    world = World(ledger=ledger, inbox=MemoryInbox(receives_max=3))
    ledger.away = True
    world.inbox.send(*(body(batch(n)) for n in range(25)))
    async with House(world).alive():
        await asyncio.sleep(HOLD_SECONDS - 60)
        assert len(world.inbox.bodies) == 25
        assert sum(world.inbox.receives) == 10, "a poller that cannot commit does not receive"
        ledger.away = False
        await until(lambda: not world.inbox.bodies)
    assert world.inbox.dead == []
    assert len((await world.state()).window) == 25
    assert ("handle", "disk full") in world.telemetry.failures


async def test_a_ledger_that_somebody_has_to_mend_costs_no_message_either() -> None:
    class LockedOut(FailingLedger):
        async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
            if self.away:
                raise ConfigError("password authentication failed")
            return await super().commit(entries)

    world = World(ledger=(ledger := LockedOut()), inbox=MemoryInbox(receives_max=3))
    ledger.away = True
    world.inbox.send(body(batch(1)))
    async with House(world).alive():
        await asyncio.sleep(HOLD_SECONDS - 60)
        ledger.away = False
        await until(lambda: not world.inbox.bodies)
    assert world.inbox.dead == []
    assert len((await world.state()).window) == 1


async def test_what_cannot_be_committed_for_long_is_let_go_so_that_the_rest_gets_its_turn() -> None:
    ledger = FailingLedger()
    world = World(ledger=ledger, inbox=MemoryInbox(receives_max=3))
    ledger.away = True
    world.inbox.send(body(batch(1)))
    async with House(world).alive():
        await asyncio.sleep(HOLD_SECONDS + 60)
        assert world.inbox.receives == [2]


async def test_a_commit_whose_reply_was_lost_is_not_decided_again() -> None:
    ledger = FailingLedger()
    world = World(ledger=ledger)
    ledger.commits_lost = 1
    world.inbox.send(body(batch(1)))
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
    assert (await world.reasons()).count(Reason.MEASURING) == 1


async def test_a_message_delivered_many_times_is_decided_once() -> None:
    world = World()
    world.inbox.send(*[body(batch(1))] * 7)
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
        world.inbox.send(*[body(batch(1))] * 7)
        await until(lambda: not world.inbox.bodies)
    assert (await world.reasons()).count(Reason.MEASURING) == 1
    assert len(world.telemetry.duplicates) == 13


async def test_malformed_and_foreign_messages_go_to_the_dead_letter_queue_with_their_reason() -> None:
    world = World()
    world.inbox.send("{not json", "foreign", body(batch(1)))
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
    assert world.inbox.dead == [
        ("{not json", "not an event: JSONDecodeError"),
        ("foreign", "account 2 is not allowed"),
    ]
    assert (await world.ledger.counts())["quarantine"] == 2
    assert len((await world.state()).window) == 1, "the loop went on"


async def test_a_refusal_that_fails_keeps_the_message_in_its_queue_and_does_not_stop_the_poller() -> None:
    world = World()
    world.inbox.fail.add("refuse")
    world.inbox.send("{not json")
    async with House(world).alive():
        await until(lambda: world.inbox.receives[0] >= 2)
        world.inbox.send(body(batch(1)))
        await until(lambda: len(world.inbox.bodies) == 1)
        world.inbox.fail.clear()
        await until(lambda: not world.inbox.bodies)
    assert world.inbox.dead[0][0] == "{not json"
    assert (await world.ledger.counts())["quarantine"] == 1


async def test_what_nobody_watches_is_counted_and_acknowledged() -> None:
    world = World()
    world.inbox.send(
        "weather",
        body(batch(1, "stranger")),
        body(AlarmChanged(alarm="cpu", state="ALARM", changed_at=START)),
        body(RetrainingRequested(request="r1", by="ann", why="now"), "stranger"),
    )
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
    assert (await world.ledger.counts())["decisions"] == 0
    assert [(verdict, why) for _, verdict, why in world.telemetry.messages] == [
        (Verdict.IGNORED, "not ours"),
        *[(Verdict.IGNORED, "not watched")] * 3,
    ]


async def test_an_event_goes_to_every_model_that_watches_it() -> None:
    told = {"drift": {"share": 0.5, "false_alarms_per_year": None}, "alarms": ["errors"]}
    world = World(policies={m: policy(m, triggers=told) for m in ("one", "two")} | {"three": policy("three")})
    world.inbox.send(
        body(AlarmChanged(alarm="errors", state="ALARM", changed_at=START)),
        body(batch(1, "three", folder="predictions")),
    )
    async with House(world).alive():
        await until(lambda: not world.inbox.bodies)
    assert [m.name for m in (await world.state("one")).kept] == ["errors"]
    assert [m.name for m in (await world.state("two")).kept] == ["errors"]
    three = await world.state("three")
    assert (len(three.kept), len(three.predictions)) == (0, 1)


async def test_a_poll_in_flight_is_not_cancelled_at_the_stop_and_what_it_brings_is_handled() -> None:
    world = World()
    async with House(world).alive() as house:
        await asyncio.sleep(5)
        drained = asyncio.create_task(house.supervisor.drain(100.0))
        await asyncio.sleep(5)
        assert not drained.done(), "the long poll has not ended"
        world.inbox.send(body(batch(1)))
        assert list(await drained) == []
    assert world.inbox.polls_cancelled == 0
    assert world.inbox.bodies == []
    assert len((await world.state()).window) == 1


async def test_what_is_held_at_the_stop_is_visible_to_others_at_once() -> None:
    ledger = FailingLedger()
    world = World(ledger=ledger)
    ledger.away = True
    world.inbox.send(body(batch(1)))
    async with House(world).alive():
        await asyncio.sleep(2)
    ledger.away = False
    assert [m.body for m in await world.inbox.receive()] == [body(batch(1))]


async def test_a_throttled_queue_does_not_end_the_poller() -> None:
    world = World()
    world.inbox.fail.update({"receive", "acknowledge"})
    world.inbox.send(body(batch(1)))
    async with House(world).alive() as house:
        await asyncio.sleep(600)
        polled_at = house.intake.last_poll_at[0]
        assert (START - polled_at).total_seconds() <= 21 - 600, "it still comes round"
        world.inbox.fail.clear()
        await until(lambda: not world.inbox.bodies)
    assert len((await world.state()).window) == 1


async def test_pollers_join_in_while_receives_are_full_and_leave_when_nothing_comes() -> None:
    class CountingInbox(MemoryInbox):
        polling = 0
        most = 0

        async def receive(self) -> Sequence[Message]:
            self.polling += 1
            self.most = max(self.most, self.polling)
            try:
                return await super().receive()
            finally:
                self.polling -= 1

    world = World(inbox=(inbox := CountingInbox()))
    async with House(world, pollers=4).alive() as house:
        await asyncio.sleep(100)
        assert (inbox.most, len(house.intake.last_poll_at)) == (1, 1), "nothing comes, and each poll is paid for"
        inbox.send(*(body(batch(n)) for n in range(200)))
        await until(lambda: not inbox.bodies)
        assert (inbox.most, len(house.intake.last_poll_at)) == (4, 4)
        await asyncio.sleep(200)
        inbox.most = 0
        await asyncio.sleep(100)
        assert (inbox.most, len(house.intake.last_poll_at)) == (1, 1)
    assert inbox.polls_cancelled == 0


async def test_what_is_held_in_an_outage_is_received_by_nobody_else() -> None:
    ledger = FailingLedger()
    world = World(ledger=ledger, inbox=MemoryInbox(receives_max=3))
    ledger.away = True
    world.inbox.send(*(body(batch(n)) for n in range(5)))
    async with House(world).alive(), House(world, seed=1).alive(), House(world, seed=2).alive():
        await asyncio.sleep(HOLD_SECONDS - 60)
        assert world.inbox.receives == [1] * 5
        ledger.away = False
        await until(lambda: not world.inbox.bodies)
    assert world.inbox.dead == []


async def test_what_could_not_be_acknowledged_is_acknowledged_later_and_not_decided_again() -> None:
    world = World()
    world.inbox.fail.add("acknowledge")
    world.inbox.send(*(body(batch(n)) for n in range(5)))
    async with House(world).alive():
        await asyncio.sleep(5)
        world.inbox.fail.clear()
        await until(lambda: not world.inbox.bodies, within=timedelta(seconds=30))
    assert world.telemetry.duplicates == []


async def test_at_a_drain_through_a_throttled_queue_nothing_stays_invisible() -> None:
    world = World()
    world.inbox.fail.update({"acknowledge", "refuse", "release"})
    world.inbox.send(body(batch(1)), "{not json")
    async with House(world).alive() as house:
        await asyncio.sleep(5)
        drained = asyncio.create_task(house.supervisor.drain(100.0))
        await asyncio.sleep(25)
        assert not drained.done()
        world.inbox.fail.clear()
        assert list(await drained) == []
    assert [m.body for m in await world.inbox.receive()] == ["{not json"]
    assert world.inbox.bodies == ["{not json"], "what was decided is acknowledged"


async def test_a_drain_does_not_wait_for_ever_for_a_queue_that_is_away() -> None:
    world = World()
    world.inbox.fail.add("acknowledge")
    world.inbox.send(body(batch(1)))
    async with House(world).alive() as house:
        await asyncio.sleep(5)
        assert list(await house.supervisor.drain(100.0)) == []
