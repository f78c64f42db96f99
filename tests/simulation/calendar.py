"""Which fires a history can have, by the product's own calendar, and no more once the world is to come to rest."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache

from retrainer.adapters import schedules
from retrainer.core.policy import Schedule
from tests.simulation.policies import by_hash

SPAN = timedelta(hours=2)


@cache
def fires(cron: str, time_zone: str, start: datetime) -> Sequence[datetime]:
    """All fire times of a schedule around the start of a history."""
    return schedules.due(Schedule(name="s", cron=cron, time_zone=time_zone), start - SPAN, start + SPAN)


@cache
def schedule_of(model: str, name: str) -> Schedule:
    """A schedule is the same in every version of the policy that has it."""
    return next(s for p in by_hash().values() if p.model == model for s in p.triggers.schedules if s.name == name)


class Calendar:
    """Implements timers.Schedules."""

    def __init__(self, start: datetime, until: datetime) -> None:
        self._start = start
        self._until = until

    def due(self, schedule: Schedule, after: datetime, until: datetime) -> Sequence[datetime]:
        until = min(until, self._until)
        return [f for f in fires(schedule.cron, schedule.time_zone, self._start) if after < f <= until]
