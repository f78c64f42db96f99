"""What a window's rows are on a grid: exact counts and sums between the edges, and counts of names, which add up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrainer.drift.values import Floats, Ints

UNSEEN_MAX = 1_000
"""Of the names that the grid does not have, so many are counted by name."""

NAME_LENGTH_MAX = 256
"""A longer text is not counted by name."""

CHUNK = 1 << 17
"""Values sorted at a time: 1 MiB, which a core's cache holds. Measured, normal values on 2,049 edges: 12.5 ns each, of
which the sort takes 9; chunks of 2^14 20 ns, of 2^19 11.5; searching each value's cell and two bincounts 68 ns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A numerical column. `counts` and `sums` are of the grid's cells; `infinite` values are in no cell.

    `low`, `high` and `mean` are of the finite values, NaN where there is none, and `m2` is the sum of their squared
    distances from the mean; `sums` and `m2` of values near the largest float may be infinite. `inflation`: how many
    times more the shares of a reference's batches vary than those of independent rows would.
    """

    counts: Ints
    sums: Floats
    nulls: int
    infinite: int
    low: float
    high: float
    mean: float
    m2: float
    inflation: float = 1.0

    @property
    def values(self) -> int:
        """How many are finite."""
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """A categorical column. `counts` are of the grid's names, `other` the rows of names neither there nor in `unseen`.

    `unseen` are heavy hitters: a name's rows are at least as many as it says (0 for a name that is not there), and at
    most other / (UNSEEN_MAX + 1) more (Misra and Gries 1982; merging: Agarwal et al. 2012, "Mergeable summaries").
    Texts longer than NAME_LENGTH_MAX are always in `other`.
    """

    counts: Ints
    unseen: Mapping[str, int]
    other: int
    nulls: int
    inflation: float = 1.0


def no_numbers(cells: int) -> Numbers:
    """Of no rows."""
    nan = float("nan")
    return Numbers(
        counts=np.zeros(cells, np.int64), sums=np.zeros(cells), nulls=0, infinite=0, low=nan, high=nan, mean=nan, m2=0.0
    )


def no_categories(names: int) -> Categories:
    """Of no rows."""
    return Categories(counts=np.zeros(names, np.int64), unseen={}, other=0, nulls=0)


def count_numbers(values: Floats, edges: Floats) -> Numbers:
    """Of one chunk, which is scratch: sorted in place and overwritten. NaN is null."""
    values.sort()
    last = int(values.searchsorted(np.inf))
    first, end = (int(at) for at in values.searchsorted([-np.inf, np.inf], "right"))
    finite = values[first:last]
    bounds = np.concatenate(([0], finite.searchsorted(edges), [len(finite)]))
    found = no_numbers(len(edges) + 1)
    found = replace(found, counts=np.diff(bounds), nulls=len(values) - end, infinite=first + end - last)
    if not len(finite):
        return found
    held = found.counts > 0
    with np.errstate(over="ignore", invalid="ignore"):
        found.sums[held] = np.add.reduceat(finite, bounds[:-1][held])
        mean = float(found.sums.sum()) / len(finite)
        if not np.isfinite(mean):
            mean = float(np.sum(finite / len(finite)))
        low, high = float(finite[0]) + 0.0, float(finite[-1]) + 0.0  # -0.0 is 0.0
        finite -= mean
        finite *= finite  # not finite @ finite, which would wake BLAS's threads
        m2 = float(finite.sum())
    return replace(found, low=low, high=high, mean=mean, m2=m2)


def merge_numbers(parts: Sequence[Numbers]) -> Numbers:
    """Of all parts' rows. Means and squares by Chan, Golub and LeVeque 1979."""
    found = no_numbers(0)
    if held := [(part, part.values) for part in parts if not math.isnan(part.low)]:
        rows = sum(count for _, count in held)
        mean = sum(part.mean * (count / rows) for part, count in held)
        m2 = sum(part.m2 + count * (part.mean - mean) * (part.mean - mean) for part, count in held)
        low, high = min(part.low for part, _ in held), max(part.high for part, _ in held)
        found = replace(found, low=low, high=high, mean=mean, m2=m2)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = reduce(np.add, [part.sums for part in parts])
    return replace(
        found,
        counts=reduce(np.add, [part.counts for part in parts]),
        sums=sums,
        nulls=sum(part.nulls for part in parts),
        infinite=sum(part.infinite for part in parts),
        inflation=max(part.inflation for part in parts),
    )


def count_categories(chunk: pa.DictionaryArray, names: pa.Array) -> Categories:
    """Of one chunk of canonical text."""
    held = chunk.indices.drop_null() if chunk.null_count else chunk.indices
    counts = np.bincount(held.to_numpy(zero_copy_only=False), minlength=len(chunk.dictionary)).astype(np.int64)
    words = chunk.dictionary.cast(pa.large_string())
    places = pc.fill_null(pc.index_in(words, value_set=names), -1).to_numpy()
    known = places >= 0
    found = np.zeros(len(names), np.int64)
    np.add.at(found, places[known], counts[known])
    named, other = _heaviest(words, np.where(known, 0, counts))
    return Categories(counts=found, unseen=named, other=other, nulls=len(chunk) - len(held))


def merge_categories(parts: Sequence[Categories]) -> Categories:
    """Of all parts' rows."""
    named: dict[str, int] = {}
    for part in parts:
        for name, count in part.unseen.items():
            named[name] = named.get(name, 0) + count
    kept = _reduced(named)
    return Categories(
        counts=np.sum([part.counts for part in parts], axis=0),
        unseen=kept,
        other=sum(part.other for part in parts) + sum(named.values()) - sum(kept.values()),
        nulls=sum(part.nulls for part in parts),
        inflation=max(part.inflation for part in parts),
    )


def _heaviest(words: pa.Array, counts: Ints) -> tuple[dict[str, int], int]:
    """The names with most rows, less what Misra and Gries take from each, and the rows that are not named."""
    total = int(counts.sum())
    if not total:
        return {}, 0
    counts = np.where(pc.utf8_length(words).to_numpy(zero_copy_only=False) > NAME_LENGTH_MAX, 0, counts)
    if len(counts) > UNSEEN_MAX:
        counts = np.maximum(counts - np.partition(counts, -UNSEEN_MAX - 1)[-UNSEEN_MAX - 1], 0)
    kept = np.flatnonzero(counts)
    named = dict(zip(words.take(kept).to_pylist(), counts[kept].tolist(), strict=True))
    return named, total - int(counts.sum())


def _reduced(named: Mapping[str, int]) -> dict[str, int]:
    if len(named) <= UNSEEN_MAX:
        return dict(named)
    taken = sorted(named.values(), reverse=True)[UNSEEN_MAX]
    return {name: count - taken for name, count in named.items() if count > taken}
