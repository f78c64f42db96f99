"""When a schedule is due: unix cron in a time zone, as an APScheduler trigger.

APScheduler's own cron trigger counts week days from Monday, joins day of month and day of week with "and", and fires
01:30 twice when the clocks go back; cronsim does as Debian's cron does. Of APScheduler only the trigger is used: its
job stores fire twice with two processes, so what has fired is kept in the ledger.

Daylight saving, as in Debian's cron(8), for an expression whose minute and hour do not begin with a star:
a time that is skipped in spring fires at the first moment after the gap (02:30 at 03:00), and a time that comes twice
in autumn fires at its first coming only. With a star (*/15 * * * *) every real quarter of an hour fires once.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim

from retrainer.core.policy import Schedule

FIRES_MAX = 10_000
"""At most so many fire times are given at once: a week of every minute."""


class UnixCronTrigger(BaseTrigger):  # type: ignore[misc]
    """Fires at the times of a unix cron expression of five fields in a time zone."""

    __slots__ = ("_expression", "_zone")

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        self._expression = expression
        self._zone = zone

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first fire time after the previous one (or after `now`), in UTC; None if it never comes."""
        after = (previous_fire_time or now).astimezone(UTC)
        # Started within the hour that comes twice, cronsim begins with its first coming, which may be past.
        fires = (fire.astimezone(UTC) for fire in CronSim(self._expression, after.astimezone(self._zone)))
        return next((fire for fire in fires if fire > after), None)


def due(schedule: Schedule, after: datetime, until: datetime) -> list[datetime]:
    """The fire times in (after, until], oldest first, in UTC.

    When there are more than FIRES_MAX, those of the last FIRES_MAX minutes: a fire that old is past any grace, and a
    daemon that slept for years must not wake to a million of them.
    """
    trigger = UnixCronTrigger(schedule.cron, ZoneInfo(schedule.time_zone))
    fires = _fires(trigger, after, until)
    if len(fires) < FIRES_MAX:
        return fires
    return _fires(trigger, max(after, until - timedelta(minutes=FIRES_MAX)), until)


def _fires(trigger: UnixCronTrigger, after: datetime, until: datetime) -> list[datetime]:
    fires: list[datetime] = []
    last = after
    while len(fires) < FIRES_MAX:
        fire = trigger.get_next_fire_time(last, last)
        if fire is None or fire > until:
            break
        fires.append(fire)
        last = fire
    return fires
