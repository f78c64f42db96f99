"""The p-values that Evidently's tests give, from counts; those that hold for any window are in drift.p_value."""

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from retrainer.drift.columns import LEAST_EXPECTED, lone
from retrainer.drift.divergences import Bounds
from retrainer.drift.two_sample import chi_square_tail, limit
from retrainer.drift.values import Floats, Ints

_EXACT_ROWS = 10_000
"""Up to it, of the larger window, scipy's ks_2samp is exact. Beyond it has the distribution of one sample's distance
(Simard and L'Ecuyer 2011, J. Stat. Softw. 39:11), of n values, n being the product of the sizes by their sum."""

_MANY = 1_000
"""From so many values on, that is Kolmogorov's limit, corrected for n (Vrbik 2018, Pioneer J. Theor. Appl. Stat. 15),
within a share of 100 / n for p-values down to _NONE (compared with scipy's, see the tests)."""

_NONE = 1e-13
"""A smaller p-value is no different from 0."""


def of_counts(test: str, names: Sequence[str], counts: Ints, rest: tuple[int, int] = (0, 0)) -> tuple[float, Bounds]:
    """The p-value of chi-square or of the G-test, the expected counts scaled to the current window; about, and bounds.

    Rare categories are taken together, as drift.columns does; `rest` are rows whose categories are not known, and where
    they need not be rare, the p-value is not known either.
    """
    old, new = (int(n) + r for n, r in zip(counts.sum(axis=1), rest, strict=True))
    ratio = new / old
    unknown = rest[0] * ratio >= LEAST_EXPECTED
    if unknown:
        names, counts, rest = (*names, ""), np.column_stack((counts, rest)), (0, 0)
    found = _p_value(test, _pooled(names, counts, rest, ratio), ratio)
    return found, ((0.0, 1.0) if unknown else (found, found))


def kolmogorov_smirnov(apart: Bounds, first: int, second: int) -> Bounds:
    """The p-value of scipy's ks_2samp at least and at most, the distance being so large at least and at most."""
    high = _tail(apart[0], first, second)
    return (high if apart[0] == apart[1] else _tail(apart[1], first, second))[0], high[1]


def _tail(apart: float, first: int, second: int) -> Bounds:
    rows = first * second / (first + second)
    about = float(limit(apart * math.sqrt(rows)))
    if about < _NONE:
        return 0.0, about
    if max(first, second) <= _EXACT_ROWS:
        return (_exact(apart, first, second),) * 2
    if (n := round(rows)) >= _MANY:
        scaled = apart * math.sqrt(n)
        about = float(limit(scaled + 1 / (6 * math.sqrt(n)) + (scaled - 1) / (4 * n)))
        return max(0.0, about * (1 - 100 / n)), min(1.0, about * (1 + 100 / n))
    from scipy.stats import kstwo

    return (float(np.clip(kstwo.sf(apart, n), 0.0, 1.0)),) * 2


def _exact(apart: float, first: int, second: int) -> float:
    """The p-value of two samples that are so far apart: their first i and j values are 0, all others are 1.

    Such i and j are found by the inverse of one size modulo the other, as apart = i / first - j / second.
    """
    from scipy.stats import ks_2samp

    common = math.gcd(first, second)
    m, n = first // common, second // common
    far = round(apart * m * second)
    i = far * pow(n, -1, m) % m
    j = (i * n - far) // m
    times = max(0, -(j // n))
    i, j = i + times * m, j + times * n
    with warnings.catch_warnings(action="ignore"):  # of being inexact, where a p-value of 1 is rounded
        return float(ks_2samp(np.arange(first) >= i, np.arange(second) >= j).pvalue)


def _pooled(names: Sequence[str], counts: Ints, rest: tuple[int, int], ratio: float) -> Ints:
    """As drift.columns pools rows."""
    rare = counts[0] * ratio < LEAST_EXPECTED
    known, seen = (int(counts[w, rare].sum()) + rest[w] for w in (0, 1))
    kept = counts[:, ~rare].copy()
    if not known and not seen:
        return kept
    if lone(known * ratio, seen, ratio) or not kept.size:
        return np.column_stack((kept, [known, seen]))
    least = min((int(counts[0, i]), names[i], i) for i in np.flatnonzero(~rare).tolist())[2]
    kept[:, int(np.sum(~rare[:least]))] += [known, seen]
    return kept


def _p_value(test: str, counts: Ints, ratio: float) -> float:
    if counts.shape[1] < 2:
        return 1.0
    statistic = _STATISTICS[test](counts[1].astype(np.float64), counts[0] * ratio)
    return chi_square_tail(statistic, counts.shape[1] - 1) if math.isfinite(statistic) else 0.0


def _chi_square(seen: Floats, expected: Floats) -> float:
    with np.errstate(divide="ignore"):
        return float(np.sum((seen - expected) ** 2 / expected))


def _g(seen: Floats, expected: Floats) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * float(np.sum(np.where(seen > 0, seen * np.log(seen / expected), 0.0)))


_STATISTICS: dict[str, Callable[[Floats, Floats], float]] = {"chisquare": _chi_square, "g_test": _g}
