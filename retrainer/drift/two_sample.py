"""How surprising the difference of two windows is, were both of one distribution: p-values right for both sizes.

A declared test says how large a change is; these say whether it is one at all. Each is meant for levels around 1e-7,
which checks every hour on many columns come down to, so the tails are exact or err on the side of no drift.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

EXACT_CELLS = 1_000_000
EXACT_ROWS = 200
"""Up to this product and this smaller size the Kolmogorov-Smirnov p-value is exact, in a few milliseconds."""

EXPECTED_MIN = 5.0
"""Fewer expected rows of a category are no ground for a G statistic (Cochran 1954, Biometrics 10:417)."""


def distance(first: Floats, second: Floats) -> float:
    """The Kolmogorov-Smirnov distance of two samples, neither empty, all values finite."""
    points, others = (np.sort(x) for x in sorted((first, second), key=len))
    # Between two neighbouring points of one sample its share is constant and the other's only grows, so the largest
    # distance lies at a point, just before it or on it; of equal points on the last, and before the first.
    last = np.flatnonzero(np.append(points[1:] != points[:-1], True))
    before = np.concatenate(([0], last[:-1] + 1)) / len(points)
    upto = (last + 1) / len(points)
    below = np.searchsorted(others, points[last], "left") / len(others)
    within = np.searchsorted(others, points[last], "right") / len(others)
    return float(max(np.max(np.abs(below - before)), np.max(np.abs(within - upto))))


def kolmogorov_smirnov(first: Floats, second: Floats, *, inflation: float = 1.0) -> float:
    """The p-value of the distance of two samples; 1 where either is empty. Ties make it larger than it had to be."""
    if not len(first) or not len(second):
        return 1.0
    return kolmogorov_smirnov_at(distance(first, second), len(first), len(second), inflation=inflation)


def kolmogorov_smirnov_at(found: float, first: int, second: int, *, inflation: float = 1.0) -> float:
    """The p-value of a distance, or of a lower bound of it, of two samples of so many rows, neither empty.

    `inflation`: how many times the variance of independent rows (see `retrainer.drift.p_value`), at least 1.
    """
    small, large = sorted((first, second))
    if inflation <= 1 and small <= EXACT_ROWS and small * large <= EXACT_CELLS:
        return exact(found, small, large)
    return float(limit(found * math.sqrt(small * large / (small + large) / max(inflation, 1.0))))


def limit(scaled: float | Floats) -> Floats:
    """P(sup |Brownian bridge| >= scaled) of Kolmogorov (1933), for scaled distances one by one.

    A sample's own p-value is smaller by a share of about two thirds of scaled / sqrt(rows) (Smirnov), so this errs
    towards no drift; for two samples of equal size see Wei and Dudley (2012, Stat. Probab. Lett. 82:636).
    """
    x = np.asarray(scaled, dtype=np.float64)
    k = np.arange(1, 11, dtype=np.float64)
    # Below 0.4 ten terms do not suffice, and the probability is 0.997 or more.
    x_1 = np.maximum(x, 0.4)[..., None]
    tail: Floats = 2 * np.sum((-1) ** (k - 1) * np.exp(-2 * k**2 * x_1**2), axis=-1)
    return np.where(x < 0.4, 1.0, np.clip(tail, 0.0, 1.0))


def exact(found: float, rows: int, columns: int) -> float:
    """P(distance >= found) of two samples of these sizes (`rows` the smaller) from one continuous distribution.

    Ordered, two samples are a path from (0, 0) to (rows, columns), all equally likely. Counted are the paths that
    leave |i/rows - j/columns| < found, each at its first step outside: sums of positive terms, right in the far tail.
    Numbers of paths are kept as multiples of exp(scale), row after row.
    """
    if found * rows * columns < 0.5:
        return 1.0
    edge = found * rows * columns - 0.5  # |i * columns - j * rows| is whole: at this many and more it is outside
    count = _log_factorials(rows + columns)
    everything = count[rows + columns] - count[rows] - count[columns]
    paths, low, scale, outside = np.ones(1), 0, 0.0, 0.0
    for i in range(rows + 1):
        first = max(0, math.floor((i * columns - edge) / rows) + 1)
        beyond = min(columns + 1, math.ceil((i * columns + edge) / rows))
        # Down from the row before: what comes down left of `first` is outside now, the rest goes on to the right.
        left = paths[: first - low]
        outside += _share(left, low, i, rows, columns, scale - everything, count)
        width = max(beyond - first, 0)
        paths = np.cumsum(np.pad(paths[len(left) :], (0, width - len(paths) + len(left))))
        low = first
        if not len(paths):
            break
        if beyond <= columns:
            outside += _share(paths[-1:], beyond, i, rows, columns, scale - everything, count)
        if (top := float(paths[-1])) > 1e100:
            paths, scale = paths / top, scale + math.log(top)
    return min(1.0, outside)


def _share(paths: Floats, j: int, i: int, rows: int, columns: int, scale: float, count: Floats) -> float:
    """The share of all paths that pass through (i, j), (i, j + 1), ..., given how many arrive at each."""
    if not len(paths):
        return 0.0
    at = np.arange(j, j + len(paths))
    onward = count[rows - i + columns - at] - count[rows - i] - count[columns - at]
    return float(np.sum(paths * np.exp(onward + scale)))


def _log_factorials(most: int) -> Floats:
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, most + 1)))))


def contingency(first: Counts, second: Counts, *, inflation: float = 1.0) -> float:
    """The p-value of two rows of counts, one column a category; 1 where either row has no count.

    Categories of which either row would expect fewer than five are left to a bound that holds for any number
    (Hoeffding 1963): for all of them together, and for each, times their number. The rest, with those as one category,
    is a G-test with Williams' correction (1976, Biometrika 63:33). Which is which depends on the sums only, so
    that each is right; of the three the smallest counts, times three (Bonferroni). `inflation` as above
    (Rao and Scott 1981, J. Am. Stat. Assoc. 76:221).
    """
    table = np.array([first, second], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0] / max(inflation, 1.0)
    sizes, sums = table.sum(axis=1), table.sum(axis=0)
    if not sizes.all() or len(sums) < 2:
        return 1.0
    share = sizes[1] / sizes.sum()
    rare = sums * min(share, 1 - share) < EXPECTED_MIN
    if not rare.any():
        return _g_test(table)
    lone, together = table[:, rare], table[:, rare].sum(axis=1, keepdims=True)
    each = len(sums[rare]) * float(np.min(_binomial(lone, share)))
    pooled = float(np.min(_binomial(together, share)))
    return min(1.0, 3 * min(each, pooled, _g_test(_merged(table, rare, share))))


def _merged(table: Floats, rare: NDArray[np.bool_], share: float) -> Floats:
    """The common categories and the rare ones as one more; as part of the rarest common one if still too rare."""
    kept: Floats = table[:, ~rare]
    rest = table[:, rare].sum(axis=1)
    if rest.sum() * min(share, 1 - share) >= EXPECTED_MIN or not kept.shape[1]:
        return np.column_stack((kept, rest))
    kept[:, int(np.argmin(kept.sum(axis=0)))] += rest
    return kept


def _g_test(table: Floats) -> float:
    if table.shape[1] < 2:
        return 1.0
    sizes, sums, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    expected = np.outer(sizes, sums) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        g = 2 * float(np.nansum(table * np.log(table / expected)))
    degrees = int(table.shape[1]) - 1
    spread = float((np.sum(total / sizes) - 1) * (np.sum(total / sums) - 1) / total)
    return chi_square_tail(g / (1 + spread / (6 * degrees)), degrees)


def _binomial(table: Floats, share: float) -> Floats:
    """At least P(a count as far from `share` of its sum), both sides: exp(-n KL), Hoeffding's bound, twice."""
    sums = table.sum(axis=0)
    seen = table[1] / sums
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.nan_to_num(seen * np.log(seen / share)) + np.nan_to_num((1 - seen) * np.log((1 - seen) / (1 - share)))
    bound: Floats = np.minimum(1.0, 2 * np.exp(-sums * far))
    return bound


def chi_square_tail(value: float, degrees: int) -> float:
    """P(chi-square of so many degrees of freedom >= value): the regularised upper incomplete gamma function.

    A series below the mean and Lentz's continued fraction above it (Numerical Recipes, section 6.2).
    """
    a, x = degrees / 2, value / 2
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while term > total * 1e-16:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - front * total)
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    fraction = d
    for i in range(1, 10_000):
        an = -i * (i - a)
        b += 2
        d = 1 / _away(an * d + b, tiny)
        c = _away(b + an / c, tiny)
        fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return min(1.0, front * fraction)


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
