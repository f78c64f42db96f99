"""Distances of two windows by their cumulative shares, bounded cell by cell.

At the edges of a cell both shares are known, and by its sum the area under each of them. In between they only grow.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrainer.drift.cells import ROUNDING, Cells
from retrainer.drift.clipped import Clipped
from retrainer.drift.divergences import Bounds
from retrainer.drift.grid import NumberGrid
from retrainer.drift.values import Floats

_EPSILON = 1e-15
"""Of a share, as far as it may be out."""


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of both windows, a row for each, below the points: the edges of cells, and both ends of the values."""

    points: Floats
    below: Floats

    @property
    def apart(self) -> Floats:
        """Between two points, how far the shares are from each other at most."""
        first, second = self.below
        found: Floats = np.maximum(np.maximum(first[1:] - second[:-1], second[1:] - first[:-1]), 0.0)
        return found

    @property
    def parted(self) -> Floats:
        """Between two points, how far they are from each other at least."""
        first, second = self.below
        found: Floats = np.maximum(np.maximum(first[:-1] - second[1:], second[:-1] - first[1:]), 0.0)
        return found


def shares(grid: NumberGrid, held: Clipped) -> Shares:
    """Of both windows, from the least value of either to the greatest."""
    low, high = min(w.low for w in held.windows), max(w.high for w in held.windows)
    points = np.clip(np.concatenate(([low], grid.edges, [high])), low, high)
    return Shares(points, np.stack([w.before / w.rows for w in held.windows]))


def kolmogorov_smirnov(grid: NumberGrid, held: Clipped) -> Bounds:
    """The largest distance of the shares of values no larger than any x."""
    found = shares(grid, held)
    (old, new), (first, second) = held.windows, found.below
    at_edges = np.abs(first - second)
    known = (found.points > held.first[1]) & (found.points <= held.last[0])
    possible = (found.points[1:] >= held.first[0]) & (found.points[:-1] <= held.last[1])
    filled = (old.counts > 0) & (new.counts > 0)
    same = filled & (np.minimum(old.bottom, new.bottom) == np.maximum(old.top, new.top))
    # Of a cell whose values in one window are all before those of the other, the share in between is known.
    inner = np.where(old.top < new.bottom, first[1:] - second[:-1], second[1:] - first[:-1])
    ordered = filled & ((old.top < new.bottom) | (new.top < old.bottom))
    inside = (np.minimum(old.top, new.top) >= held.first[1]) & (np.maximum(old.bottom, new.bottom) <= held.last[0])
    least = max(_largest(at_edges, known), _largest(np.abs(inner), ordered & inside))
    between = np.where(same, 0.0, np.where(ordered, np.abs(inner), found.apart))
    return least, max(least, _largest(between, possible), _largest(at_edges[1:], possible))


def _largest(values: Floats, where: NDArray[np.bool_]) -> float:
    return float(np.max(values, where=where, initial=0.0))


def wasserstein(grid: NumberGrid, held: Clipped) -> tuple[float, float, float]:
    """The area between the shares: about, at least and at most; not yet divided by any spread."""
    found = shares(grid, held)
    width, (first, second) = np.diff(found.points), found.below
    area, slack = (np.stack(x) for x in zip(*(_area(found.points, w) for w in held.windows), strict=True))
    slack = slack.sum(axis=0)
    apart = np.abs(area[0] - area[1])
    floor, ceiling = np.minimum(first[:-1], second[:-1]), np.maximum(first[1:], second[1:])
    above = area.sum(axis=0) - 2 * floor * width
    most = np.minimum(np.minimum(above, 2 * (ceiling - floor) * width - above), found.apart * width)
    most = np.where(found.parted > 0, apart, np.maximum(most, apart)) + slack
    least = np.maximum(apart - slack, 0.0)
    return _within(found, held, np.clip(_even(first - second) * width, least, most), least, most)


def _area(points: Floats, window: Cells) -> tuple[Floats, Floats]:
    """Under the share of one window, between two points, and how far that is out at most."""
    right, width = points[1:], np.diff(points)
    area = window.before[:-1] / window.rows * width + (window.counts * right - window.sums) / window.rows
    slack = ROUNDING * window.counts / window.rows * np.maximum(np.abs(points[:-1]), np.abs(right)) + _EPSILON * width
    return area, slack


def _even(apart: Floats) -> Floats:
    """The mean of |x| on the way from each entry to the next, in a straight line."""
    before, after = apart[:-1], apart[1:]
    total = np.abs(before) + np.abs(after)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        crossing = np.where(total > 0, (before**2 + after**2) / (2 * total), 0.0)
    return np.where(before * after >= 0, total / 2, crossing)


def _within(found: Shares, held: Clipped, about: Floats, least: Floats, most: Floats) -> tuple[float, float, float]:
    """The sums between the limits; of a cell that a limit may cut, what its part has at least and at most."""
    left, right = found.points[:-1], found.points[1:]
    surely = np.maximum(np.minimum(right, held.last[0]) - np.maximum(left, held.first[1]), 0.0)
    perhaps = np.maximum(np.minimum(right, held.last[1]) - np.maximum(left, held.first[0]), 0.0)
    whole = (left >= held.first[1]) & (right <= held.last[0])
    low = np.where(whole, least, surely * found.parted)
    high = np.where(whole, most, np.minimum(most, perhaps * found.apart))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        part = np.where(right > left, (surely + perhaps) / 2 / (right - left), 0.0)
    value = np.clip(np.where(whole, about, about * part), low, high)
    return float(value.sum()), float(low.sum()), float(high.sum())
