"""The outbox: carries out what decisions ask for, and brings every answer back as an event.

What this replica decided it carries out at once: such effects are committed leased to it. The ledger is asked for the
rest: what was put off, and what a dead replica had in hand. A lease is short and renewed while the work lasts, so that
after a crash another replica, or this one started again, has the effect within one lease, however long the work is.
Should two ever do the same work all the same, the effect's key makes it happen once outside, and its answer's identity
once in the ledger.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random
from typing import assert_never

from retrainer.core.effects import AnswerApproval, MeasureEvidence, PublishReport, StartExecution
from retrainer.core.events import EffectDone, EffectFailed, Event, EvidenceMeasured, ExecutionStarted
from retrainer.core.policy import Policy
from retrainer.loop import LEASE_SECONDS, Loop, Policies
from retrainer.pacing import any_set, backoff_seconds
from retrainer.ports import (
    Analyst,
    Clock,
    ConfigError,
    Engine,
    Ledger,
    Owed,
    PermanentError,
    Telemetry,
    TransientError,
)

IN_HAND_MAX = 64
"""Effects in hand at once. More than there are models that measure at the same time, so that starting never waits."""

EVERY_SECONDS = 5.0
"""How often the ledger is asked: for what was put off, and for the leases of replicas that died."""

BACKOFF_CAP_SECONDS = 60.0
NO_POLICY_SECONDS = 60.0
TRIES_MAX = 5
"""Tries of work that is done on our side. What AWS is asked to do is tried for ever: throttling must lose nothing."""

START_WITHIN = timedelta(days=30)
"""A start owed for longer expires: Step Functions forgets an execution's name 90 days after its end, and from then on
the name would no longer keep the same retraining from being done twice. Far less, for clocks and ends are not ours.
https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
"""


class Outbox:
    """Claims the effects that are due, carries them out side by side, and completes each with its answer."""

    def __init__(
        self,
        *,
        loop: Loop,
        policies: Policies,
        ledger: Ledger,
        engine: Engine,
        analyst: Analyst,
        clock: Clock,
        telemetry: Telemetry,
        random: Random | None = None,
    ) -> None:
        self._loop = loop
        self._policies = policies
        self._ledger = ledger
        self._engine = engine
        self._analyst = analyst
        self._clock = clock
        self._telemetry = telemetry
        self._random = random or Random()  # noqa: S311 - it spreads retries, it guards nothing
        self._in_hand: dict[str, tuple[Owed, asyncio.Task[None]]] = {}
        self._look = True
        """Whether the ledger is to be asked at the next claim."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Carry out until `stopping` is set; then finish what AWS is being told, and give back what is measured."""
        failures = 0
        try:
            while not stopping.is_set():
                self._loop.effects_owed.clear()
                try:
                    await self.claim()
                    failures, wait = 0, EVERY_SECONDS
                except Exception as error:  # whatever keeps the ledger from answering, what is in hand goes on
                    failures += 1
                    self._telemetry.failed("outbox", error)
                    wait = self._backoff(failures)
                if not await any_set(self._loop.effects_owed, stopping, seconds=wait):
                    self._look = True
            await self._finish()
        finally:
            await self._drop(list(self._in_hand.values()))

    async def claim(self) -> int:
        """Begin what is leased to us, and lease more where that is due; returns how many effects were begun.

        Raises TransientError.
        """
        begun = 0
        while self._loop.leased and len(self._in_hand) < IN_HAND_MAX:
            owed = self._loop.leased.popleft()
            # After its lease it is anybody's, and is claimed as such.
            if self._clock.now() < owed.created_at + timedelta(seconds=LEASE_SECONDS):
                begun += self._begin(owed)
        room = IN_HAND_MAX - len(self._in_hand)
        if self._look and room > 0:
            claimed = await self._ledger.owed(self._clock.now(), limit=room, lease_seconds=LEASE_SECONDS)
            self._look = len(claimed) == room
            begun += sum(self._begin(owed) for owed in claimed)
        return begun

    def _begin(self, owed: Owed) -> bool:
        """False when it is in hand already, as after a lease that ran out under us in an outage of the ledger."""
        if owed.effect.key in self._in_hand:
            return False
        self._in_hand[owed.effect.key] = (owed, asyncio.create_task(self._carry_out(owed)))
        return True

    async def _finish(self) -> None:
        ours = [(o, t) for o, t in self._in_hand.values() if isinstance(o.effect, MeasureEvidence | PublishReport)]
        await self._drop(ours)
        for owed in (*(owed for owed, _ in ours), *self._loop.leased):
            await self._put_off(owed, 0.0, "given back at shutdown")
        self._loop.leased.clear()
        await asyncio.gather(*(task for _, task in self._in_hand.values()))

    async def _drop(self, in_hand: list[tuple[Owed, asyncio.Task[None]]]) -> None:
        for _, task in in_hand:
            task.cancel()
        await asyncio.gather(*(task for _, task in in_hand), return_exceptions=True)

    async def _carry_out(self, owed: Owed) -> None:
        """One effect, from its lease to its answer's commit. Raises nothing; what is not completed stays owed."""
        started = asyncio.get_running_loop().time()
        error: str | None = None
        try:
            error = await self._try(owed)
        except TransientError as failure:
            error = str(failure)
            await self._postpone(owed, self._backoff(owed.tries), error)
        except Exception as failure:  # a defect here must not lose an effect: it is tried again
            error = f"{type(failure).__name__}: {failure}"
            self._telemetry.failed("carry_out", failure)
            await self._postpone(owed, self._backoff(owed.tries), error)
        finally:
            if len(self._in_hand) >= IN_HAND_MAX:
                self._look_soon()  # there is room again
            self._in_hand.pop(owed.effect.key, None)
        self._telemetry.carried_out(owed, error, asyncio.get_running_loop().time() - started)

    async def _try(self, owed: Owed) -> str | None:
        """Carry out and commit the answer; returns what went wrong. Raises TransientError to be tried again."""
        known = self._policies().get(owed.model)
        if known is None:
            why = f"{owed.model} has no policy"
            await self._postpone(owed, NO_POLICY_SECONDS, why)
            return why
        answer: Event
        error: str | None = None
        try:
            async with self._renewed(owed):
                answer = await self._perform(owed, known[0])
        except (TransientError, PermanentError) as failure:
            if isinstance(failure, TransientError) and not _exhausted(owed):
                raise
            error = str(failure)
            answer = EffectFailed(effect=owed.effect.key, kind=type(owed.effect).__name__, why=error)
        await self._loop.take(owed.model, answer, completes=owed.effect.key)
        return error

    async def _perform(self, owed: Owed, policy: Policy) -> Event:
        effect = owed.effect
        match effect:
            case StartExecution():
                arn, adopted = await self._start(owed, effect)
                return ExecutionStarted(execution=effect.key, arn=arn, adopted=adopted)
            case MeasureEvidence():
                evidence = await self._analyst.measure(effect, policy)
                return EvidenceMeasured(effect=effect.key, evidence=evidence)
            case PublishReport():
                await self._analyst.publish(effect, policy)
            case AnswerApproval():
                await self._engine.answer(effect)
            case _:  # pragma: no cover - mypy proves it
                assert_never(effect)
        return EffectDone(effect=effect.key, kind=type(effect).__name__)

    async def _start(self, owed: Owed, effect: StartExecution) -> tuple[str, bool]:
        planned_for = self._clock.now() - owed.created_at
        if planned_for < START_WITHIN:
            return await self._engine.start(effect)
        arn = await self._engine.known(effect)
        if arn is None:
            raise PermanentError(f"expired: planned {planned_for.days} days ago and never started")
        return arn, True

    @asynccontextmanager
    async def _renewed(self, owed: Owed) -> AsyncIterator[None]:
        """Keeps the effect leased while the work lasts."""
        renewing = asyncio.create_task(self._renew(owed))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew(self, owed: Owed) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            await self._put_off(owed, LEASE_SECONDS, "in hand")

    async def _postpone(self, owed: Owed, seconds: float, why: str) -> None:
        """Due again after `seconds`, and looked for then."""
        await self._put_off(owed, seconds, why)
        asyncio.get_running_loop().call_later(seconds + 0.01, self._look_soon)

    def _look_soon(self) -> None:
        self._look = True
        self._loop.effects_owed.set()

    async def _put_off(self, owed: Owed, seconds: float, why: str) -> None:
        until = self._clock.now() + timedelta(seconds=seconds)
        try:
            await self._ledger.postpone(owed.effect.key, until, why)
        except (TransientError, ConfigError) as error:
            # The lease ends by itself.
            self._telemetry.failed("postpone", error)

    def _backoff(self, tries: int) -> float:
        return backoff_seconds(tries, cap_seconds=BACKOFF_CAP_SECONDS, random=self._random)


def _exhausted(owed: Owed) -> bool:
    return isinstance(owed.effect, MeasureEvidence | PublishReport) and owed.tries >= TRIES_MAX
