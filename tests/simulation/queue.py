"""A queue as SQS is: any order, more than once, invisible for a while, and at last the dead-letter queue."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from retrainer.ports import Message

if TYPE_CHECKING:
    from tests.simulation.world import World

POLL_SECONDS = 20.0
KEEP_SECONDS = 60.0
BATCH = 10


@dataclass(slots=True)
class Held:
    """A message on the queue; `holder` is the process that received it last."""

    id: str
    body: str
    visible_at: float
    receives: int = 0
    receipt: str = ""
    holder: str = ""
    is_orphan: bool = False
    """Nobody ever saw that it was received."""


class Queue:
    """What all replicas receive from. Receives that the world spoiled do not count towards `receives_max`.

    SQS counts them, and so a message can be unlucky; here the fault must be the product's.
    """

    def __init__(self, world: "World", *, visibility: float, receives_max: int) -> None:
        self._world = world
        self._visibility = visibility
        self._receives_max = receives_max
        self._random: Random = world.random
        self._arrived = asyncio.Event()
        self._number = 0
        self.held: dict[str, Held] = {}
        self.dead: list[tuple[str, str, str]] = []
        """(id, body, why)"""

    def send(self, text: str, delay: float = 0.0) -> str:
        self._number += 1
        name = f"m{self._number}"
        self.held[name] = Held(id=name, body=text, visible_at=self._now() + delay)
        self._world.say("queue", f"{name} sent {text[:100]}")
        self._arrived.set()
        return name

    async def receive(self, replica: str) -> Sequence[Message]:
        until = self._now() + POLL_SECONDS
        while not (taken := self._take(replica)) and self._now() < until - 1e-6:
            await self._something(until)
        return taken

    def acknowledge(self, messages: Sequence[Message]) -> None:
        for message in messages:
            held = self.held.get(message.id)
            # A receipt that is not the newest may delete the message or not (SQS, DeleteMessage).
            if held and (held.receipt == message.receipt or self._random.random() < 0.5):
                del self.held[message.id]

    def refuse(self, message: Message, why: str) -> None:
        self.dead.append((message.id, message.body, why))
        self.acknowledge((message,))

    def release(self, messages: Sequence[Message]) -> None:
        for message in messages:
            held = self.held.get(message.id)
            if held and held.receipt == message.receipt:
                held.visible_at = self._now()
        self._arrived.set()

    def keep(self, messages: Sequence[Message]) -> None:
        for message in messages:
            held = self.held.get(message.id)
            if held and held.receipt == message.receipt:
                held.visible_at = self._now() + KEEP_SECONDS

    def orphan(self, replica: str) -> None:
        """A poll was broken off: SQS hands its messages out all the same, and nobody has them."""
        self._take(replica)

    def excuse(self, names: Sequence[str], *, are_orphans: bool = False) -> None:
        """The world spoiled what was received."""
        for held in (self.held[name] for name in names if name in self.held):
            held.receives = max(0, held.receives - 1)
            held.is_orphan = held.is_orphan or are_orphans

    def of(self, replica: str) -> list[str]:
        """What this process has received, and knows of, and nobody can see for that."""
        mine = (h for h in self.held.values() if h.holder == replica and not h.is_orphan)
        return [h.id for h in mine if h.visible_at > self._now()]

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _take(self, replica: str) -> list[Message]:
        now = self._now()
        visible = [h for h in self.held.values() if h.visible_at <= now]
        self._random.shuffle(visible)
        taken = []
        for held in visible[:BATCH]:
            held.receives += 1
            if held.receives > self._receives_max:
                self.dead.append((held.id, held.body, "received too often"))
                self._world.say("queue", f"{held.id} moved to the dead-letter queue")
                del self.held[held.id]
                continue
            held.receipt = f"{held.id}/{self._world.ticket()}"
            held.holder = replica
            held.is_orphan = False
            held.visible_at = now + self._visibility
            if not self._world.is_quiet and self._random.random() < self._world.history.faults.seen_again:
                held.visible_at = now + self._random.uniform(0.0, 5.0)
                self.excuse([held.id])
            at = self._world.history.start + timedelta(seconds=now)
            taken.append(Message(id=held.id, body=held.body, receipt=held.receipt, queue="events", received_at=at))
        return taken

    async def _something(self, until: float) -> None:
        """Wait for a message, a visibility time-out, or the end of the poll."""
        self._arrived.clear()
        moments = [until, *(h.visible_at for h in self.held.values())]
        try:
            async with asyncio.timeout_at(min(moments)):
                await self._arrived.wait()
        except TimeoutError:
            return


class SimInbox:
    """The queue as one process sees it."""

    def __init__(self, queue: Queue, replica: str) -> None:
        self._queue = queue
        self._replica = replica

    async def receive(self) -> Sequence[Message]:
        return await self._queue.receive(self._replica)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        self._queue.acknowledge(messages)

    async def refuse(self, message: Message, why: str) -> None:
        self._queue.refuse(message, why)

    async def keep(self, messages: Sequence[Message]) -> None:
        self._queue.keep(messages)

    async def release(self, messages: Sequence[Message]) -> None:
        self._queue.release(messages)
