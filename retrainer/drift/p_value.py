"""The p-value of one column: how surprising its change is, given both windows' sizes, nulls and batches."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from retrainer.core.policy import Column
from retrainer.drift.columns import Values
from retrainer.drift.two_sample import Counts, Floats, contingency, kolmogorov_smirnov

BATCHES_MIN = 8
"""Fewer batches in the reference do not tell how much batches differ."""

_CELL_ROWS = 5
"""A category with fewer rows a batch, on average, does not tell it either."""


def p_value(column: Column, reference: Values, current: Values, batches: Sequence[int] = ()) -> float:
    """P(a change like this one or larger), were the current window drawn as the reference was.

    `batches`: the rows of each batch of the reference, in order. Rows of one batch are often alike (one hour, one
    shop), and then they are fewer than they seem: by how much is read off the reference's batches and allowed for. What
    moves more slowly than a batch is not seen there, and is a change.
    """
    if sum(batches) != len(reference) or len(batches) < BATCHES_MIN:
        batches = [len(reference)]
    edges = np.concatenate(([0], np.cumsum(batches)))
    if column.kind == "categorical":
        return float(_categorical(reference, current, edges))
    return float(_numerical(np.asarray(reference, np.float64), np.asarray(current, np.float64), edges))


def _categorical(reference: Values, current: Values, edges: Counts) -> float:
    """Null is a category."""
    known, seen = Counter(reference.tolist()), Counter(current.tolist())
    counts = np.array([(known[name], seen[name]) for name in {**known, **seen}], dtype=np.int64)
    batches = len(edges) - 1
    common = [name for name, count in known.items() if count >= _CELL_ROWS * batches]
    parts = [Counter(reference[a:b].tolist()) for a, b in pairwise(edges)] if batches >= BATCHES_MIN else []
    table = np.array([[part[name] for name in common] for part in parts], dtype=np.int64)
    rest = np.diff(edges)[: len(table)] - table.sum(axis=-1)
    spread = _inflation(np.column_stack((table, rest))) if parts and common else 1.0
    return contingency(counts[:, 0], counts[:, 1], inflation=spread)


def _numerical(reference: Floats, current: Floats, edges: Counts) -> float:
    """The values, and whether there is one; where a null is in either window the column has two chances."""
    known, seen = np.isfinite(reference), np.isfinite(current)
    old, new = reference[known], current[seen]
    if len(old) == len(reference) and len(new) == len(current):
        return kolmogorov_smirnov(old, new, inflation=numerical_inflation(old, edges))
    kept = np.concatenate(([0], np.cumsum(known)))[edges]
    values = kolmogorov_smirnov(old, new, inflation=numerical_inflation(old, kept))
    table = np.stack((np.diff(kept), np.diff(edges - kept)), axis=1)
    held = np.array([len(new), len(current) - len(new)])
    return min(1.0, 2 * min(values, contingency(table.sum(axis=0), held, inflation=_inflation(table))))


def numerical_inflation(values: Floats, edges: Counts) -> float:
    """The inflation of the shares below the three quartiles, on average."""
    if len(edges) <= BATCHES_MIN or not len(values):
        return 1.0
    rows = np.diff(edges)
    found = []
    for quartile in np.quantile(values, [0.25, 0.5, 0.75]):
        below = np.diff(np.concatenate(([0], np.cumsum(values <= quartile)))[edges])
        found.append(_ratio(np.stack((below, rows - below), axis=1)))
    return _careful(float(np.mean(found)), len(rows))


def _inflation(table: Counts) -> float:
    """The inflation of the shares of categories with enough rows; one row a batch, one column a category."""
    common = table.sum(axis=0) >= _CELL_ROWS * len(table)
    if len(table) < BATCHES_MIN or not common.any():
        return 1.0
    kept, rest = table[:, common], table[:, ~common].sum(axis=1, keepdims=True)
    return _careful(_ratio(np.concatenate((kept, rest), axis=1)), len(table))


def _ratio(table: Counts) -> float:
    """Pearson's statistic of homogeneous rows by its degrees of freedom: 1 for independent rows, more for clusters."""
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    degrees = (table.shape[0] - 1) * (table.shape[1] - 1)
    if degrees <= 0:
        return 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return statistic / int(degrees)


def _careful(ratio: float, batches: int) -> float:
    """As measured while it may be chance, at least 1; once it is hardly chance, its upper confidence limit (95 %)."""
    error = 1.645 * math.sqrt(2 / (batches - 1))
    return ratio * (1 + error) if ratio > 1 + error else max(ratio, 1.0)
