"""The loop: take an event, decide, commit; only then is whoever brought it told.

Each model has a lane. What waits in it is decided upon in one chain and committed together, so that a storm costs one
transaction a few hundred events. What is to be done about a decision is not done here: it is committed with it, and
the outbox carries it out.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from retrainer.core.decide import Decision, decide
from retrainer.core.events import Event
from retrainer.core.fleet import ALONE, Fleet
from retrainer.core.policy import Policy
from retrainer.core.state import ModelState
from retrainer.ports import Clock, Committed, Entry, Ledger, Owed, PermanentError, Telemetry, TransientError

Policies = Callable[[], Mapping[str, tuple[Policy, str]]]
"""The policies of this moment, each with the hash of its text, by model; called anew for every chain."""

CONFLICTS_MAX = 20
"""How often in a row another replica may be first with a model before its events are given back."""

CHAIN_MAX = 100
"""Events of one model committed together; a conflict has all of them decided upon again."""

DOUBTS = 20
"""Chains after a duplicate for which the ledger is asked first. A chain that meets a duplicate unasked is decided upon
again from there on; one that asks costs a query."""

RECENT_MAX = 20_000
"""Events remembered as committed, so that a duplicate that comes soon costs the ledger nothing. About 6 MB."""

LEASE_SECONDS = 30.0
"""How long a replica keeps an effect to itself without a sign of life: as long as a crash may delay it."""

LEASED_MAX = 1000
"""Effects of our own that wait for the outbox; one beyond that is found in the ledger when its lease ends."""


class NoPolicyError(TransientError):
    """The model has no policy now; what concerns it waits until it has one again."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    """An event in its lane, and whoever waits for the decision on it."""

    event: Event
    completes: str | None
    answer: asyncio.Future[Decision | None]

    def decided(self, decision: Decision | None) -> None:
        if not self.answer.done():
            self.answer.set_result(decision)

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(slots=True)
class _Lane:
    """One model's order of events. `state` is None where the ledger has to be asked."""

    model: str
    waiting: deque[_Waiting] = field(default_factory=deque)
    state: ModelState | None = None
    doubts: int = DOUBTS
    """For so many chains more it is asked beforehand which events are known; duplicates come in swarms."""
    work: asyncio.Task[None] | None = None


class Loop:
    """The one way from an event to a durable decision, for every model and from every source.

    `executions_moved`, `effects_owed` and `wake_moved` are set when the observer, the outbox and the timers have reason
    to look before their interval is over; each clears its own.
    """

    def __init__(self, *, policies: Policies, ledger: Ledger, clock: Clock, telemetry: Telemetry) -> None:
        self._policies = policies
        self._ledger = ledger
        self._clock = clock
        self._telemetry = telemetry
        self._lanes: dict[str, _Lane] = {}
        self._recent: dict[tuple[str, str], None] = {}
        self.executions_moved = asyncio.Event()
        self.effects_owed = asyncio.Event()
        self.wake_moved = asyncio.Event()
        self.leased: deque[Owed] = deque(maxlen=LEASED_MAX)
        """Effects of decisions made here, leased to this replica; the outbox takes them out."""

    async def take(self, model: str, event: Event, completes: str | None = None) -> Decision | None:
        """Decide on an event and commit it; returns the decision once it is durable, None if the event was known.

        `completes` names the effect that the event answers; it is marked done also where the event was known.
        Raises TransientError: whether it was committed is then open, and taking it again is harmless. Raises
        PermanentError when the ledger forbids what was decided, which is a defect.
        """
        return await self.offer(model, event, completes)

    def offer(self, model: str, event: Event, completes: str | None = None) -> asyncio.Future[Decision | None]:
        """`take` for a caller with many events, who waits for all of them: the answer to come."""
        answer: asyncio.Future[Decision | None] = asyncio.get_running_loop().create_future()
        if completes is None and (model, event.identity) in self._recent:
            self._telemetry.duplicate(model, event)
            answer.set_result(None)
            return answer
        lane = self._lanes.setdefault(model, _Lane(model))
        lane.waiting.append(_Waiting(event=event, completes=completes, answer=answer))
        if lane.work is None:
            lane.work = asyncio.create_task(self._work(lane), name=f"lane {model}")
        return answer

    async def _work(self, lane: _Lane) -> None:
        """Empty the lane. It is not cancelled with whoever waits, who may be one of many."""
        try:
            while lane.waiting:
                chain = [lane.waiting.popleft() for _ in range(min(CHAIN_MAX, len(lane.waiting)))]
                await self._settle(lane, chain)
        finally:
            lane.work = None

    async def _settle(self, lane: _Lane, chain: Sequence[_Waiting]) -> None:
        """Every event of the chain gets its answer: a decision, None, or the error. Raises nothing."""
        left = chain
        conflicts = 0
        try:
            while left and conflicts < CONFLICTS_MAX:
                settled = len(left)
                left = await self._commit(lane, left)
                conflicts = conflicts + 1 if len(left) == settled else 0
        except PermanentError as error:
            lane.state = None
            if len(left) > 1:
                # The ledger forbids one of them; none was committed, and the others have done nothing wrong.
                for waiting in left:
                    await self._settle(lane, [waiting])
            else:
                left[0].failed(error)
            return
        except Exception as error:
            lane.state = None
            for waiting in left:
                waiting.failed(error)
            return
        for waiting in left:
            said = f"{lane.model}: another replica was first {CONFLICTS_MAX} times in a row"
            waiting.failed(TransientError(said))

    async def _commit(self, lane: _Lane, chain: Sequence[_Waiting]) -> Sequence[_Waiting]:
        """Decide on the chain, each event on what the one before leaves; returns what has to be decided upon again."""
        started = asyncio.get_running_loop().time()
        fresh, known, left = await self._sorted(lane, chain)
        for waiting in known:
            # Its decision is not taken, so nothing may be built on it.
            state = lane.state or await self._ledger.state(lane.model)
            (entry,), _ = self._decided([waiting], state, self._policy(lane.model), None)
            await self._ledger.commit([entry])
            waiting.decided(None)
        if not fresh:
            return left
        state = lane.state or await self._ledger.state(lane.model)
        # Forgotten until the commit has answered: after an error or a conflict the ledger is asked again.
        lane.state = None
        ruled = self._policy(lane.model)
        fleet = await self._fleet(ruled[0]) if ruled[0].guards.fleet or ruled[0].guards.after else None
        entries, after = self._decided(fresh, state, ruled, fleet)
        committed = await self._ledger.commit(entries)
        took_seconds = asyncio.get_running_loop().time() - started
        for waiting, entry, verdict in zip(fresh, entries, committed, strict=True):
            self._telemetry.decided(entry, verdict, took_seconds)
            if verdict is Committed.CONFLICT:
                left.append(waiting)
                continue
            self._remember(lane.model, entry.event.identity)
            waiting.decided(entry.decision if verdict is Committed.NEW else None)
            if verdict is Committed.NEW:
                self._hand_over(entry)
            else:
                lane.doubts = DOUBTS
        if all(verdict is Committed.NEW for verdict in committed):
            lane.state = after
        return left

    async def _fleet(self, policy: Policy) -> Fleet:
        """What the other models are at. Who has no policy any more waits for nothing that would ever come."""
        limits = policy.guards.fleet
        period = limits.budget.period if limits and limits.budget else timedelta(0)
        found = await self._ledger.fleet(policy.model, self._clock.now() - period)
        known = self._policies()
        return replace(found, waiting=tuple(model for model in found.waiting if model in known))

    def _decided(
        self, chain: Sequence[_Waiting], state: ModelState, ruled: tuple[Policy, str], fleet: Fleet | None
    ) -> tuple[list[Entry], ModelState]:
        """The chain's entries, each on what the one before leaves, and what the last one leaves."""
        policy, policy_hash = ruled
        entries = []
        for waiting in chain:
            now = self._clock.now()
            decision = decide(policy, state, waiting.event, now, fleet or ALONE)
            entry = Entry(
                model=state.model,
                event=waiting.event,
                now=now,
                decision=decision,
                policy=policy,
                policy_hash=policy_hash,
                state_before=state,
                fleet=fleet,
                completes=waiting.completes,
                leased_until=now + timedelta(seconds=LEASE_SECONDS),
            )
            entries.append(entry)
            state = decision.state
        return entries, state

    async def _sorted(
        self, lane: _Lane, chain: Sequence[_Waiting]
    ) -> tuple[list[_Waiting], list[_Waiting], list[_Waiting]]:
        """The chain as (to be decided upon, known but completing an effect, the same fact again).

        What is known and completes nothing is answered here. A lone event is not looked up: its commit will tell.
        """
        model = lane.model
        identities = {w.event.identity for w in chain}
        known = {i for i in identities if (model, i) in self._recent}
        if lane.doubts and len(identities - known) > 1:
            found = await self._ledger.known(model, identities - known)
            lane.doubts = DOUBTS if found else lane.doubts - 1
            known.update(found)
        fresh: dict[str, _Waiting] = {}
        completing, again = [], []
        for waiting in chain:
            identity = waiting.event.identity
            if identity in known and waiting.completes:
                completing.append(waiting)
            elif identity in known:
                self._telemetry.duplicate(model, waiting.event)
                self._remember(model, identity)
                waiting.decided(None)
            elif identity in fresh:
                again.append(waiting)
            else:
                fresh[identity] = waiting
        return list(fresh.values()), completing, again

    def _remember(self, model: str, identity: str) -> None:
        self._recent[(model, identity)] = None
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]

    def _hand_over(self, entry: Entry) -> None:
        """What the decision asks for goes to the outbox of this replica, and what it moves is looked at soon."""
        decision = entry.decision
        for effect in decision.effects:
            self.leased.append(
                Owed(model=entry.model, effect=effect, decision=decision.id, tries=1, created_at=entry.now)
            )
        if decision.effects:
            self.effects_owed.set()
        if decision.state.wake_at != entry.state_before.wake_at:
            self.wake_moved.set()

    def _policy(self, model: str) -> tuple[Policy, str]:
        found = self._policies().get(model)
        if found is None:
            raise NoPolicyError(f"{model} has no policy")
        return found
