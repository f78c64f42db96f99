"""A window summed up: its rows counted on a grid, its time span and a sample of its rows.

Profiles on one grid merge by addition, so a window's is the sum of its batches' and no batch is read twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from retrainer.drift import derived, sample, span
from retrainer.drift.counting import (
    CHUNK,
    UNSEEN_MAX,
    Categories,
    Numbers,
    count_categories,
    count_numbers,
    merge_categories,
    merge_numbers,
    no_categories,
    no_numbers,
)
from retrainer.drift.grid import CategoryGrid, Grid, NumberGrid, Spec
from retrainer.drift.p_value import inflation
from retrainer.drift.sample import SAMPLE_ROWS, Reservoir, Sample, priorities, rows_max, taken
from retrainer.drift.span import MixedZonesError, Span
from retrainer.drift.values import Values, numbers

__all__ = [
    "SAMPLE_ROWS",
    "UNSEEN_MAX",
    "Builder",
    "Categories",
    "MixedZonesError",
    "Numbers",
    "Profile",
    "Sample",
    "merge",
    "reference",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`grid` is the id of the grid it was counted on. Of rows without a readable timestamp `zoned` is None."""

    grid: str
    rows: int
    began: datetime | None
    ended: datetime | None
    zoned: bool | None
    columns: Mapping[str, Numbers | Categories]
    sample: Sample


class Builder:
    """Counts rows on a grid as they come. `seed` names the batch: two batches of one window must not share it."""

    def __init__(self, grid: Grid, spec: Spec, seed: str) -> None:
        self._grid, self._spec, self._seed = grid, spec, seed
        self._rows = 0
        self._span = Span()
        self._scratch = np.empty(CHUNK)
        self._reservoir = Reservoir(rows_max(len(grid.columns)))
        self._columns = {name: _none(held) for name, held in grid.columns.items()}
        self._names = {
            name: pa.array(held.names, pa.large_string())
            for name, held in grid.columns.items()
            if isinstance(held, CategoryGrid)
        }

    def add(self, columns: Mapping[str, pa.ChunkedArray], timestamps: pa.ChunkedArray | None = None) -> None:
        """More rows of the batch: canonical columns, and the timestamps as they were read.

        Raises WrongTypeError (vectors of another length) and MixedZonesError, both before any of these rows is counted.
        """
        span_ = span.joined(self._span, span.of(timestamps)) if timestamps is not None else self._span
        made = derived.spread(columns, self._spec, self._grid.projections)
        self._span = span_
        count = len(next(iter(made.values()))) if made else 0
        for name, held in self._grid.columns.items():
            if isinstance(held, NumberGrid):
                self._add_numbers(name, held, made[name])
            else:
                self._add_categories(name, made[name])
        self._reservoir.offer(
            priorities(self._seed, self._rows, count),
            lambda kept: {name: taken(made[name], kept) for name in self._grid.columns},
        )
        self._rows += count

    def profile(self) -> Profile:
        """Of the rows so far."""
        drawn = self._reservoir.sample()
        if not drawn.columns:
            drawn = replace(drawn, columns={n: _nothing(held) for n, held in self._grid.columns.items()})
        return Profile(
            grid=self._grid.id,
            rows=self._rows,
            began=self._span.began,
            ended=self._span.ended,
            zoned=self._span.zoned,
            columns=dict(self._columns),
            sample=drawn,
        )

    def _add_numbers(self, name: str, held: NumberGrid, column: pa.ChunkedArray) -> None:
        values, parts = numbers(column), []
        for at in range(0, len(values), CHUNK):
            chunk = self._scratch[: min(CHUNK, len(values) - at)]
            np.copyto(chunk, values[at : at + CHUNK])
            parts.append(count_numbers(chunk, held.edges))
        before = self._columns[name]
        assert isinstance(before, Numbers)
        self._columns[name] = merge_numbers([before, *parts])

    def _add_categories(self, name: str, column: pa.ChunkedArray) -> None:
        parts = [count_categories(chunk, self._names[name]) for chunk in column.chunks]
        before = self._columns[name]
        assert isinstance(before, Categories)
        self._columns[name] = merge_categories([before, *parts])


def merge(parts: Sequence[Profile]) -> Profile:
    """Of all parts' rows: counts exactly, sums to rounding. Raises ValueError where the grids differ.

    Where some parts' timestamps have a zone and some have none, the whole has no time span.
    """
    if not parts or len({part.grid for part in parts}) > 1:
        raise ValueError("profiles can be merged that were counted on one grid")
    try:
        whole = Span()
        for part in parts:
            whole = span.joined(whole, Span(part.began, part.ended, part.zoned))
    except MixedZonesError:
        whole = Span()
    return Profile(
        grid=parts[0].grid,
        rows=sum(part.rows for part in parts),
        began=whole.began,
        ended=whole.ended,
        zoned=whole.zoned,
        columns={name: _merged([part.columns[name] for part in parts]) for name in parts[0].columns},
        sample=sample.merge([part.sample for part in parts]),
    )


def reference(parts: Sequence[Profile]) -> Profile:
    """The parts merged, and how much more they differ in each column than independent rows would."""
    whole = merge(parts)
    spread = {name: inflation([part.columns[name] for part in parts]) for name in whole.columns}
    columns = {name: replace(held, inflation=spread[name]) for name, held in whole.columns.items()}
    return replace(whole, columns=columns)


def _merged(parts: Sequence[Numbers | Categories]) -> Numbers | Categories:
    if isinstance(parts[0], Numbers):
        return merge_numbers([part for part in parts if isinstance(part, Numbers)])
    return merge_categories([part for part in parts if isinstance(part, Categories)])


def _none(held: NumberGrid | CategoryGrid) -> Numbers | Categories:
    return no_numbers(len(held.edges) + 1) if isinstance(held, NumberGrid) else no_categories(len(held.names))


def _nothing(held: NumberGrid | CategoryGrid) -> Values:
    return np.empty(0, np.float64 if isinstance(held, NumberGrid) else object)
