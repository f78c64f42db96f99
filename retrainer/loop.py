"""The loop: take an event, decide, commit, and only then acknowledge the message that brought it.

What is to be done about a decision is not done here: it is committed with it, and the outbox carries it out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from random import Random

from retrainer.core.decide import Decision, decide
from retrainer.core.events import AlarmChanged, Event, ObjectCreated
from retrainer.core.policy import Policy
from retrainer.core.state import ModelState
from retrainer.pacing import backoff_seconds, pause
from retrainer.ports import (
    Clock,
    Committed,
    Entry,
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

Policies = Callable[[], Mapping[str, tuple[Policy, str]]]
"""The policies of this moment, each with the hash of its text, by model; called anew for every event."""

CONFLICTS_MAX = 20
"""How often in a row another replica may be first with a model before the event is given back."""

BACKOFF_CAP_SECONDS = 20.0
HOLD_SECONDS = 600.0
"""How long a poller holds what cannot be committed, trying again and receiving nothing, before it lets it go.

Giving it back at once would spend the queue's maxReceiveCount in seconds, and an outage of the ledger would move good
messages to the dead-letter queue. Held, they are received once in ten minutes at the most.
"""


class NoPolicyError(TransientError):
    """The model has no policy now; what concerns it waits until it has one again."""


class Fate(StrEnum):
    """What is to be done with a message after it was handled.

    REFUSED: nothing, it is acknowledged already. HOLD: it is handled again before anything else is received.
    LEAVE: nothing, it is delivered again when its visibility time-out ends; at once would be a busy loop.
    """

    ACKNOWLEDGE = "acknowledge"
    REFUSED = "refused"
    HOLD = "hold"
    LEAVE = "leave"


@dataclass(slots=True)
class _Lane:
    """One model's order of events. `state` is None where the ledger has to be asked."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    state: ModelState | None = None


class Loop:
    """The one way from an event to a durable decision, for every model and from every source.

    `executions_moved`, `effects_owed` and `wake_moved` are set when the observer, the outbox and the timers have reason
    to look before their interval is over; each clears its own.
    """

    def __init__(
        self,
        *,
        policies: Policies,
        ledger: Ledger,
        parser: Parser,
        clock: Clock,
        telemetry: Telemetry,
        random: Random | None = None,
    ) -> None:
        self._policies = policies
        self._ledger = ledger
        self._parser = parser
        self._clock = clock
        self._telemetry = telemetry
        self._random = random or Random()  # noqa: S311 - it spreads retries, it guards nothing
        self._lanes: dict[str, _Lane] = {}
        self.executions_moved = asyncio.Event()
        self.effects_owed = asyncio.Event()
        self.wake_moved = asyncio.Event()
        self.last_poll_at: dict[str, datetime] = {}
        """When each queue's poller last came round, whether or not AWS or the ledger answered it."""

    async def poll(self, inbox: Inbox, stopping: asyncio.Event, *, queue: str) -> None:
        """Receive and handle until `stopping` is set; no error ends it.

        A receive in flight is never cancelled: SQS would count its messages as received, and nobody would have them.
        """
        failures = 0
        while not stopping.is_set():
            try:
                messages = await inbox.receive()
                await self._handle_all(messages, inbox, stopping, queue)
                failures = 0
            except Exception as error:  # a poller that ends silently is the worst of errors
                failures += 1
                self._telemetry.failed("poll", error)
                await pause(stopping, self._backoff(failures))
            finally:
                self.last_poll_at[queue] = self._clock.now()

    async def _handle_all(self, messages: Sequence[Message], inbox: Inbox, stopping: asyncio.Event, queue: str) -> None:
        """Handle what one receive brought: together, so that the ledger can commit together, until nothing is held."""
        held: Sequence[Message] = messages
        until = asyncio.get_running_loop().time() + HOLD_SECONDS
        tries = 0
        while held:
            fates = await asyncio.gather(*(self.handle(m, inbox) for m in held))
            by_fate = {fate: [m for m, f in zip(held, fates, strict=True) if f is fate] for fate in Fate}
            if done := by_fate[Fate.ACKNOWLEDGE]:
                await self._told(inbox.acknowledge(done), "acknowledge")
            held = by_fate[Fate.HOLD]
            self.last_poll_at[queue] = self._clock.now()
            if held:
                tries += 1
                if await pause(stopping, self._backoff(tries)):
                    await self._told(inbox.release(held), "release")
                    return
                if asyncio.get_running_loop().time() >= until:
                    return

    async def handle(self, message: Message, inbox: Inbox) -> Fate:
        """Parse, decide and commit; says whether the message may now be acknowledged. Raises nothing."""
        try:
            parsed = self._parser.parse(message.body)
            return await self._handle(message, parsed, inbox)
        except TransientError as error:
            self._telemetry.failed("handle", error)
            return Fate.HOLD
        except Exception as error:  # the queue's own dead-letter rule ends what fails for ever
            self._telemetry.failed("handle", error)
            return Fate.LEAVE

    async def _handle(self, message: Message, parsed: Parsed, inbox: Inbox) -> Fate:
        match parsed.verdict:
            case Verdict.MALFORMED | Verdict.FOREIGN:
                return await self._refuse(message, parsed, inbox)
            case Verdict.WAKE:
                self.executions_moved.set()
                self._received(message, parsed, Verdict.WAKE)
            case Verdict.IGNORED:
                self._received(message, parsed, Verdict.IGNORED, parsed.why)
            case Verdict.EVENT:
                await self._take_all(message, parsed)
        return Fate.ACKNOWLEDGE

    async def _refuse(self, message: Message, parsed: Parsed, inbox: Inbox) -> Fate:
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
            await inbox.refuse(message, parsed.why)
        except TransientError as error:
            # Not held: a stranger's message must not keep a poller from receiving.
            self._telemetry.failed("refuse", error)
            return Fate.LEAVE
        self._received(message, parsed, parsed.verdict, parsed.why)
        return Fate.REFUSED

    async def _take_all(self, message: Message, parsed: Parsed) -> None:
        """Every event into the lane of every model it concerns; raises the first error when all have been tried."""
        policies = self._policies()
        concerned = [(m, event) for model, event in parsed.events for m in concerns(policies, model, event)]
        if not concerned:
            self._received(message, parsed, Verdict.IGNORED, "not watched")
            return
        answers = await asyncio.gather(*(self.take(m, event) for m, event in concerned), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        self._received(message, parsed, Verdict.EVENT)

    async def take(self, model: str, event: Event, completes: str | None = None) -> Decision | None:
        """Decide on an event and commit it; returns the decision once it is durable, None if the event was known.

        `completes` names the effect that the event answers; it is marked done also where the event was known.
        Raises TransientError: whether it was committed is then open, and taking it again is harmless.
        """
        lane = self._lanes.setdefault(model, _Lane())
        async with lane.lock:
            for _ in range(CONFLICTS_MAX):
                committed, decision = await self._decide(lane, model, event, completes)
                if committed is Committed.NEW:
                    return decision
                if committed is Committed.DUPLICATE:
                    return None
        raise TransientError(f"{model}: another replica was first {CONFLICTS_MAX} times in a row")

    async def _decide(self, lane: _Lane, model: str, event: Event, completes: str | None) -> tuple[Committed, Decision]:
        started = asyncio.get_running_loop().time()
        policy, policy_hash = self._policy(model)
        before = lane.state or await self._ledger.state(model)
        # Forgotten until the commit has answered: after an error or a conflict the ledger is asked again.
        lane.state = None
        now = self._clock.now()
        decision = decide(policy, before, event, now)
        entry = Entry(
            model=model,
            event=event,
            now=now,
            decision=decision,
            policy_hash=policy_hash,
            state_before=before,
            completes=completes,
        )
        committed = await self._ledger.commit(entry)
        self._telemetry.decided(entry, committed, asyncio.get_running_loop().time() - started)
        if committed is not Committed.CONFLICT:
            lane.state = decision.state if committed is Committed.NEW else before
        if committed is Committed.NEW:
            self._poke(before, decision)
        return committed, decision

    async def _told(self, call: Awaitable[None], what: str) -> None:
        """What fails here is delivered again by the queue, so telling it is enough."""
        try:
            await call
        except TransientError as error:
            self._telemetry.failed(what, error)

    def _poke(self, before: ModelState, decision: Decision) -> None:
        if decision.effects:
            self.effects_owed.set()
        if decision.state.wake_at != before.wake_at:
            self.wake_moved.set()

    def _policy(self, model: str) -> tuple[Policy, str]:
        found = self._policies().get(model)
        if found is None:
            raise NoPolicyError(f"{model} has no policy")
        return found

    def _received(self, message: Message, parsed: Parsed, verdict: Verdict, why: str = "") -> None:
        self._telemetry.received(message.queue, parsed.kind, verdict, why)

    def _backoff(self, tries: int) -> float:
        return backoff_seconds(tries, cap_seconds=BACKOFF_CAP_SECONDS, random=self._random)


def concerns(policies: Mapping[str, tuple[Policy, str]], model: str | None, event: Event) -> Iterable[str]:
    """The models whose lanes an event goes to: the one it names, else those whose policy watches what it tells of."""
    if model is not None:
        return (model,) if model in policies else ()
    match event:
        case ObjectCreated():
            return tuple(m for m, (policy, _) in policies.items() if _watches(policy, event))
        case AlarmChanged():
            return tuple(m for m, (policy, _) in policies.items() if event.alarm in policy.triggers.alarms)
        case _:
            return ()


def _watches(policy: Policy, event: ObjectCreated) -> bool:
    data = policy.data
    prefixes = (data.prefix, data.predictions.prefix) if data.predictions else (data.prefix,)
    return event.bucket == data.bucket and event.key.startswith(prefixes)
