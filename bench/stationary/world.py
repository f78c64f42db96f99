"""Columns that stay as they are for a year, and the hours in which they look as if they did not.

Each hour brings a batch, and the current window is the newest eight, so neighbouring windows share seven eighths of
their rows. A year has 175,200 p-values for twenty columns; nearly all are far from counting, and a bound says which:
only an hour that may be below CANDIDATE is measured by `retrainer.drift.p_value` itself, on its own rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from retrainer.core.policy import Column
from retrainer.drift.p_value import numerical_inflation, p_value
from retrainer.drift.two_sample import chi_square_tail, limit

HOURS = 8760
BATCHES = 8
REFERENCE_BATCHES = 50
MEMORY = 0.5
"""The correlation of a row with the one before, in an autocorrelated column."""

CANDIDATE, CANDIDATE_FIRST = 3e-7, 1e-5
"""The default trigger is never certain above it, of twenty columns or more: 0.05 a year is 5.7e-6 an hour, 2.9e-7 a
column; at the first check a day's worth, 6.9e-6."""

SHARES = np.array([0.3, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05, 0.03, 0.015, 0.005])
"""Of the categories of a categorical column; the last are too rare to be expected in a small window."""

Shape = Literal["normal", "lognormal", "autocorrelated", "categorical"]
MIX: tuple[Shape, ...] = ("normal",) * 8 + ("lognormal",) * 4 + ("autocorrelated",) * 4 + ("categorical",) * 4
NUMBER, NAME = Column(kind="numerical", test="wasserstein"), Column(kind="categorical", test="jensenshannon")
NAMES = np.array([f"c{i}" for i in range(len(SHARES))], dtype=object)
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Setting:
    """So many columns, rows of the current window and of the reference, and years of it."""

    columns: int
    rows: int
    reference: int
    years: int

    @property
    def hourly(self) -> int:
        return self.rows // BATCHES

    @property
    def shapes(self) -> Iterator[Shape]:
        return (MIX[i % len(MIX)] for i in range(self.columns))


@dataclass(frozen=True, slots=True)
class Series:
    """One column: the reference, and the rows of each hour, the first seven before the year begins.

    Categories are held as their numbers.
    """

    shape: Shape
    reference: NDArray[np.float64] = field(repr=False)
    hours: NDArray[np.float64] = field(repr=False)

    @property
    def declared(self) -> Column:
        return NAME if self.shape == "categorical" else NUMBER

    def window(self, hour: int) -> NDArray[np.float64]:
        return self.hours[hour : hour + BATCHES].ravel()

    def spelled(self, values: NDArray[np.float64]) -> NDArray[np.float64] | NDArray[np.object_]:
        """As the worker would hand them on."""
        return NAMES[values.astype(np.int64)] if self.shape == "categorical" else values

    def p_value(self, hour: int) -> float:
        """By the daemon's own statistics."""
        batches = [len(part) for part in np.array_split(self.reference, REFERENCE_BATCHES)]
        return p_value(self.declared, self.spelled(self.reference), self.spelled(self.window(hour)), batches)


def draw(shape: Shape, setting: Setting, rng: np.random.Generator, hours: int = HOURS) -> Series:
    """A column of a year; the reference ends long before it."""
    after = (hours + BATCHES - 1) * setting.hourly
    if shape == "categorical":
        values = rng.choice(len(SHARES), setting.reference + after, p=SHARES).astype(np.float64)
        return Series(shape, values[: setting.reference], values[setting.reference :].reshape(-1, setting.hourly))
    between = 100
    values = rng.normal(size=setting.reference + between + after)
    if shape == "autocorrelated":
        values = np.asarray(lfilter([np.sqrt(1 - MEMORY**2)], [1.0, -MEMORY], values))
    if shape == "lognormal":
        values = np.exp(values)
    year = values[setting.reference + between :]
    return Series(shape, values[: setting.reference], year.reshape(-1, setting.hourly))


def candidates(series: Series) -> NDArray[np.int64]:
    """The hours whose p-value may be below CANDIDATE."""
    found = chances(series, upper=True)
    return np.flatnonzero(found <= np.where(np.arange(len(found)) == 0, CANDIDATE_FIRST, CANDIDATE))


def chances(series: Series, *, upper: bool = False, cells: int = 0) -> Numbers:
    """About the p-value of every hour; or, by an `upper` bound of the distance, no more than it."""
    if series.shape == "categorical":
        return _by_counts(series, upper=upper)
    rows, known = series.hours.shape[1] * BATCHES, np.sort(series.reference)
    scale = np.sqrt(rows * len(known) / (rows + len(known)))
    cells = cells or int(2.3 * scale)
    edges = known[np.linspace(0, len(known) - 1, cells + 1).astype(np.int64)[1:-1]]
    below = np.searchsorted(known, edges, "right") / len(known)
    share = np.cumsum(_windows(np.searchsorted(edges, series.hours, "left"), cells), axis=1)[:, :-1] / rows
    distance = np.max(np.abs(share - below), axis=1)
    if upper:
        distance = distance + np.max(np.diff(below, prepend=0.0, append=1.0))
    spread = 1.0
    if series.shape == "autocorrelated":
        edges_of = np.cumsum([0, *(len(part) for part in np.array_split(series.reference, REFERENCE_BATCHES))])
        spread = numerical_inflation(series.reference, edges_of)
    return limit(distance * scale / np.sqrt(spread))


def _by_counts(series: Series, *, upper: bool) -> Numbers:
    """By the G statistic of all categories: that of any of them, alone or taken together, is no larger. Five are
    common, and with four degrees of freedom, or by Hoeffding's bound six times, its p-value is at least 6 exp(-G / 2).
    """
    seen = _windows(series.hours.astype(np.int64), len(SHARES)).astype(np.float64)
    known = np.bincount(series.reference.astype(np.int64), minlength=len(SHARES)).astype(np.float64)
    rows = series.hours.shape[1] * BATCHES
    g = 2 * (_entropic(seen).sum(axis=1) + _entropic(known).sum() - _entropic(seen + known).sum(axis=1))
    g -= 2 * float(np.sum(_entropic(np.array([rows, known.sum()]))) - _entropic(np.array([rows + known.sum()]))[0])
    if upper:
        least: Numbers = 6 * np.exp(-g / 2)
        return least
    found = np.ones(len(g))
    for hour in np.flatnonzero(g > len(SHARES)):
        found[hour] = chi_square_tail(float(g[hour]), len(SHARES) - 1)
    return found


def _entropic(counts: Numbers) -> Numbers:
    return counts * np.log(np.maximum(counts, 1.0))


def _windows(codes: NDArray[np.int64], cells: int) -> NDArray[np.int64]:
    """How many rows of each cell are in the window of each hour."""
    hours = len(codes)
    flat = codes + np.arange(hours)[:, None] * cells
    counts = np.bincount(flat.ravel(), minlength=hours * cells).reshape(hours, cells)
    sums = np.cumsum(np.concatenate((np.zeros((1, cells), np.int64), counts)), axis=0)
    found: NDArray[np.int64] = sums[BATCHES:] - sums[:-BATCHES]
    return found


def year(setting: Setting, rng: np.random.Generator) -> dict[int, dict[int, float]]:
    """Hour by hour the columns whose p-value may count, and it."""
    found: dict[int, dict[int, float]] = {}
    for i, shape in enumerate(setting.shapes):
        series = draw(shape, setting, rng)
        for hour in candidates(series):
            found.setdefault(int(hour), {})[i] = series.p_value(int(hour))
    return found


def all_chances(setting: Setting, rng: np.random.Generator) -> Numbers:
    """Every p-value of a year, one row an hour, good to a few per cent."""
    return np.stack([chances(draw(shape, setting, rng), cells=256) for shape in setting.shapes], axis=1)


def frames(setting: Setting, rng: np.random.Generator, hours: int) -> Sequence[Series]:
    """The columns of the first hours of a year."""
    return [draw(shape, setting, rng, hours) for shape in setting.shapes]
