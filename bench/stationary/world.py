"""Columns that stay as they are, and the hours in which they look as if they did not.

Each hour brings a batch, and the current window is the newest eight, so neighbouring windows share seven eighths of
their rows. A year has 175,200 p-values for twenty columns; nearly all are far from counting, and a bound says which:
only an hour that may count is measured by `retrainer.drift.p_value` itself, on the profiles of its rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import chdtrc

from retrainer.core.policy import Column
from retrainer.drift.counting import (
    Categories,
    Numbers,
    count_categories,
    count_numbers,
    merge_categories,
    merge_numbers,
)
from retrainer.drift.distances import score
from retrainer.drift.grid import CategoryGrid, NumberGrid, category_grid, number_grid
from retrainer.drift.p_value import inflation, p_value
from retrainer.drift.two_sample import EXPECTED_MIN, limit

HOURS = 8760
BATCHES = 8
REFERENCE_BATCHES = 50
MEMORY = 0.5
"""The correlation of a row with the one before, in an autocorrelated column."""

SPENT_A_YEAR = 0.051
"""The default trigger's budget of false alarms is 0.05 a year: what is above this share of it cannot count."""

Shape = Literal[
    "normal", "lognormal", "autocorrelated", "2 categories", "10 categories", "50 categories", "500 categories"
]
NUMERICAL: tuple[Shape, ...] = ("normal",) * 8 + ("lognormal",) * 4 + ("autocorrelated",) * 4
MIX = (*NUMERICAL, "2 categories", "10 categories", "50 categories", "500 categories")
NUMBER, NAME = Column(kind="numerical", test="wasserstein"), Column(kind="categorical", test="jensenshannon")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Setting:
    """So many columns, rows of the current window and of the reference, and years of it, or of so many hours."""

    columns: int
    rows: int
    reference: int
    years: int
    hours: int = HOURS

    @property
    def hourly(self) -> int:
        return self.rows // BATCHES

    @property
    def window(self) -> int:
        """The rows of eight whole batches."""
        return self.hourly * BATCHES

    @property
    def shapes(self) -> Iterator[Shape]:
        """Of twenty columns all of MIX; every fifth is one of categories."""
        order = [16, 0, 8, 12, 1, 17, 2, 9, 13, 3, 18, 4, 10, 14, 5, 19, 6, 11, 15, 7]
        return (MIX[order[(i + 1) % len(MIX)]] for i in range(self.columns))


def levels(shape: Shape) -> int:
    """The categories of a column; 0 for numbers."""
    return int(shape.split()[0]) if shape.endswith("categories") else 0


def shares(count: int) -> Floats:
    """Of so many categories: the k-th has a k-th of the first one's (Zipf), so that most of many are rare."""
    each: Floats = 1 / np.arange(1, count + 1)
    each /= each.sum()
    return each


def drawn(shape: Shape, rows: int, rng: np.random.Generator) -> Floats:
    """Rows of a column in order; categories as their numbers."""
    if count := levels(shape):
        return rng.choice(count, rows, p=shares(count)).astype(np.float64)
    values: Floats = rng.normal(size=rows)
    if shape == "autocorrelated":
        values[1:] *= np.sqrt(1 - MEMORY**2)
        values = np.asarray(lfilter([1.0], [1.0, -MEMORY], values))
    if shape == "lognormal":
        np.exp(values, out=values)
    return values


def spelled(shape: Shape, values: Floats) -> Floats | NDArray[np.object_]:
    """As the worker would hand them on."""
    if not levels(shape):
        return values
    names = np.array([f"c{i}" for i in range(int(values.max()) + 1)], dtype=object)
    found: NDArray[np.object_] = names[values.astype(np.int64)]
    return found


@dataclass(frozen=True, slots=True)
class Known:
    """What the daemon keeps of a column's reference: the grid, and the profile on it."""

    shape: Shape
    grid: NumberGrid | CategoryGrid
    profile: Numbers | Categories

    @property
    def declared(self) -> Column:
        return NAME if levels(self.shape) else NUMBER

    def p_value(self, rows: Floats) -> float:
        """By the daemon's own statistics."""
        return p_value(self.profile, counted(self.grid, rows))

    def score(self, rows: Floats) -> float:
        """On the scale of the declared test."""
        return score(self.declared, self.grid, self.profile, counted(self.grid, rows)).value


def known(shape: Shape, reference: Floats) -> Known:
    """The reference as fifty batches."""
    grid = category_grid(spelled(shape, reference)) if levels(shape) else number_grid(reference)
    parts = [counted(grid, part) for part in np.array_split(reference, REFERENCE_BATCHES)]
    spread = inflation(parts)
    numbers = [part for part in parts if isinstance(part, Numbers)]
    if numbers:
        return Known(shape, grid, replace(merge_numbers(numbers), inflation=spread))
    names = [part for part in parts if isinstance(part, Categories)]
    return Known(shape, grid, replace(merge_categories(names), inflation=spread))


def counted(grid: NumberGrid | CategoryGrid, rows: Floats) -> Numbers | Categories:
    """The profile of the column."""
    if isinstance(grid, NumberGrid):
        return count_numbers(rows.copy(), grid.edges)
    codes = rows.astype(np.int32)
    words = pa.array([f"c{i}" for i in range(int(codes.max()) + 1)])
    return count_categories(
        pa.DictionaryArray.from_arrays(pa.array(codes), words), pa.array(grid.names, pa.large_string())
    )


@dataclass(frozen=True, slots=True)
class Series:
    """One column: the reference, and the rows of each hour, the first seven before the year begins."""

    shape: Shape
    reference: Floats = field(repr=False)
    hours: Floats = field(repr=False)

    def window(self, hour: int) -> Floats:
        return self.hours[hour : hour + BATCHES].ravel()

    @property
    def checks(self) -> int:
        return len(self.hours) - BATCHES + 1


def draw(shape: Shape, setting: Setting, rng: np.random.Generator, hours: int = 0) -> Series:
    """A column of a year; the reference ends long before it."""
    between = 100
    after = ((hours or setting.hours) + BATCHES - 1) * setting.hourly
    values = drawn(shape, setting.reference + between + after, rng)
    year = values[setting.reference + between :]
    return Series(shape, values[: setting.reference], year.reshape(-1, setting.hourly))


def year(setting: Setting, rng: np.random.Generator) -> dict[int, dict[int, float]]:
    """Hour by hour the columns whose p-value may count, and it."""
    found: dict[int, dict[int, float]] = {}
    for i, shape in enumerate(setting.shapes):
        series = draw(shape, setting, rng)
        told = known(shape, series.reference)
        for hour in np.flatnonzero(chances(series, told.profile.inflation, upper=True) <= _counting(setting)):
            found.setdefault(int(hour), {})[i] = told.p_value(series.window(int(hour)))
    return found


def _counting(setting: Setting) -> Floats:
    """The p-values above which the trigger is never certain of one of so many columns: a day's worth at the first."""
    hourly = SPENT_A_YEAR / HOURS / setting.columns
    return np.where(np.arange(setting.hours) == 0, 24 * hourly, hourly)


def all_chances(setting: Setting, rng: np.random.Generator) -> Floats:
    """Every p-value of a year, one row an hour, good to a few per cent."""
    found = []
    for shape in setting.shapes:
        series = draw(shape, setting, rng)
        spread = known(shape, series.reference).profile.inflation if shape == "autocorrelated" else 1.0
        found.append(chances(series, spread, cells=256))
    return np.stack(found, axis=1)


def frames(setting: Setting, rng: np.random.Generator, hours: int) -> Sequence[Series]:
    """The columns of the first hours of a year."""
    return [draw(shape, setting, rng, hours) for shape in setting.shapes]


def chances(series: Series, spread: float, *, upper: bool = False, cells: int = 0) -> Floats:
    """About the p-value of every hour; or, by an `upper` bound of the distance, no more than it."""
    if levels(series.shape):
        return _by_counts(series, spread, upper=upper)
    rows, old = series.hours.shape[1] * BATCHES, np.sort(series.reference)
    scale = np.sqrt(rows * len(old) / (rows + len(old)))
    cells = cells or int(2.3 * scale)
    edges = old[np.linspace(0, len(old) - 1, cells + 1).astype(np.int64)[1:-1]]
    below = np.searchsorted(old, edges, "right") / len(old)
    share = np.cumsum(_windows(np.searchsorted(edges, series.hours, "left"), cells), axis=1)[:, :-1] / rows
    distance = np.max(np.abs(share - below), axis=1)
    if upper:
        distance = distance + np.max(np.diff(below, prepend=0.0, append=1.0))
    return limit(distance * scale / np.sqrt(spread))


def _by_counts(series: Series, spread: float, *, upper: bool) -> Floats:
    """As `two_sample.contingency`, all hours at once: the G statistic is a sum over categories of twice their rows'
    Kullback-Leibler distances.

    `upper`: without what makes a p-value larger still, Williams' correction and the last category that is taken in.
    """
    count = max(levels(series.shape), int(series.reference.max()) + 1)
    seen = _windows(series.hours.astype(np.int64), count) / spread
    old = np.broadcast_to(np.bincount(series.reference.astype(np.int64), minlength=count) / spread, seen.shape)
    share = float(seen[0].sum() / (seen[0].sum() + old[0].sum()))
    rare = (seen + old) * min(share, 1 - share) < EXPECTED_MIN
    each = _apart(seen, old, share)
    pooled = _apart(np.sum(seen, axis=1, where=rare), np.sum(old, axis=1, where=rare), share)
    degrees = np.maximum((~rare).sum(axis=1) - (1 if upper else 1 - rare.any(axis=1)), 1)
    tested: Floats = chdtrc(degrees, np.sum(each, axis=1, where=~rare) + pooled)
    lone = 2 * ((seen + old) * rare > 0).sum(axis=1) * np.exp(-np.max(each, axis=1, where=rare, initial=0.0) / 2)
    least = np.minimum(np.where(lone > 0, lone, 1.0), 2 * np.exp(-pooled / 2))
    found: Floats = np.where(rare.any(axis=1), np.minimum(1.0, 3 * np.minimum(tested, least)), tested)
    return found


def _apart(seen: Floats, old: Floats, share: float) -> Floats:
    found: Floats = 2 * (_against(seen, (seen + old) * share) + _against(old, (seen + old) * (1 - share)))
    return found


def _against(counts: Floats, expected: Floats) -> Floats:
    found: Floats = counts * np.log(np.maximum(counts, 1e-300) / np.maximum(expected, 1e-300))
    return found


def _windows(codes: NDArray[np.int64], cells: int) -> NDArray[np.int64]:
    """How many rows of each cell are in the window of each hour."""
    hours = len(codes)
    flat = codes + np.arange(hours)[:, None] * cells
    counts = np.bincount(flat.ravel(), minlength=hours * cells).reshape(hours, cells)
    sums = np.cumsum(np.concatenate((np.zeros((1, cells), np.int64), counts)), axis=0)
    found: NDArray[np.int64] = sums[BATCHES:] - sums[:-BATCHES]
    return found
