"""Planted bugs in what happens because time has passed."""

from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Any

from retrainer.core.events import ScheduleFired
from retrainer.core.policy import Schedule
from retrainer.core.state import ModelState
from retrainer.ports import Ledger
from retrainer.timers import Timers
from tests.simulation.planting import Patch, mutant


@mutant
def cursor_before_fire(patch: Patch) -> None:
    """A schedule's cursor is moved before its fire is taken; a crash between the two loses it."""
    fire = Timers.fire

    async def reversed_order(self: Timers, model: str, schedule: Schedule) -> None:
        seen = self._seen.get((model, schedule.name))
        now = self._clock.now()
        if seen and self._schedules.due(schedule, seen, now):
            await self._ledger.see(model, schedule.name, now)
        await fire(self, model, schedule)

    patch.setattr(Timers, "fire", reversed_order)


@mutant
def a_misfire_fires_all(patch: Patch) -> None:
    """Every fire that was missed is taken, not the newest of them."""
    fire = Timers.fire

    async def each(self: Timers, model: str, schedule: Schedule) -> None:
        key, now = (model, schedule.name), self._clock.now()
        seen = self._seen.get(key) or await self._ledger.seen_until(*key) or now
        for at in self._schedules.due(schedule, seen, now)[:-1]:
            await self._loop.take(model, ScheduleFired(schedule=schedule.name, fire_at=at.astimezone(UTC)))
        await fire(self, model, schedule)

    patch.setattr(Timers, "fire", each)


@mutant
def no_misfire_grace(patch: Patch) -> None:
    """A fire is taken however late it is noticed."""
    fire = Timers.fire

    async def late(self: Timers, model: str, schedule: Schedule) -> None:
        await fire(self, model, schedule.model_copy(update={"misfire_grace": timedelta(days=1)}))

    patch.setattr(Timers, "fire", late)


class _Own:
    """A ledger that tells of the models alone that this process has decided on."""

    def __init__(self, ledger: Ledger, timers: Timers) -> None:
        self._ledger = ledger
        self._timers = timers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def active(self) -> Mapping[str, ModelState]:
        lanes = self._timers._loop._lanes
        return {m: state for m, state in (await self._ledger.active()).items() if m in lanes}


@mutant
def a_wake_up_is_lost_at_a_restart(patch: Patch) -> None:
    """The moment that a decision asked to be woken at is known to the process that decided, and to no other."""
    init = Timers.__init__

    def forgetful(self: Timers, *, ledger: Ledger, **rest: Any) -> None:
        init(self, ledger=_Own(ledger, self), **rest)

    patch.setattr(Timers, "__init__", forgetful)


@mutant
def nobody_wakes(patch: Patch) -> None:
    """What a guard holds back is looked at again only when something new happens."""

    async def asleep(self: Timers) -> Any:
        return self._clock.now() + timedelta(seconds=30)

    patch.setattr(Timers, "_wake_all", asleep)


@mutant
def a_restart_begins_schedules_anew(patch: Patch) -> None:
    """What came due while nobody ran is never taken."""

    async def now(self: Timers, model: str, schedule: Schedule, now: Any) -> Any:
        await self._ledger.see(model, schedule.name, now)
        return now

    patch.setattr(Timers, "_cursor", now)
