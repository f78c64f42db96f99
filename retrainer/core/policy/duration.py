"""What every part of a policy is made of: sections that refuse what they do not know, durations, zones, moments."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = r"^([0-9]{1,6})(s|m|h|d|w)$"
_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_LONGEST = timedelta(days=3650)
"""Longer ones have no use, and a moment of today plus such a duration must be one that there is."""

YEARS: Final = (1970, 9000)
"""Moments outside can be written down, but not moved into every time zone and by every duration."""


class Declared(BaseModel):
    """A section of the policy file: unknown fields are mistakes, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, allow_inf_nan=False)


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(_DURATION, str(value))
    if not found:
        raise ValueError(f"{value!r} is not a duration; write a number and a unit, as in 90s, 15m, 6h, 30d or 2w")
    duration = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if duration > _LONGEST:
        raise ValueError(f"{value!r} is longer than ten years; write at most {_LONGEST.days}d")
    return duration


def _written(value: timedelta) -> str:
    """As it may be written in a policy file, in the largest unit that leaves it whole."""
    seconds = int(value.total_seconds())
    unit, size = next((u, s) for u, s in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)) if seconds % s == 0)
    return f"{seconds // size}{unit}"


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(_written, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _DURATION, "examples": ["6h"]}),
]


def _some_time(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("0s is no time at all; write a longer duration, as in 1d")
    return value


Period = Annotated[Duration, AfterValidator(_some_time)]
"""A duration longer than nothing."""


def _clock(value: object) -> object:
    if isinstance(value, time):
        return value
    if not re.fullmatch(_CLOCK, str(value)):
        raise ValueError(f"{value!r} is not a time of day; write hours and minutes in quotes, as in '22:00'")
    return time.fromisoformat(str(value))


Clock = Annotated[
    time,
    BeforeValidator(_clock),
    PlainSerializer(lambda value: f"{value:%H:%M}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _CLOCK, "examples": ["22:00"]}),
]
"""A time of day, to the minute."""


def _read(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        return None


def _moment(value: object) -> Any:
    told = value if isinstance(value, date) else _read(str(value))
    if told is None:
        raise ValueError(f"{value!r} is neither a day nor a moment; write 2026-12-20 or 2026-12-20T18:00:00Z")
    if isinstance(told, datetime) and told.tzinfo is None:
        raise ValueError(f"{told.isoformat()} has no time zone; write {told.isoformat()}Z, or with an offset as +01:00")
    if not YEARS[0] <= told.year <= YEARS[1]:
        raise ValueError(f"{told.isoformat()} is not of these times; write a year from {YEARS[0]} to {YEARS[1]}")
    return told.astimezone(UTC) if isinstance(told, datetime) else told


Moment = Annotated[
    date | datetime,
    Field(union_mode="left_to_right"),
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "examples": ["2026-12-20", "2026-12-20T18:00:00Z"]}),
]
"""A day, or a moment with its time zone."""


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is not a time zone; write an IANA name, as in Europe/Berlin") from error
    return value


TimeZone = Annotated[str, AfterValidator(_zone)]
