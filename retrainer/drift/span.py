"""The time span of a window's rows, by its timestamp column."""

import contextlib
import datetime
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

_ISO = r"^\s*\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?\s*$"
_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
_DATE_LENGTH = 10
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_ZONED_TIME = pa.timestamp("us", "UTC")
_PLAIN_TIME = pa.timestamp("us")


class MixedZonesError(ValueError):
    """Some timestamps have a time zone and some have none, so what they say is not sure to the hour."""


@dataclass(frozen=True, slots=True)
class Span:
    """From the first to the last timestamp, in UTC; one without a zone is taken for UTC. None: none was read."""

    began: datetime.datetime | None = None
    ended: datetime.datetime | None = None
    zoned: bool | None = None


def of(column: pa.ChunkedArray) -> Span:
    """Of timestamps, dates or ISO 8601 texts; anything else is passed over. Raises MixedZonesError."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type):
        return _extent(column, column.type.tz is not None)
    if pa.types.is_date(column.type):
        return _extent(column.cast(pa.timestamp("us"), safe=False), False)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _texts(column)
    return Span()


def joined(one: Span, other: Span) -> Span:
    """Both together. Raises MixedZonesError."""
    if one.zoned is None or other.zoned is None:
        return other if one.zoned is None else one
    if one.zoned != other.zoned:
        raise MixedZonesError("some of its times have a time zone and some have none")
    assert one.began
    assert other.began
    assert one.ended
    assert other.ended
    return Span(min(one.began, other.began), max(one.ended, other.ended), one.zoned)


def _texts(column: pa.ChunkedArray) -> Span:
    """As a whole where all are like the first, which is a hundred times faster; else those that can be read."""
    first = column.drop_null().slice(0, 1)
    zoned = any(pc.match_substring_regex(pc.utf8_slice_codeunits(first, _DATE_LENGTH), _ZONE).to_pylist())
    with contextlib.suppress(pa.ArrowInvalid):
        return _extent(column.cast(_ZONED_TIME if zoned else _PLAIN_TIME), zoned)
    good = column.filter(pc.fill_null(pc.match_substring_regex(column, _ISO), False))
    good = pc.replace_substring_regex(pc.utf8_trim_whitespace(good), r"(\.\d{6})\d+", r"\1")
    marked = pc.match_substring_regex(pc.utf8_slice_codeunits(good, _DATE_LENGTH), _ZONE)
    return joined(_parsed(good.filter(marked), _ZONED_TIME), _parsed(good.filter(pc.invert(marked)), _PLAIN_TIME))


def _parsed(texts: pa.ChunkedArray, as_type: pa.DataType) -> Span:
    """No span where a date is none, as the 30th of February."""
    try:
        return _extent(texts.cast(as_type), as_type.tz is not None)
    except pa.ArrowInvalid:
        return Span()


def _extent(times: pa.ChunkedArray, zoned: bool) -> Span:
    extent = pc.min_max(times.cast(_ZONED_TIME if zoned else _PLAIN_TIME, safe=False))
    began, ended = extent["min"].cast(pa.int64()).as_py(), extent["max"].cast(pa.int64()).as_py()
    if began is None or ended is None:
        return Span()
    try:
        return Span(moment(began), moment(ended), zoned)
    except OverflowError:
        return Span()


def moment(microseconds: int) -> datetime.datetime:
    """So long after EPOCH. Raises OverflowError beyond the year 9999."""
    return EPOCH + datetime.timedelta(microseconds=microseconds)
