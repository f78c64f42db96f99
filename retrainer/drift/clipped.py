"""A numerical column in both windows as its test would be given it: outliers clipped, as drift.columns does.

The limits follow from two quantiles of the reference, so they are known as well as its cells are narrow.
"""

import math
from dataclasses import dataclass

import numpy as np

from retrainer.drift import cells
from retrainer.drift.cells import Cells
from retrainer.drift.counting import Numbers
from retrainer.drift.divergences import Bounds, Table
from retrainer.drift.grid import CENTRE, NumberGrid
from retrainer.drift.values import Floats, Ints

_ULPS = 1e-15


@dataclass(frozen=True, slots=True)
class Clipped:
    """Both windows, each with values. After clipping the least value lies in `first`, the greatest in `last`."""

    windows: tuple[Cells, Cells]
    first: Bounds
    last: Bounds

    @property
    def sizes(self) -> tuple[int, int]:
        """How many values each window has."""
        return self.windows[0].rows, self.windows[1].rows

    @property
    def rows(self) -> Floats:
        """The same as numbers."""
        return np.array(self.sizes, dtype=np.float64)

    @property
    def inside(self) -> Bounds:
        """The limits between which no value is clipped."""
        return self.first[1], self.last[0]

    @property
    def known(self) -> bool:
        """Whether the limits are known to the last digit."""
        return self.first[0] == self.first[1] and self.last[0] == self.last[1]

    def sturges(self, values: int) -> tuple[int, ...]:
        """How many bins numpy makes of so many values; two answers where that hangs on the last digit of a width."""
        wanted = math.log2(values) + 1
        if self.known:
            width = self.last[0] - self.first[0]
            of_bin = width / float(np.log2(values) + 1.0)
            return (math.ceil(width / of_bin) if of_bin else 1,)
        return (math.ceil(wanted), math.floor(wanted) + 1)

    def edges(self, bins: int) -> tuple[Floats, Floats]:
        """Of so many bins of equal width: each edge at least and at most."""
        low, high = (np.linspace(self.first[end], self.last[end], bins + 1) for end in (0, 1))
        slack = 0.0 if self.known else _ULPS * max(abs(self.first[0]), abs(self.last[1]))
        return low - slack, high + slack

    def between(self, points: tuple[Floats, Floats]) -> tuple[Ints, Ints]:
        """The rows of each window between the points, at least and at most. The outer points have everything within."""
        least, most = [], []
        for window in self.windows:
            low, high = cells.below(window, points[0][1:-1], points[1][1:-1])
            low, high = (np.concatenate(([0], x, [window.rows])) for x in (low, high))
            least.append(np.maximum(low[1:] - high[:-1], 0))
            most.append(high[1:] - low[:-1])
        return np.stack(least), np.stack(most)

    def about(self, points: tuple[Floats, Floats]) -> Floats:
        """The rows of each window between the points, about, in whole numbers."""
        middle = (points[0][1:-1] + points[1][1:-1]) / 2
        counts = [np.concatenate(([0], cells.about_below(w, middle), [w.rows])) for w in self.windows]
        found: Floats = np.diff(np.rint(np.stack(counts)), axis=1)
        return found


def clipped(grid: NumberGrid, reference: Numbers, current: Numbers) -> Clipped:
    """Of two windows, each with values."""
    windows = cells.cells(grid, reference), cells.cells(grid, current)
    low, high = min(w.low for w in windows), max(w.high for w in windows)
    (a, b), (c, d) = (cells.quantile(windows[0], share) for share in CENTRE)
    first, last = (2 * a - d, 2 * b - c), (2 * c - b, 2 * d - a)
    if a == d or not math.isfinite(d - a):
        first, last = (-math.inf, -math.inf), (math.inf, math.inf)
    elif c <= b or not math.isfinite(first[0]) or not math.isfinite(last[1]):
        # Whether there is any width is not known, and without one nothing is clipped.
        first, last = (-math.inf, first[1]), (last[0], math.inf)
    within = (max(low, first[0]), max(low, first[1])), (min(high, last[0]), min(high, last[1]))
    return Clipped(windows, *within)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Both windows by cell: the rows of piece i, a row for each window, lie in [bottom[i], top[i]]. No value can be in
    two pieces, and a piece of one value has it in both windows."""

    bottom: Floats
    top: Floats
    counts: Ints

    def distinct(self, inside: Bounds, windows: slice) -> tuple[int, int]:
        """How many values of these windows differ from one another, at least and at most, clipped or not."""
        rows = self.counts[windows].sum(axis=0)
        held, single = rows > 0, self.bottom == self.top
        least = int(np.sum(held & (self.bottom >= inside[0]) & (self.top <= inside[1])))
        return max(least, 1), int(np.where(single, 1, rows)[held].sum())


def pieces(held: Clipped) -> Pieces:
    """Of both windows; a cell is two pieces where the windows' values in it are known to differ."""
    old, new = held.windows
    one, other = old.counts > 0, new.counts > 0
    apart = one & other & ((old.top < new.bottom) | (new.top < old.bottom))
    joint = (one | other) & ~apart
    bottom = np.minimum(np.where(one, old.bottom, np.inf), np.where(other, new.bottom, np.inf))
    top = np.maximum(np.where(one, old.top, -np.inf), np.where(other, new.top, -np.inf))
    none = np.zeros(int(apart.sum()), np.int64)
    counts = [(old.counts[joint], new.counts[joint]), (old.counts[apart], none), (none, new.counts[apart])]
    return Pieces(
        np.concatenate((bottom[joint], old.bottom[apart], new.bottom[apart])),
        np.concatenate((top[joint], old.top[apart], new.top[apart])),
        np.concatenate([np.stack(c) for c in counts], axis=1),
    )


def table(held: Clipped, parts: Pieces) -> Table:
    """Each value as a category of its own; pieces whose value is not known, or may be clipped, are blocks."""
    low = parts.bottom <= held.first[1] if np.any(parts.bottom < held.first[1]) else np.zeros(len(parts.top), bool)
    high = parts.top >= held.last[0] if np.any(parts.top > held.last[0]) else np.zeros(len(parts.top), bool)
    rest, known = ~low & ~high, parts.bottom == parts.top
    counts, blocks = [parts.counts[:, rest & known]], [parts.counts[:, rest & ~known]]
    if np.any(low & high):
        return Table(np.zeros((2, 0), np.int64), parts.counts.sum(axis=1, keepdims=True))
    for group, certain in ((low, parts.top <= held.first[0]), (high, parts.bottom >= held.last[1])):
        if group.any():
            kind = counts if np.all(certain[group]) else blocks
            kind.append(parts.counts[:, group].sum(axis=1, keepdims=True))
    return Table(*(np.concatenate(kind, axis=1) for kind in (counts, blocks)))
