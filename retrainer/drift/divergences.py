"""Distances of two windows by their shares of bins or categories, and what they can be where counts are known in part.

Each is a sum with one term a bin, and a term is 0 for equal shares and grows as they part. So where shares are known to
lie in intervals, the ends of a term are at the intervals' ends.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from retrainer.drift.values import Floats, Ints

Bounds = tuple[float, float]

_EMPTY = 0.0001
_LEAST = 1e6
"""Evidently's PSI takes an empty bin for 0.0001, or for a millionth of the smallest share if that is no larger."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by category, a row for each window. Of the rows in a block the categories are not known, but that no block
    shares one with another block or with `counts`. Every column has a row in one window."""

    counts: Ints
    blocks: Ints

    @property
    def rows(self) -> Floats:
        """How many each window has."""
        found: Floats = (self.counts.sum(axis=1) + self.blocks.sum(axis=1)).astype(np.float64)
        return found


def of_shares(test: str, counts: Floats) -> float:
    """The distance where all counts are known; they need not be whole. A window's counts must not all be 0."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    if test == "psi":
        shares = np.array([np.where(row > 0, row, _filling(float(row[row > 0].min()))) for row in shares])
    return _whole(test, float(_TERMS[test](shares[0], shares[1]).sum()))


def of_bins(test: str, rows: Floats, least: Ints, most: Ints) -> Bounds:
    """The distance at least and at most, of windows of `rows` with so many rows in each bin, at least and at most."""
    low, high = least / rows[:, None], most / rows[:, None]
    if test == "psi":
        for w in (0, 1):
            empty, none = least[w] == 0, most[w] == 0
            low_fill, high_fill = _fillings(float(rows[w]), least[w], most[w])
            low[w] = np.where(none, low_fill, np.where(empty, min(low_fill, 1 / rows[w]), low[w]))
            high[w] = np.where(none, high_fill, np.where(empty, np.maximum(high_fill, high[w]), high[w]))
    inner, outer = _in_intervals(_TERMS[test], low, high)
    return _whole(test, inner), _whole(test, outer)


def of_table(test: str, table: Table) -> Bounds:
    """The distance at least and at most. They are equal where no block has rows of both windows, but for PSI."""
    if not table.blocks.any():
        return of_bins(test, table.rows, table.counts, table.counts)
    if test == "psi":
        return _psi_with_blocks(table)
    term, rows = _TERMS[test], table.rows[:, None]
    shares, blocks = table.counts / rows, table.blocks / rows
    known = float(term(shares[0], shares[1]).sum())
    # A block is at least as far as if it were one category, and at most as if its windows had none in common.
    together = float(term(blocks[0], blocks[1]).sum())
    nothing = np.zeros(blocks.shape[1])
    apart = float(term(blocks[0], nothing).sum() + term(nothing, blocks[1]).sum())
    return _whole(test, known + together), _whole(test, known + apart)


def _psi_with_blocks(table: Table) -> Bounds:
    """A block may be as many categories as it has rows, each of them filled up in the window that has none of it."""
    rows, size = table.rows, table.blocks.sum(axis=1)
    most = np.column_stack((table.counts, table.blocks))
    least = np.column_stack((table.counts, np.minimum(table.blocks, 1)))
    fills = [_fillings(float(rows[w]), least[w], most[w]) for w in (0, 1)]
    shares = table.counts / rows[:, None]
    low, high = (np.array([np.where(shares[w] > 0, shares[w], fills[w][end]) for w in (0, 1)]) for end in (0, 1))
    inner, outer = _in_intervals(_psi, low, high)
    smallest = min(fills[0][0], fills[1][0], *(1 / rows))
    moved = float((size / rows).sum()) + float(size.sum()) * max(fills[0][1], fills[1][1])
    return inner, outer + moved * -math.log(smallest)


def _in_intervals(term: Callable[[Floats, Floats], Floats], low: Floats, high: Floats) -> Bounds:
    above, below = term(low[0], high[1]), term(high[0], low[1])
    inner = np.where(low[0] > high[1], above, np.where(low[1] > high[0], below, 0.0))
    return float(inner.sum()), float(np.maximum(above, below).sum())


def _fillings(rows: float, least: Ints, most: Ints) -> Bounds:
    """What an empty bin is taken for, at least and at most."""
    smallest = int(np.maximum(least[most > 0], 1).min(initial=int(rows)))
    largest = int(most[least > 0].min(initial=int(rows)))
    return _filling(smallest / rows), _filling(largest / rows)


def _filling(smallest: float) -> float:
    return smallest / _LEAST if smallest <= _EMPTY else _EMPTY


def _whole(test: str, terms: float) -> float:
    return math.sqrt(max(terms, 0.0)) if test in ("jensenshannon", "hellinger") else terms


def _psi(p: Floats, q: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p == q, 0.0, (p - q) * np.log(p / q))


def _jensenshannon(p: Floats, q: Floats) -> Floats:
    middle = (p + q) / 2
    return (_entropic(p, middle) + _entropic(q, middle)) / 2


def _entropic(p: Floats, middle: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / middle), 0.0)


def _hellinger(p: Floats, q: Floats) -> Floats:
    found: Floats = (np.sqrt(p) - np.sqrt(q)) ** 2 / 2
    return found


def _total_variation(p: Floats, q: Floats) -> Floats:
    found: Floats = np.abs(p - q) / 2
    return found


_TERMS: Final[dict[str, Callable[[Floats, Floats], Floats]]] = {
    "psi": _psi,
    "jensenshannon": _jensenshannon,
    "hellinger": _hellinger,
    "TVD": _total_variation,
}
