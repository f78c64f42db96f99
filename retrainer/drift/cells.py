"""What the cells of a grid say of the values in them: where a quantile lies, how many are below a point, their spread.

A cell has a count and a sum, and its values lie between two floats. That bounds each answer from both sides; where a
cell has one value, or can hold but one, the answer is exact.
"""

import math
from dataclasses import dataclass

import numpy as np

from retrainer.drift.counting import Numbers
from retrainer.drift.divergences import Bounds
from retrainer.drift.grid import NumberGrid
from retrainer.drift.values import Floats, Ints

ROUNDING = 1e-12
"""Of a sum, as a share of its terms: it is added up chunk by chunk, within them in pairs (Higham 1993)."""

_SQUARES = 1e-9
"""Of a standard deviation, as a share of it."""

_WHOLE = 1e-6
_ULPS = 1e-15


@dataclass(frozen=True, slots=True)
class Cells:
    """The finite values of one window, at least one: those of cell i lie in [bottom[i], top[i]], both closed.

    `before[i]` are in the cells before i; it has one entry more than there are cells.
    """

    counts: Ints
    sums: Floats
    bottom: Floats
    top: Floats
    before: Ints
    low: float
    high: float
    mean: float
    m2: float

    @property
    def rows(self) -> int:
        """How many values there are."""
        return int(self.before[-1])

    @property
    def slack(self) -> Floats:
        """How far each sum may be from the true one."""
        return np.asarray(ROUNDING * self.counts * np.maximum(np.abs(self.bottom), np.abs(self.top)), np.float64)


def cells(grid: NumberGrid, held: Numbers) -> Cells:
    """Of a window with at least one finite value."""
    bottom = np.clip(np.concatenate(([-np.inf], grid.edges)), held.low, held.high)
    with np.errstate(over="ignore"):
        top = np.clip(np.concatenate((np.nextafter(grid.edges, -np.inf), [np.inf])), held.low, held.high)
    alone = held.counts == 1
    only = np.clip(held.sums, bottom, top)
    return Cells(
        counts=held.counts,
        sums=np.where(bottom == top, held.counts * bottom, held.sums),
        bottom=np.where(alone, only, bottom),
        top=np.where(alone, only, top),
        before=np.concatenate(([0], np.cumsum(held.counts))),
        low=held.low,
        high=held.high,
        mean=held.mean,
        m2=held.m2,
    )


def below(held: Cells, least: Floats, most: Floats) -> tuple[Ints, Ints]:
    """How many values are less than a point, at least and at most, of points that lie somewhere in [least, most].

    Of n values in [a, b] that sum to s, at least (ne - s) / (e - a) and at most (nb - s) / (b - e) are less than e.
    """
    filled = np.flatnonzero(held.counts)
    bottom, top, counts, sums = held.bottom[filled], held.top[filled], held.counts[filled], held.sums[filled]
    before, slack = held.before[filled], held.slack[filled]
    found = []
    for points, at_most in ((least, False), (most, True)):
        at = np.searchsorted(bottom, points, "left") - 1  # the last cell that begins before the point, -1 for none
        a, b, n, s = (x[at] for x in (bottom, top, counts, sums))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            part = (n * b - s + slack[at]) / (b - points) if at_most else (n * points - s - slack[at]) / (points - a)
        part = np.floor(part + _WHOLE) if at_most else np.ceil(part - _WHOLE)
        whole = (b <= points) if at_most else (b < points)
        part = np.where(whole, n, np.clip(np.nan_to_num(part, nan=float("inf") if at_most else 0.0), 0, n))
        found.append(np.where(at < 0, 0, before[at] + part).astype(np.int64))
    return found[0], np.maximum(found[0], found[1])


def about_below(held: Cells, points: Floats) -> Floats:
    """About how many values are less than each point, were a cell's values spread evenly."""
    filled = np.flatnonzero(held.counts)
    bottom, top = held.bottom[filled], held.top[filled]
    at = np.searchsorted(bottom, points, "left") - 1
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = np.where(top[at] < points, 1.0, (points - bottom[at]) / (top[at] - bottom[at]))
    return np.where(at < 0, 0.0, held.before[filled][at] + share * held.counts[filled][at])


def quantile(held: Cells, share: float) -> Bounds:
    """The quantile, interpolated as numpy does by default, at least and at most."""
    place = share * (held.rows - 1)
    at = math.floor(place)
    first, second = _nth(held, at), _nth(held, min(at + 1, held.rows - 1))
    if first[0] == second[1]:
        return first
    low, high = (a + (b - a) * (place - at) for a, b in zip(first, second, strict=True))
    slack = _ULPS * max(abs(low), abs(high))
    return low - slack, high + slack


def _nth(held: Cells, n: int) -> Bounds:
    """The value that has n smaller ones or equal ones before it, at least and at most."""
    i = int(np.searchsorted(held.before, n, "right")) - 1
    a, b, count = float(held.bottom[i]), float(held.top[i]), int(held.counts[i])
    if a == b:
        return a, a
    m, total, slack = n - int(held.before[i]), float(held.sums[i]), float(held.slack[i])
    low = (total - slack - (count - m - 1) * b) / (m + 1)
    high = (total + slack - m * a) / (count - m)
    return min(max(low, a), b), max(min(high, b), a)


def deviation(held: Cells, first: Bounds, last: Bounds) -> Bounds:
    """The standard deviation, at least and at most, of the values clipped to limits that lie in `first` and `last`.

    Of n values in [a, b] with mean m, the squared distances from m sum to n(b - m)(m - a) at most (Bhatia and Davis
    2000).
    """
    if first[1] <= held.low and held.high <= last[0]:
        known = math.sqrt(max(held.m2, 0.0) / held.rows)
        return known * (1 - _SQUARES), known * (1 + _SQUARES)
    filled = np.flatnonzero(held.counts)
    n, total = held.counts[filled].astype(np.float64), held.sums[filled]
    bottom, top = held.bottom[filled], held.top[filled]
    whole = (bottom >= first[1]) & (top <= last[0])
    low, high = (np.clip(edge, first[e], last[e]) for e, edge in ((0, bottom), (1, top)))
    centre = float(np.sum(n * (low + high) / 2) / n.sum())
    low, high, middle = low - centre, high - centre, np.clip(total / n - centre, low - centre, high - centre)
    nearest = np.where((low < 0) & (high > 0), 0.0, np.minimum(low**2, high**2))
    least = n * np.where(whole, middle**2, nearest)
    most = n * np.where(whole, middle**2 + (high - middle) * (middle - low), np.maximum(low**2, high**2))
    sums = [float(np.sum(n * np.where(whole, middle, edge))) for edge in (low, high)]
    near = 0.0 if sums[0] < 0 < sums[1] else min(sums[0] ** 2, sums[1] ** 2)
    variance = (float(least.sum()) - max(sums[0] ** 2, sums[1] ** 2) / n.sum()) / n.sum()
    upper = (float(most.sum()) - near / n.sum()) / n.sum()
    return math.sqrt(max(variance, 0.0)) * (1 - _SQUARES), math.sqrt(max(upper, 0.0)) * (1 + _SQUARES)
