"""What happens because time has passed: moments that decisions asked to be woken at, and schedules.

A fire is taken before the ledger's cursor moves past it. A crash between the two takes it again, which its
identity makes harmless; the other order would lose it.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from retrainer.core.decide import decision_id
from retrainer.core.events import ScheduleFired, Woken
from retrainer.core.policy import Schedule
from retrainer.loop import Loop, NoPolicyError, Policies
from retrainer.pacing import pause
from retrainer.ports import Clock, Ledger, Telemetry, Verdict

EVERY_SECONDS = 30.0
"""How often to look without being poked: for what replicas that died would have noticed."""

RETRY_SECONDS = 5.0
"""How soon what is due and could not be taken is tried again."""

LEAST_SECONDS = 0.01
LOOK_BACK = timedelta(days=7)
"""Fires missed longer ago are not even counted, so that an old cursor costs little."""

CURSOR_LAG = timedelta(minutes=5)
"""How far the ledger's cursor may stay behind while nothing is due."""


class Schedules(Protocol):
    """The calendar: time zones, summer time and cron are its business."""

    def due(self, schedule: Schedule, after: datetime, until: datetime) -> Sequence[datetime]:
        """The schedule's fire times in (after, until], oldest first, aware."""
        ...


class Timers:
    """Takes what is due, sleeps until the next is, or until a decision moves it."""

    def __init__(
        self,
        *,
        loop: Loop,
        policies: Policies,
        ledger: Ledger,
        schedules: Schedules,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._loop = loop
        self._policies = policies
        self._ledger = ledger
        self._schedules = schedules
        self._clock = clock
        self._telemetry = telemetry
        self._seen: dict[tuple[str, str], datetime] = {}
        """Up to when each schedule's fires were taken or skipped."""
        self._moved: dict[tuple[str, str], datetime] = {}
        """Where the ledger's cursor stands, as far as is known here."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Take what is due until `stopping` is set. May be cancelled at any time."""
        while not stopping.is_set():
            self._loop.wake_moved.clear()
            again = [await self._fire_all(), await self._wake_all()]
            seconds = (min(again) - self._clock.now()).total_seconds()
            await pause(self._loop.wake_moved, max(seconds, LEAST_SECONDS))

    async def _fire_all(self) -> datetime:
        """Every schedule of every policy; returns when to look again."""
        again = [self._clock.now() + timedelta(seconds=EVERY_SECONDS)]
        policies = self._policies()
        wanted = [
            (model, schedule) for model, (policy, _) in policies.items() for schedule in policy.triggers.schedules
        ]
        for model, schedule in wanted:
            try:
                await self.fire(model, schedule)
                again.extend(self._schedules.due(schedule, self._clock.now(), again[0])[:1])
            except Exception as error:  # one schedule must not stop the others; it stays due
                self._telemetry.failed("schedule", error)
                again.append(self._clock.now() + timedelta(seconds=RETRY_SECONDS))
        for gone in self._seen.keys() - {(model, schedule.name) for model, schedule in wanted}:
            del self._seen[gone], self._moved[gone]
        return min(again)

    async def fire(self, model: str, schedule: Schedule) -> None:
        """Take the newest fire that is due and within its grace, then move the cursor. Raises TransientError."""
        now = self._clock.now()
        key = (model, schedule.name)
        if key not in self._seen:
            self._seen[key] = self._moved[key] = await self._cursor(model, schedule, now)
        due = self._schedules.due(schedule, max(self._seen[key], now - LOOK_BACK), now)
        timely = [at for at in due if now - at <= schedule.misfire_grace]
        if timely:
            newest = timely[-1].astimezone(UTC)
            await self._loop.take(model, ScheduleFired(schedule=schedule.name, fire_at=newest))
        for _ in timely[:-1]:
            self._told(schedule, "merged with a later fire")
        for _ in range(len(due) - len(timely)):
            self._told(schedule, "noticed after its misfire grace")
        if due or now - self._moved[key] >= CURSOR_LAG:
            await self._ledger.see(model, schedule.name, now)
            self._moved[key] = now
        self._seen[key] = now

    async def _cursor(self, model: str, schedule: Schedule, now: datetime) -> datetime:
        """Where the ledger's cursor stands; a schedule never seen begins now, and fires nothing of before."""
        stood = await self._ledger.seen_until(model, schedule.name)
        if stood is None:
            await self._ledger.see(model, schedule.name, now)
            return now
        return stood

    def _told(self, schedule: Schedule, why: str) -> None:
        self._telemetry.received("schedules", ScheduleFired.__name__, Verdict.IGNORED, f"{schedule.name} {why}")

    async def _wake_all(self) -> datetime:
        """Every model whose moment has come; returns when to look again."""
        again = [self._clock.now() + timedelta(seconds=EVERY_SECONDS)]
        retry_at = self._clock.now() + timedelta(seconds=RETRY_SECONDS)
        try:
            active = await self._ledger.active()
        except Exception as error:  # what is due stays due
            self._telemetry.failed("timers", error)
            return retry_at
        for model, state in active.items():
            if state.wake_at and state.wake_at > self._clock.now():
                again.append(state.wake_at)
            elif state.wake_at and not await self._wake(model, state.wake_at, state.version):
                again.append(retry_at)
        return min(again)

    async def _wake(self, model: str, wake_at: datetime, version: int) -> bool:
        """Take the moment as an event; False when it has to be tried again soon."""
        try:
            await self._loop.take(model, Woken(wake_at=wake_at, asked_by=decision_id(model, version)))
        except NoPolicyError:
            return True  # there is nobody to wake; it is seen again on the interval
        except Exception as error:  # one model must not stop the others; it stays due
            self._telemetry.failed("wake", error)
            return False
        return True
