"""Times as people write them on a timeline, and the moments they mean."""

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from retrainer.cases.language import MistakeError, Moment

BEGINS = date(2026, 1, 1)
"""The day a case begins on that names none; a Thursday."""

FARTHEST = timedelta(days=36_500)
"""From one step to the next; every minute of a schedule in between is a decision."""

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CLOCK = r"(?P<clock>\d\d:\d\d(?::\d\d)?)"
_DATED = re.compile(rf"(?P<date>\d{{4}}-\d\d-\d\d)[ T]{_CLOCK}(?=\s|$)")
_NAMED = re.compile(rf"(?:(?P<weekday>mon|tue|wed|thu|fri|sat|sun) +)?{_CLOCK}(?=\s|$)", re.IGNORECASE)
_AFTER = re.compile(r"\+(?P<after>(?:\d{1,6}[smhdw])+)(?=\s|$)")
_PART = re.compile(r"(\d+)([smhdw])")
WRITE = "write 2026-01-31 06:00, 06:00, mon 06:00 or +30m"


def find(text: str, line: int, column: int) -> Moment:
    """The moment that `text` begins with; raises MistakeError where it begins with none. `column` is where it is."""
    try:
        return _found(text, line, column)
    except ValueError as error:
        raise MistakeError(line, column, f"{text.split()[0]!r} is no time ({error}); {WRITE}") from error


def _found(text: str, line: int, column: int) -> Moment:
    if match := _DATED.match(text):
        day, clock = date.fromisoformat(match["date"]), time.fromisoformat(match["clock"])
        return Moment(line=line, column=column, text=match[0], day=day, clock=clock)
    if match := _NAMED.match(text):
        weekday = WEEKDAYS.index(match["weekday"].lower()) if match["weekday"] else None
        clock = time.fromisoformat(match["clock"])
        return Moment(line=line, column=column, text=match[0], weekday=weekday, clock=clock)
    if match := _AFTER.match(text):
        seconds = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(match["after"]))
        return Moment(line=line, column=column, text=match[0], after=timedelta(seconds=seconds))
    raise MistakeError(line, column, f"{text.split()[0] if text.split() else text!r} is no time; {WRITE}{_why(text)}")


def _why(text: str) -> str:
    if re.match(r"\d:\d\d", text):
        return "; hours have two digits, as in 02:00"
    if re.match(r"\d{4}-\d\d-\d\d\s*$|\d{4}-\d\d-\d\d\s+\D", text):
        return "; a date needs a time, as in 2026-01-31 00:00"
    return ""


def first(zone: ZoneInfo) -> datetime:
    """Before anything happens."""
    return datetime.combine(BEGINS, time(), zone).astimezone(UTC)


def resolved(moment: Moment, base: datetime, zone: ZoneInfo, *, later: bool = False) -> datetime:
    """The moment meant, in UTC: at or after `base`, and with `later` truly after it. Raises MistakeError."""
    try:
        found = _resolved(moment, base, zone, later=later)
    except OverflowError:
        found = None
    if found is None or abs(found - base) > FARTHEST:
        said = f"{moment.text} is more than {FARTHEST.days // 365} years away; write a nearer time"
        raise MistakeError(moment.line, moment.column, said)
    return found


def _resolved(moment: Moment, base: datetime, zone: ZoneInfo, *, later: bool) -> datetime:
    if moment.after is not None:
        return base + moment.after
    assert moment.clock is not None
    if moment.day is not None:
        return _at(moment, moment.day, zone)
    day = base.astimezone(zone).date()
    for _ in range(9):
        found = _at(moment, day, zone) if moment.weekday in (None, day.weekday()) else None
        if found and (found > base or (found == base and not later)):
            return found
        day += timedelta(days=1)
    raise AssertionError("every week has every day")  # pragma: no cover


def _at(moment: Moment, day: date, zone: ZoneInfo) -> datetime:
    assert moment.clock is not None
    local = datetime.combine(day, moment.clock, zone)
    meant = local.astimezone(UTC)
    if meant.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        said = f"{local:%Y-%m-%d %H:%M} is skipped in {zone.key}: the clocks go forward then; write a later time"
        raise MistakeError(moment.line, moment.column, said)
    return meant


def shown(at: datetime, base: datetime, zone: ZoneInfo) -> str:
    """A moment as one would write it on the line of `base`: the time alone where that is the next such one."""
    local, begun = at.astimezone(zone), base.astimezone(zone)
    clock = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    is_next = timedelta(0) < at - base < timedelta(hours=20)
    return clock if is_next and local.date() == begun.date() else f"{local:%Y-%m-%d} {clock}"
