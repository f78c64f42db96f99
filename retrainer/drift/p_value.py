"""The p-value of one column: how surprising its change is, given both windows' sizes, nulls and batches."""

import math
from collections.abc import Sequence

import numpy as np

from retrainer.drift.counting import UNSEEN_MAX, Categories, Numbers
from retrainer.drift.grid import CATEGORIES_MAX, GRID_ROWS
from retrainer.drift.two_sample import contingency, kolmogorov_smirnov_at
from retrainer.drift.values import Ints

BATCHES_MIN = 8
"""Fewer batches in the reference do not tell how much batches differ."""

_CELL_ROWS = 5
"""Fewer rows of a category a batch, on average, do not tell it either."""

_NAMED = 10
"""A category of which so many rows are expected is missed once in 20,000 samples."""

_FULL = 4
"""A category so many times as frequent as the last names of a full grid is among them."""


def p_value(reference: Numbers | Categories, current: Numbers | Categories) -> float:
    """P(a change like this one or larger), were the current window drawn as the reference was; the same for every test.

    It holds for any grid that does not come of the current window: the distance of numbers is that at the grid's edges,
    which is never more than the largest. `reference.inflation` is allowed for. What moves more slowly than a batch is
    not seen in it, and is a change.
    """
    if isinstance(reference, Categories):
        assert isinstance(current, Categories)
        return contingency(*_table(reference, current), inflation=reference.inflation)
    assert isinstance(current, Numbers)
    return _numerical(reference, current)


def inflation(parts: Sequence[Numbers | Categories]) -> float:
    """How many times more the shares of a reference's batches vary than those of independent rows would; at least 1.

    Rows of one batch are often alike (one hour, one shop), and then they are fewer than they seem. Of numbers, the
    shares below the three quartiles count, on average, or the share of nulls, whichever varies more.
    """
    numbers = [part for part in parts if isinstance(part, Numbers)]
    if numbers:
        counts = np.array([part.counts for part in numbers], np.int64)
        nulls = np.array([part.nulls + part.infinite for part in numbers], np.int64)
        return max(_of_quartiles(counts), _of_shares(np.stack((counts.sum(axis=1), nulls), axis=1)))
    names = [part for part in parts if isinstance(part, Categories)]
    if not names:
        return 1.0
    rest = [(part.nulls, part.other + sum(part.unseen.values())) for part in names]
    return _of_shares(np.column_stack((np.array([part.counts for part in names], np.int64), np.array(rest, np.int64))))


def _numerical(reference: Numbers, current: Numbers) -> float:
    """The values, and whether there is one; where a null is in either window the column has two chances."""
    old, new = reference.values, current.values
    values = 1.0
    if old and new:
        apart = np.abs(np.cumsum(reference.counts) / old - np.cumsum(current.counts) / new)
        values = kolmogorov_smirnov_at(float(apart.max()), old, new, inflation=reference.inflation)
    nulls = (reference.nulls + reference.infinite, current.nulls + current.infinite)
    if not any(nulls):
        return values
    held = (np.array(row, np.int64) for row in ((old, nulls[0]), (new, nulls[1])))
    return min(1.0, 2 * min(values, contingency(*held, inflation=reference.inflation)))


def _table(reference: Categories, current: Categories) -> tuple[Ints, Ints]:
    """The counts of both windows by category, null among them.

    Where some rows have no name, each category with no more rows than `_common` asks for is taken together with them:
    which ones must not depend on what is named, as the grid's names, often chosen from the reference itself, would
    always seem to have become rarer. Of an unseen name with more rows, those that may not have been counted are put
    where they tell least.
    """
    windows = reference, current
    more = list({**reference.unseen, **current.unseen})
    named = np.array([[w.unseen.get(name, 0) for name in more] for w in windows], np.int64).reshape(2, -1)
    known = np.array([[*w.counts, w.nulls] for w in windows], np.int64)
    if not reference.other and not current.other:
        return tuple(np.concatenate((known, named), axis=1))
    rows = known.sum(axis=1) + [sum(w.unseen.values()) + w.other for w in windows]
    missed = np.array([math.ceil(w.other / (UNSEEN_MAX + 1)) for w in windows], np.int64)
    common = max(2 * int(missed.sum()), _common(known[:, :-1].sum(axis=0), rows))
    named = named[:, named.sum(axis=0) > common]
    even = (named[::-1] * (rows / rows[::-1])[:, None]).astype(np.int64)
    named = np.clip(even, named, named + missed[:, None])
    kept = np.concatenate((known[:, known.sum(axis=0) > common], named), axis=1)
    rest = np.maximum(rows - kept.sum(axis=1), 0)
    return tuple(np.column_stack((kept, rest)))


def _common(grid: Ints, rows: Ints) -> float:
    """A category with more rows in both windows together has a name, except by a rare chance.

    It can hardly have missed either window, nor the sample of the reference that the grid may be of. Of a full grid the
    last names, the least frequent, tell how often a category was that only just came in.
    """
    found = _NAMED * float(rows.sum()) / max(1, min(int(rows.min()), GRID_ROWS))
    least = grid[-(CATEGORIES_MAX // 10) :]
    return max(found, _FULL * float(least.mean())) if len(grid) >= CATEGORIES_MAX else found


def _of_quartiles(counts: Ints) -> float:
    """The inflation of the shares below the three quartiles, on average; one row a batch, one column a cell."""
    counts = counts[counts.sum(axis=1) > 0]
    if len(counts) < BATCHES_MIN:
        return 1.0
    below, rows = np.cumsum(counts, axis=1), counts.sum(axis=1)
    shares = below.sum(axis=0) / rows.sum()
    found = []
    for at in np.searchsorted(shares, [0.25, 0.5, 0.75]):
        under = below[:, at]
        found.append(_ratio(np.stack((under, rows - under), axis=1)))
    return _careful(float(np.mean(found)), len(rows))


def _of_shares(table: Ints) -> float:
    """The inflation of the shares of categories; one row a batch, one column a category.

    Those with few rows are put together, the most frequent first, until there are enough of them.
    """
    table = table[table.sum(axis=1) > 0]
    if len(table) < BATCHES_MIN:
        return 1.0
    table = table[:, np.argsort(-table.sum(axis=0), kind="stable")]
    enough = _CELL_ROWS * len(table)
    sums = table.sum(axis=0)
    common = int(np.sum(sums >= enough))
    starts = np.unique((np.cumsum(sums[common:]) - sums[common:]) // enough, return_index=True)[1] + common
    cells = np.add.reduceat(table, np.concatenate((np.arange(common), starts)), axis=1)
    return _careful(_ratio(cells), len(table))


def _ratio(table: Ints) -> float:
    """Pearson's statistic of homogeneous rows by its degrees of freedom: 1 for independent rows, more for clusters."""
    table = table[:, table.sum(axis=0) > 0]
    degrees = (table.shape[0] - 1) * (table.shape[1] - 1)
    if degrees <= 0:
        return 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return statistic / int(degrees)


def _careful(ratio: float, batches: int) -> float:
    """As measured while it may be chance, at least 1; once it is hardly chance, its upper confidence limit (95 %).

    Of so few batches it is that of a chi-square (Wilson and Hilferty 1931).
    """
    if ratio <= 1 + 1.645 * math.sqrt(2 / (batches - 1)):
        return max(ratio, 1.0)
    spread = 2 / (9 * (batches - 1))
    return ratio / float(1 - spread - 1.645 * math.sqrt(spread)) ** 3
