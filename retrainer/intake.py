"""The intake: long polls, and each message from its receipt to its acknowledgement.

A message is acknowledged when what it tells is durable, refused when it makes no sense, and otherwise held or left.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from random import Random

from retrainer.loop import Loop, Policies
from retrainer.pacing import any_set, backoff_seconds, pause
from retrainer.ports import (
    Clock,
    ConfigError,
    Inbox,
    Ledger,
    Message,
    Parsed,
    Parser,
    Quarantined,
    Telemetry,
    TransientError,
    Verdict,
)
from retrainer.routes import Routes

BATCH = 10
"""A receive that brings so many has most likely left some behind: it is SQS's most."""

BACKOFF_CAP_SECONDS = 20.0
HOLD_SECONDS = 3600.0
"""How long a poller holds what cannot be committed, trying again and receiving nothing, before it lets it go.

Giving it back at once would spend the queue's maxReceiveCount in seconds, and an outage of the ledger would move good
messages to the dead-letter queue. Held and kept from the others, they are received once an hour at the most.
"""

KEEP_EVERY_SECONDS = 20.0
"""How often what is held is kept from the others anew; a third of the minute that lasts."""

UNDONE_MAX = 1000
"""Messages remembered to be acknowledged or given back later; the queue itself brings the others back."""

INSIST_SECONDS = 30.0
"""How long a drain tries to acknowledge and give back what the queue refused to hear of before."""


class Fate(StrEnum):
    """What is to be done with a message after it was handled.

    REFUSED: nothing, it is acknowledged already. HOLD: it is handled again before anything else is received.
    LEAVE: nothing, it is delivered again when its visibility time-out ends, at once would be a busy loop; but a drain
    gives it back.
    """

    ACKNOWLEDGE = "acknowledge"
    REFUSED = "refused"
    HOLD = "hold"
    LEAVE = "leave"


class Intake:
    """Polls one queue. One poller is enough while little comes; as long as receives are full, more join in."""

    def __init__(
        self,
        *,
        loop: Loop,
        inbox: Inbox,
        parser: Parser,
        policies: Policies,
        ledger: Ledger,
        clock: Clock,
        telemetry: Telemetry,
        pollers_max: int = 1,
        random: Random | None = None,
    ) -> None:
        self._loop = loop
        self._inbox = inbox
        self.parser = parser
        """May be replaced at any time, as when a policy brings another bucket."""
        self._policies = policies
        self._routes = Routes(policies())
        self._ledger = ledger
        self._clock = clock
        self._telemetry = telemetry
        self._random = random or Random()  # noqa: S311 - it spreads retries, it guards nothing
        self._pollers_max = pollers_max
        self._wanted = 1
        self._more_wanted = asyncio.Event()
        self._done: dict[str, Message] = {}
        """Handled, and not acknowledged because the queue could not be reached; by id, as are those left."""
        self._left: dict[str, Message] = {}
        self.last_poll_at: dict[int, datetime] = {}
        """When each working poller last came round, whether or not AWS or the ledger answered it."""

    async def poll(self, stopping: asyncio.Event, *, poller: int = 0) -> None:
        """Receive and handle until `stopping` is set; no error ends it. Pollers are numbered from 0.

        A receive in flight is never cancelled: SQS would count its messages as received, and nobody would have them.
        """
        failures = 0
        while not stopping.is_set():
            if poller >= self._wanted:
                self.last_poll_at.pop(poller, None)
                # Rests until more pollers are wanted, or none.
                self._more_wanted.clear()
                await any_set(self._more_wanted, stopping)
                continue
            self.last_poll_at.setdefault(poller, self._clock.now())
            try:
                await self._acknowledge(())
                messages = await self._inbox.receive()
                self._adapt(len(messages))
                await self._handle_all(messages, stopping, poller)
                failures = 0
            except Exception as error:  # a poller that ends silently is the worst of errors
                failures += 1
                self._telemetry.failed("poll", error)
                await pause(stopping, self._backoff(failures))
            finally:
                self.last_poll_at[poller] = self._clock.now()
        await self._leave_nothing()

    def _adapt(self, received: int) -> None:
        """Full receives double the pollers, empty ones take one away."""
        if received >= BATCH:
            self._wanted = min(self._pollers_max, 2 * self._wanted)
            self._more_wanted.set()
        elif received == 0:
            self._wanted = max(1, self._wanted - 1)

    async def _handle_all(self, messages: Sequence[Message], stopping: asyncio.Event, poller: int) -> None:
        """Handle what one receive brought: together, so that the ledger can commit together, until nothing is held."""
        time = asyncio.get_running_loop().time
        until = time() + HOLD_SECONDS
        held: Sequence[Message] = messages
        kept_until = 0.0
        tries = 0
        while held:
            fates = await self.handle(held)
            by_fate = {fate: [m for m, f in zip(held, fates, strict=True) if f is fate] for fate in Fate}
            await self._acknowledge(by_fate[Fate.ACKNOWLEDGE])
            self._leave(by_fate[Fate.LEAVE])
            held = by_fate[Fate.HOLD]
            self.last_poll_at[poller] = self._clock.now()
            if not held:
                return
            if time() >= kept_until and await self._told(self._inbox.keep(held), "keep"):
                kept_until = time() + KEEP_EVERY_SECONDS
            tries += 1
            if await pause(stopping, self._backoff(tries)) or time() >= until:
                self._leave(held)
                return

    async def _acknowledge(self, messages: Sequence[Message]) -> None:
        """These, and those that could not be acknowledged before. Decided is decided: a second delivery is known."""
        self._done.update({m.id: m for m in messages})
        if not self._done:
            return
        done, self._done = self._done, {}
        if not await self._told(self._inbox.acknowledge(list(done.values())), "acknowledge"):
            self._done = dict([*done.items(), *self._done.items()][-UNDONE_MAX:])

    def _leave(self, messages: Sequence[Message]) -> None:
        self._left.update({m.id: m for m in messages})
        while len(self._left) > UNDONE_MAX:
            del self._left[next(iter(self._left))]

    async def _leave_nothing(self) -> None:
        """At a drain: acknowledge what is done and give back what was left, trying for a while."""
        until = asyncio.get_running_loop().time() + INSIST_SECONDS
        tries = 0
        while self._done or self._left:
            await self._acknowledge(())
            left, self._left = self._left, {}
            if left and not await self._told(self._inbox.release(list(left.values())), "release"):
                self._left = left | self._left
            tries += 1
            if asyncio.get_running_loop().time() >= until:
                return
            if self._done or self._left:
                await asyncio.sleep(self._backoff(min(tries, 2)))

    async def handle(self, messages: Sequence[Message]) -> Sequence[Fate]:
        """Parse, decide and commit; says of each message whether it may now be acknowledged. Raises nothing.

        All are begun before the first is waited for, so that the ledger commits them together.
        """
        begun = [self._begin(m) for m in messages]
        return [await self._end(m, *b) for m, b in zip(messages, begun, strict=True)]

    def _begin(self, message: Message) -> tuple[Parsed, Sequence[Awaitable[object]]]:
        """What the message means, and what has to be waited for."""
        parsed = self.parser.parse(message.body)
        match parsed.verdict:
            case Verdict.MALFORMED | Verdict.FOREIGN:
                return parsed, [asyncio.ensure_future(self._refuse(message, parsed))]
            case Verdict.WAKE:
                self._loop.executions_moved.set()
                return parsed, []
            case Verdict.IGNORED:
                return parsed, []
            case Verdict.EVENT:
                return self._offered(parsed)

    def _offered(self, parsed: Parsed) -> tuple[Parsed, Sequence[Awaitable[object]]]:
        """Every event in the lane of every model it concerns."""
        policies = self._policies()
        if policies is not self._routes.policies:
            self._routes = Routes(policies)
        models = self._routes.models
        offered = [self._loop.offer(m, event) for model, event in parsed.events for m in models(model, event)]
        return (parsed, offered) if offered else (replace(parsed, verdict=Verdict.IGNORED, why="not watched"), ())

    async def _end(self, message: Message, parsed: Parsed, begun: Sequence[Awaitable[object]]) -> Fate:
        """Wait for all of it, also where the first fails."""
        fate = Fate.ACKNOWLEDGE
        error: Exception | None = None
        for one in begun:
            try:
                answer = await one
                fate = answer if isinstance(answer, Fate) else fate
            except Exception as failure:
                error = error or failure
        if error is None:
            if fate is not Fate.LEAVE:
                self._telemetry.received(message.queue, parsed.kind, parsed.verdict, parsed.why)
            return fate
        self._telemetry.failed("handle", error)
        # Held: a ledger that is away, or whose password was changed. What fails for ever is ended by the queue's own
        # dead-letter rule.
        return Fate.HOLD if isinstance(error, TransientError | ConfigError) else Fate.LEAVE

    async def _refuse(self, message: Message, parsed: Parsed) -> Fate:
        """Keep it and move it to the dead-letter queue; if that cannot be done now, it stays in its own queue."""
        kept = Quarantined(
            message_id=message.id,
            queue=message.queue,
            received_at=message.received_at,
            why=parsed.why,
            body=message.body,
        )
        await self._ledger.quarantine(kept)
        try:
            await self._inbox.refuse(message, parsed.why)
        except TransientError as error:
            # Not held: a stranger's message must not keep a poller from receiving.
            self._telemetry.failed("refuse", error)
            return Fate.LEAVE
        return Fate.REFUSED

    async def _told(self, call: Awaitable[None], what: str) -> bool:
        """Whether the queue did it."""
        try:
            await call
        except TransientError as error:
            self._telemetry.failed(what, error)
            return False
        return True

    def _backoff(self, tries: int) -> float:
        return backoff_seconds(tries, cap_seconds=BACKOFF_CAP_SECONDS, random=self._random)
