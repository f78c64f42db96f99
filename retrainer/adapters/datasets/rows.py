"""What every format of a batch yields, the ends there are to it, and the sentences it is refused with."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from retrainer.drift.values import Kind, WrongTypeError, canonical

Want = tuple[str, Kind]
"""A column, and how it is read."""

COLUMNS_MAX = 10_000
ROWS_MAX = 100_000_000
"""Of a batch that is read whole."""

STREAM_ROWS_MAX = 10_000_000_000
"""Of one that is read chunk by chunk: what takes longer than the worker's deadline ends there anyway."""

CHUNK_ROWS: Final[Mapping[Kind, int]] = {
    "number": 1 << 16,
    "text": 1 << 16,
    "list": 1 << 13,
    "vector": 1 << 12,
    "image": 1 << 8,
}
"""The most rows of a chunk with a column of the kind: half a megabyte a column of numbers, some of what is larger."""

CHUNK_VALUES, CHUNK_ROWS_MIN = 1 << 22, 1 << 12
"""Of a wide table the most values of a chunk, and the fewest rows, below which each costs more than it saves: measured,
100,000 rows of 1,000 columns in one row group take 1.0 GB, of which 0.8 are its pages, and 2.4 GB without this."""

_WORDS = pa.dictionary(pa.int32(), pa.string())
"""What is read so from parquet is canonical already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The columns of one batch, or of a part of it, that were asked for, in canonical form.

    `times` is the timestamp column as it is written, where it was asked for.
    """

    count: int
    columns: Mapping[Want, pa.ChunkedArray]
    times: pa.ChunkedArray | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a batch: `required` columns must be there, and are not returned."""

    wants: Collection[Want]
    required: Collection[str] = ()
    timestamp: str | None = None

    @property
    def names(self) -> list[str]:
        """The columns whose values are read."""
        return sorted({*(name for name, _ in self.wants), *((self.timestamp,) if self.timestamp else ())})

    @property
    def chunk_rows(self) -> int:
        """The most rows of a chunk."""
        narrow = min((CHUNK_ROWS[kind] for _, kind in self.wants), default=CHUNK_ROWS["number"])
        return min(narrow, max(CHUNK_ROWS_MIN, CHUNK_VALUES // max(len(self.wants), 1)))

    def rows(self, count: int, held: Mapping[str, pa.ChunkedArray]) -> Rows:
        """The columns in canonical form. Raises UnusableError."""
        raw = {want: held[want[0]] for want in self.wants}
        return canonical_rows(count, raw, held[self.timestamp] if self.timestamp else None)


class UnusableError(ValueError):
    """The batch cannot be used; the message is the reason, `column` the one that is to blame where it is one."""

    def __init__(self, why: str, column: str | None = None) -> None:
        super().__init__(why)
        self.column = column


def canonical_rows(count: int, raw: Mapping[Want, pa.ChunkedArray], times: pa.ChunkedArray | None = None) -> Rows:
    """The columns in canonical form. Raises UnusableError."""
    columns: dict[Want, pa.ChunkedArray] = {}
    for (name, kind), column in raw.items():
        if kind == "text" and column.type == _WORDS:
            columns[name, kind] = column
            continue
        try:
            columns[name, kind] = canonical(column, kind)
        except WrongTypeError as error:
            raise UnusableError(f"column {name!r} {error}", name) from error
    for (name, kind), column in columns.items():
        if kind == "text":
            _check_words(name, column)
    return Rows(count=count, columns=columns, times=times)


def _check_words(name: str, column: pa.ChunkedArray) -> None:
    """Parquet does not say that what it calls text is."""
    try:
        for chunk in column.chunks:
            chunk.dictionary.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UnusableError(f"column {name!r} holds text that is not Unicode", name) from error


def check_columns(held: list[str], asked: Asked) -> None:
    """Raises UnusableError unless each column needed is there once."""
    if len(held) > COLUMNS_MAX:
        raise UnusableError(f"it has more than {COLUMNS_MAX} columns")
    needed = {*asked.required, *asked.names}
    if missing := sorted(needed - set(held)):
        which = "column " + repr(missing[0]) if len(missing) == 1 else "columns " + ", ".join(map(repr, missing))
        raise UnusableError(f"it has no {which}; it has {_some(held)}")
    if twice := sorted(name for name in needed if held.count(name) > 1):
        raise UnusableError(f"it has more than one column {twice[0]!r}")


def check_rows(count: int, rows_max: int) -> None:
    """Raises UnusableError for none, and for more than may be."""
    if not count:
        raise UnusableError("it has no rows")
    if count > rows_max:
        raise UnusableError(f"it has more than {rows_max} rows")


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
