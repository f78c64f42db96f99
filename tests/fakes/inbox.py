"""A queue with long polls, visibility time-outs, at-least-once delivery and a dead-letter queue, on the loop's time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from retrainer.ports import Message, TransientError
from tests.fakes.clock import START

POLL_SECONDS = 20.0
VISIBILITY_SECONDS = 60.0


@dataclass
class _Held:
    body: str
    visible_at: float
    receives: int = 0


class MemoryInbox:
    """One queue. `fail` names the methods that raise TransientError until the name is taken out again."""

    def __init__(self, *, receives_max: int = 10) -> None:
        self.dead: list[tuple[str, str]] = []
        """(body, why) of the dead-letter queue."""
        self.fail: set[str] = set()
        self.polls_cancelled = 0
        self._held: dict[str, _Held] = {}
        self._receives_max = receives_max
        self._sent = 0
        self._arrived = asyncio.Event()

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self._sent += 1
            self._held[f"m{self._sent}"] = _Held(body=body, visible_at=0.0)
        self._arrived.set()

    @property
    def bodies(self) -> list[str]:
        """What has not been acknowledged, visible or not."""
        return [held.body for held in self._held.values()]

    @property
    def receives(self) -> list[int]:
        """How often each of them was received."""
        return [held.receives for held in self._held.values()]

    async def receive(self) -> Sequence[Message]:
        self._may("receive")
        until = asyncio.get_running_loop().time() + POLL_SECONDS
        try:
            while not (taken := self._take()) and asyncio.get_running_loop().time() < until:
                await self._something(until)
        except asyncio.CancelledError:
            self.polls_cancelled += 1
            raise
        return taken

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        self._may("acknowledge")
        for message in messages:
            self._held.pop(message.id, None)

    async def refuse(self, message: Message, why: str) -> None:
        self._may("refuse")
        self.dead.append((message.body, why))
        self._held.pop(message.id, None)

    async def release(self, messages: Sequence[Message]) -> None:
        self._may("release")
        for message in messages:
            if message.id in self._held:
                self._held[message.id].visible_at = 0.0
        self._arrived.set()

    async def keep(self, messages: Sequence[Message]) -> None:
        self._may("keep")
        for message in messages:
            if message.id in self._held:
                self._held[message.id].visible_at = asyncio.get_running_loop().time() + VISIBILITY_SECONDS

    def _may(self, method: str) -> None:
        if method in self.fail:
            raise TransientError(f"{method} is throttled")

    def _take(self) -> list[Message]:
        now = asyncio.get_running_loop().time()
        taken = []
        for name, held in [(n, h) for n, h in self._held.items() if h.visible_at <= now][:10]:
            held.receives += 1
            if held.receives > self._receives_max:
                self.dead.append((held.body, "received too often"))
                del self._held[name]
                continue
            held.visible_at = now + VISIBILITY_SECONDS
            at = START + timedelta(seconds=now)
            taken.append(Message(id=name, body=held.body, receipt=name, queue="events", received_at=at))
        return taken

    async def _something(self, until: float) -> None:
        """Wait for a message, a visibility time-out, or the end of the poll."""
        self._arrived.clear()
        moments = [until, *(held.visible_at for held in self._held.values())]
        try:
            async with asyncio.timeout_at(min(moments)):
                await self._arrived.wait()
        except TimeoutError:
            return
