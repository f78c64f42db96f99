"""How far two windows' profiles are from each other, by the tests of Evidently and as it would have it on the rows.

Every score comes with bounds that hold for what the test gives on all rows, after the mendings of
`retrainer.drift.columns`. Categories that are all counted by name give it exactly, up to rounding.
"""

import math
from dataclasses import dataclass

import numpy as np

from retrainer.core.policy import Column
from retrainer.drift import clipped, columns, cumulative, divergences, significance
from retrainer.drift.categories import Union, union
from retrainer.drift.cells import deviation
from retrainer.drift.clipped import Clipped, Pieces
from retrainer.drift.columns import NULL
from retrainer.drift.counting import Categories, Numbers
from retrainer.drift.divergences import Bounds, Table
from retrainer.drift.grid import CategoryGrid, NumberGrid
from retrainer.drift.values import Floats

_CATEGORIES = 20
"""Up to so many different values of the reference, Evidently's PSI and Jensen-Shannon take numbers for categories."""

_ROUNDING = 1e-7
_SLACK = {"jensenshannon": 2e-7, "hellinger": 2e-7, "ks": 1e-12, "chisquare": 1e-12, "g_test": 1e-12}
"""How far rounding may put a score out, relative and absolute; the root of a difference of nearly equal terms most."""

_LARGEST = 1e140
"""Squares and sums of larger values are not certain to be numbers."""


@dataclass(frozen=True, slots=True)
class Score:
    """A column's score on the scale of its test: on all rows the test gives at least `low` and at most `high`."""

    value: float
    low: float
    high: float


def score(
    column: Column, grid: NumberGrid | CategoryGrid, reference: Numbers | Categories, current: Numbers | Categories
) -> Score:
    """The column's score, its nulls counted in. Both windows have rows, counted on the grid."""
    if isinstance(grid, CategoryGrid):
        assert isinstance(reference, Categories)
        assert isinstance(current, Categories)
        return _categorical(column, union(grid, reference, current))
    assert isinstance(reference, Numbers)
    assert isinstance(current, Numbers)
    nulls = (reference.nulls + reference.infinite, current.nulls + current.infinite)
    rows = (reference.values + nulls[0], current.values + nulls[1])
    if column.test == "missing":
        return _apart(rows, nulls)
    found = _numerical(column, grid, reference, current)
    if not any(nulls):
        return found
    other = _of_nulls(column, rows, nulls)
    pairs = ((found.value, other.value), (found.low, other.low), (found.high, other.high))
    return Score(*(columns.worse(column, a, b) for a, b in pairs))


def decided(column: Column, found: Score) -> bool:
    """Whether the bounds lie on one side of the column's threshold, so that the rows need not be asked."""
    _, threshold = columns.rule(column)
    return (found.low >= threshold) == (found.high >= threshold)


def _categorical(column: Column, held: Union) -> Score:
    test, _ = columns.rule(column)
    if test == "missing":
        return _apart(held.rows, tuple(held.counts[:, held.names.index(NULL)]) if NULL in held.names else (0, 0))
    if test == "unseen":
        low, high = held.unseen
        return Score(low, low, high)  # where not all names are known, what may be new need not be
    if len(held.names) <= 1 and not any(held.rest):
        return _exactly(columns.unchanged(column))
    if test in columns.P_VALUES:
        value, bounds = significance.of_counts(test, held.names, held.counts, held.rest)
        return _rounded(test, value, bounds)
    return _of_table(test, held.table)


def _of_nulls(column: Column, rows: tuple[int, int], nulls: tuple[int, int]) -> Score:
    """Of whether each value is null, as of a categorical column."""
    test, _ = columns.rule(column)
    if test == "wasserstein":
        return _apart(rows, nulls)
    counts = np.array([[n - m, m] for n, m in zip(rows, nulls, strict=True)], np.int64)
    names = np.array(["value", NULL], dtype=object)[counts.sum(axis=0) > 0]
    counts = counts[:, counts.sum(axis=0) > 0]
    return _categorical(_flag_column(column), Union(tuple(names), counts))


def _flag_column(column: Column) -> Column:
    test = "chisquare" if column.test == "ks" else column.test
    return column.model_copy(update={"kind": "categorical", "test": test})


def _numerical(column: Column, grid: NumberGrid, reference: Numbers, current: Numbers) -> Score:
    test, _ = columns.rule(column)
    if not reference.values or not current.values:
        same = reference.values == current.values
        return _exactly(columns.unchanged(column) if same else columns.farthest(column))
    if reference.low == reference.high == current.low == current.high:
        return _exactly(columns.unchanged(column))
    if max(abs(x) for x in (reference.low, reference.high, current.low, current.high)) > _LARGEST:
        return _unknown(column)
    held = clipped.clipped(grid, reference, current)
    if test == "ks":
        low, high = significance.kolmogorov_smirnov(cumulative.kolmogorov_smirnov(grid, held), *held.sizes)
        return _rounded(test, (low + high) / 2, (low, high))
    if test == "wasserstein":
        return _wasserstein(column, grid, held)
    parts = clipped.pieces(held)
    if test == "hellinger":
        return _in_bins(test, held, *parts.distinct(held.inside, slice(None)))
    return _binned(test, held, parts)


def _wasserstein(column: Column, grid: NumberGrid, held: Clipped) -> Score:
    """Normed as in columns.pair: by the reference's spread, or by that of both windows where it has none."""
    about, low, high = cumulative.wasserstein(grid, held)
    old, new = held.windows
    if old.low == old.high:
        rows = old.rows + new.rows
        spread = math.sqrt((new.m2 + old.rows * new.rows / rows * (new.mean - old.mean) ** 2) / rows)
        if spread <= 0:
            return _unknown(column)
        return _rounded("wasserstein", about / spread, (low / spread, high / spread))
    least, most = deviation(old, held.first, held.last)
    if least <= 8 * np.finfo(np.float64).eps * max(abs(old.low), abs(old.high)):
        return _unknown(column)
    return _rounded("wasserstein", about / ((least + most) / 2), (low / most, high / least))


def _binned(test: str, held: Clipped, parts: Pieces) -> Score:
    """PSI and Jensen-Shannon: in bins over both windows, or of values as categories if the reference has few."""
    fewest, most = parts.distinct(held.inside, slice(0, 1))
    found = []
    if most > _CATEGORIES:
        found.append(_in_bins(test, held, int(held.rows.sum()), int(held.rows.sum())))
    if fewest <= _CATEGORIES:
        found.append(_of_table(test, clipped.table(held, parts)))
    return Score(found[0].value, min(f.low for f in found), max(f.high for f in found))


def _in_bins(test: str, held: Clipped, least: int, most: int) -> Score:
    """In as many bins of equal width as Sturges (1926) has for at least and at most so many values."""
    numbers = sorted({*held.sturges(least), *held.sturges(most)})
    found = []
    for count in range(numbers[0], numbers[-1] + 1):
        points = held.edges(count)
        bounds = divergences.of_bins(test, held.rows, *held.between(points))
        if test == "hellinger":
            bounds = _of_widths(points, bounds)
        found.append(_rounded(test, divergences.of_shares(test, held.about(points)), bounds))
    low, high = min(f.low for f in found), max(f.high for f in found)
    return Score(min(max(found[-1].value, low), high), low, high)


def _of_widths(points: tuple[Floats, Floats], bounds: Bounds) -> Bounds:
    """Evidently's Hellinger distance is of densities, and far from zero the bins' widths are rounded."""
    width = float(points[1][-1] - points[0][0]) / (len(points[0]) - 1)
    out = 1e-15 * float(np.max(np.abs(points))) / width if width > 0 else 1.0
    return math.sqrt(max(bounds[0] ** 2 - out, 0.0)), math.sqrt(bounds[1] ** 2 + out)


def _of_table(test: str, table: Table) -> Score:
    bounds = divergences.of_table(test, table)
    return _rounded(test, sum(bounds) / 2, bounds)


def _rounded(test: str, value: float, bounds: Bounds) -> Score:
    slack = _SLACK.get(test, 1e-9)
    low, high = max(bounds[0] * (1 - _ROUNDING) - slack, 0.0), bounds[1] * (1 + _ROUNDING) + slack
    return Score(value, low, min(high, 1.0) if test in columns.P_VALUES else high)


def _apart(rows: tuple[int, int], nulls: tuple[int, int]) -> Score:
    share = abs(nulls[1] / rows[1] - nulls[0] / rows[0])
    return _rounded("missing", share, (share, share))


def _exactly(value: float) -> Score:
    return Score(value, value, value)


def _unknown(column: Column) -> Score:
    """Where only the rows can tell."""
    if column.test in columns.P_VALUES:
        return Score(columns.unchanged(column), 0.0, 1.0)
    return Score(columns.farthest(column), 0.0, math.inf)
