"""A uniform sample of rows that merges: the rows whose hashed numbers are smallest, whatever order they come in.

Bottom-k sampling (Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches", PODC).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrainer.drift.counting import NAME_LENGTH_MAX
from retrainer.drift.values import Values, numbers, texts

Priorities = NDArray[np.uint64]
Rows = NDArray[np.int64]

SAMPLE_ROWS = 5_000
_CELLS = 1_000_000
_ROWS_MIN = 100
_SLACK = 1.5


def rows_max(columns: int, rows: int = SAMPLE_ROWS, cells: int = _CELLS) -> int:
    """How many rows a sample of so many columns holds: fewer of wide ones, so that its size is bounded."""
    return min(rows, max(_ROWS_MIN, cells // max(columns, 1)))


@dataclass(frozen=True, slots=True)
class Sample:
    """A uniform sample of rows, ascending by priority; all columns have the same rows."""

    priorities: Priorities
    columns: Mapping[str, Values]


def merge(samples: Sequence[Sample]) -> Sample:
    """The sample of all rows of which these are samples; their seeds must differ."""
    names = list(samples[0].columns)
    priorities = np.concatenate([s.priorities for s in samples])
    kept = np.argsort(priorities, kind="stable")[: rows_max(len(names))]
    columns = {name: np.concatenate([s.columns[name] for s in samples])[kept] for name in names}
    return Sample(priorities[kept], columns)


def priorities(seed: str, start: int, count: int) -> Priorities:
    """Those of rows `start` to `start + count`: splitmix64 (Steele, Lea and Flood 2014) from a place the seed names."""
    origin = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        mixed = np.arange(start, start + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(origin)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def taken(column: pa.ChunkedArray, rows: Rows) -> Values:
    """The values of these rows of a canonical column of numbers or texts; of a long text only the beginning."""
    chosen = column.take(pa.array(rows))
    if not pa.types.is_dictionary(chosen.type):
        return numbers(chosen)
    return texts(pc.utf8_slice_codeunits(chosen.cast(pa.large_string()), 0, NAME_LENGTH_MAX + 1).dictionary_encode())


class Reservoir:
    """Keeps the `limit` rows of lowest priority of all that it is offered; holds half as many more on the way."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[_Piece] = []
        self._held = 0
        self._bar = np.uint64(2**64 - 1)

    def offer(self, offered: Priorities, take: Callable[[Rows], dict[str, Values]]) -> None:
        """Rows with these priorities; `take` gives the columns of those that are kept, by their places."""
        kept = np.flatnonzero(offered <= self._bar)
        if len(kept) > self._limit:
            kept = np.sort(kept[np.argpartition(offered[kept], self._limit)[: self._limit]])
        if not len(kept):
            return
        self._pieces.append(_Piece(offered[kept], take(kept)))
        self._held += len(kept)
        if self._held >= _SLACK * self._limit:
            self._compact()

    def sample(self) -> Sample:
        """What is kept, ascending; without columns where there was no row."""
        self._compact()
        if not self._pieces:
            return Sample(np.empty(0, np.uint64), {})
        return Sample(self._pieces[0].priorities, dict(self._pieces[0].columns))

    def _compact(self) -> None:
        if not self._pieces:
            return
        pieces, self._pieces = self._pieces, []
        offered = np.concatenate([piece.priorities for piece in pieces])
        kept = np.argsort(offered, kind="stable")[: self._limit]
        columns = {}
        for name in list(pieces[0].columns):  # one at a time, so that hardly more than the pieces is ever held
            columns[name] = np.concatenate([piece.columns.pop(name) for piece in pieces])[kept]
        self._pieces, self._held = [_Piece(offered[kept], columns)], len(kept)
        if len(kept) == self._limit:
            self._bar = offered[kept[-1]]


@dataclass(frozen=True, slots=True)
class _Piece:
    priorities: Priorities
    columns: dict[str, Values]
