"""Grids and profiles as bytes.

Whoever writes the bytes is not trusted: there is no pickle, an end to every size, and nothing is taken as it is. They
are `RTP1`, the crc32 and the size of what follows uncompressed, and that in zstd: a length, as much JSON, and
the arrays it tells of, one after the other, little-endian.
"""

import json
import struct
import zlib
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrainer.drift import derived, span
from retrainer.drift.counting import Categories, Numbers
from retrainer.drift.grid import CategoryGrid, Grid, NumberGrid, Projection
from retrainer.drift.profile import Profile, Sample
from retrainer.drift.values import Values

SIZE_MAX = 1 << 30
"""Of the uncompressed bytes: 1,000 columns have at most some 70 MB."""

_MAGIC = b"RTP1"
_HEAD = struct.Struct("<4sIQ")
_LENGTH = struct.Struct("<Q")
_DTYPES = ("|u1", "<u2", "<u4", "<u8", "<i8", "<f8")
_ROWS_MAX = 2**62
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    KeyError,
    IndexError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    OSError,
    pa.ArrowException,
    struct.error,
)

_Place = list[Any]
"""Of an array among the bytes: where it begins, its dtype and its length."""


class BrokenProfileError(ValueError):
    """The bytes are no grid or profile of this version; it is made again from the rows."""


def dump(held: Grid | Profile) -> bytes:
    """As bytes, the same for the same grid or profile."""
    arrays = _Arrays()
    told = _told_grid(held, arrays) if isinstance(held, Grid) else _told_profile(held, arrays)
    written = json.dumps(told, separators=(",", ":")).encode()
    body = b"".join((_LENGTH.pack(len(written)), written, *arrays.parts))
    packed: bytes = pa.compress(body, codec="zstd", asbytes=True)
    return _HEAD.pack(_MAGIC, zlib.crc32(body), len(body)) + packed


def load_grid(written: bytes) -> Grid:
    """The grid. Raises BrokenProfileError."""
    try:
        return _grid(*_opened(written, "grid"))
    except _MALFORMED as error:
        raise BrokenProfileError(f"it is not a grid: {type(error).__name__}: {error}") from error


def load_profile(written: bytes) -> Profile:
    """The profile. Raises BrokenProfileError."""
    try:
        return _profile(*_opened(written, "profile"))
    except _MALFORMED as error:
        raise BrokenProfileError(f"it is not a profile: {type(error).__name__}: {error}") from error


class _Arrays:
    """Arrays as bytes, each after the other."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._at = 0

    def put(self, array: NDArray[Any]) -> _Place:
        """Whole numbers that are not negative are written as small as they may be."""
        if array.dtype.kind in "iu":
            largest = int(array.max()) if len(array) else 0
            assert not len(array) or int(array.min()) >= 0
            array = array.astype(np.min_scalar_type(largest))
        part = array.astype(array.dtype.newbyteorder("<")).tobytes()
        place = [self._at, _DTYPES.index(array.dtype.newbyteorder("<").str), len(array)]
        self.parts.append(part)
        self._at += len(part)
        return place


class _Buffer:
    """The arrays of a body; what is taken is a copy, checked to lie within."""

    def __init__(self, body: memoryview) -> None:
        self._body = body

    def floats(self, place: _Place, length: int | None = None) -> NDArray[np.float64]:
        return self._array(place, length, "f").astype(np.float64)

    def counts(self, place: _Place, length: int | None = None) -> NDArray[np.int64]:
        found = self._array(place, length, "u")
        if len(found) and int(found.max()) > _ROWS_MAX:
            raise ValueError("it counts more rows than there are")
        return found.astype(np.int64)

    def priorities(self, place: _Place) -> NDArray[np.uint64]:
        return self._array(place, None, "u").astype(np.uint64)

    def _array(self, place: _Place, length: int | None, kind: str) -> NDArray[Any]:
        at, dtype, count = (_whole(number) for number in place)
        held = np.dtype(_DTYPES[dtype])
        if held.kind != kind or (length is not None and count != length):
            raise ValueError("an array is not what it should be")
        return np.frombuffer(self._body[at : at + count * held.itemsize], held, count)


def _opened(written: bytes, kind: str) -> tuple[dict[str, Any], _Buffer]:
    magic, checksum, size = _HEAD.unpack_from(written)
    if magic != _MAGIC or size > SIZE_MAX:
        raise ValueError("it is of another version, or too large")
    body = pa.decompress(memoryview(written)[_HEAD.size :], decompressed_size=size, codec="zstd", asbytes=True)
    if zlib.crc32(body) != checksum:
        raise ValueError("its checksum is not that of its bytes")
    (length,) = _LENGTH.unpack_from(body)
    at = _LENGTH.size + length
    told = json.loads(body[_LENGTH.size : at])
    if told["is"] != kind:
        raise ValueError(f"it is a {str(told['is'])[:20]}")
    return told, _Buffer(memoryview(body)[at:])


def _told_grid(grid: Grid, arrays: _Arrays) -> dict[str, Any]:
    columns = [
        [name, arrays.put(held.edges)] if isinstance(held, NumberGrid) else [name, list(held.names), held.complete]
        for name, held in grid.columns.items()
    ]
    projections = [
        [name, arrays.put(held.mean), arrays.put(held.components.ravel())] for name, held in grid.projections.items()
    ]
    return {"is": "grid", "columns": columns, "projections": projections}


def _grid(told: dict[str, Any], buffer: _Buffer) -> Grid:
    columns: dict[str, NumberGrid | CategoryGrid] = {}
    for name, first, *complete in told["columns"]:
        if complete:
            columns[_text(name)] = CategoryGrid(tuple(map(_text, first)), bool(complete[0]))
            continue
        edges = buffer.floats(first)
        if not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise ValueError("its edges are not sorted")
        columns[_text(name)] = NumberGrid(edges)
    projections = {}
    for name, mean, components in told["projections"]:
        middle = buffer.floats(mean)
        flat = buffer.floats(components, derived.COMPONENTS * len(middle))
        projections[_text(name)] = Projection(middle, flat.reshape(derived.COMPONENTS, len(middle)))
    return Grid(columns, projections)


def _told_profile(profile: Profile, arrays: _Arrays) -> dict[str, Any]:
    return {
        "is": "profile",
        "grid": profile.grid,
        "rows": profile.rows,
        "span": [_microseconds(profile.began), _microseconds(profile.ended), profile.zoned],
        "columns": [[name, *_told_column(held, arrays)] for name, held in profile.columns.items()],
        "priorities": arrays.put(profile.sample.priorities),
        "sample": [[name, *_told_values(held, arrays)] for name, held in profile.sample.columns.items()],
    }


def _profile(told: dict[str, Any], buffer: _Buffer) -> Profile:
    began, ended, zoned = told["span"]
    priorities = buffer.priorities(told["priorities"])
    drawn = {_text(name): _values(held, len(priorities), buffer) for name, *held in told["sample"]}
    columns = {_text(name): _column(held, buffer) for name, *held in told["columns"]}
    if drawn.keys() != columns.keys() or not (zoned is None or isinstance(zoned, bool)):
        raise ValueError("its sample is not of its columns")
    return Profile(
        grid=_text(told["grid"]),
        rows=_whole(told["rows"]),
        began=_moment(began),
        ended=_moment(ended),
        zoned=zoned,
        columns=columns,
        sample=Sample(priorities, drawn),
    )


def _told_column(held: Numbers | Categories, arrays: _Arrays) -> list[Any]:
    if isinstance(held, Categories):
        whole = [list(held.unseen), arrays.put(np.array(list(held.unseen.values()), np.int64)), held.other, held.nulls]
        return ["categories", arrays.put(held.counts), arrays.put(np.array([held.inflation])), *whole]
    moments = arrays.put(np.array([held.low, held.high, held.mean, held.m2, held.inflation]))
    return ["numbers", arrays.put(held.counts), arrays.put(held.sums), moments, held.nulls, held.infinite]


def _column(told: list[Any], buffer: _Buffer) -> Numbers | Categories:
    kind, counts, *rest = told
    counted = buffer.counts(counts)
    if kind == "categories":
        inflation, names, unseen, other, nulls = rest
        return Categories(
            counts=counted,
            unseen=dict(zip(map(_text, names), buffer.counts(unseen).tolist(), strict=True)),
            other=_whole(other),
            nulls=_whole(nulls),
            inflation=float(buffer.floats(inflation, 1)[0]),
        )
    sums, moments, nulls, infinite = rest
    low, high, mean, m2, inflation = buffer.floats(moments, 5).tolist()
    return Numbers(
        counts=counted,
        sums=buffer.floats(sums, len(counted)),
        nulls=_whole(nulls),
        infinite=_whole(infinite),
        low=low,
        high=high,
        mean=mean,
        m2=m2,
        inflation=inflation,
    )


def _told_values(values: Values, arrays: _Arrays) -> list[Any]:
    """Numbers as they are; texts as the distinct ones, in order, and the place of each, 0 for null."""
    if values.dtype.kind == "f":
        return [arrays.put(values)]
    words = sorted({word for word in values.tolist() if word is not None})
    codes: dict[Any, int] = {None: 0} | {word: code for code, word in enumerate(words, 1)}
    return [arrays.put(np.array([codes[word] for word in values.tolist()], np.int64)), words]


def _values(told: list[Any], length: int, buffer: _Buffer) -> Values:
    place, *words = told
    if not words:
        return buffer.floats(place, length)
    known = np.array([None, *map(_text, words[0])], dtype=object)
    found: Values = known[buffer.counts(place, length)]
    return found


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number <= _ROWS_MAX:
        raise ValueError("a count is not a whole number")
    return number


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError("a name is not text")
    return text


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - span.EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: Any) -> datetime | None:
    return None if microseconds is None else span.moment(int(microseconds))
