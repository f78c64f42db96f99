"""How sure the figures of a backtest are: block-bootstrap intervals over its batches, and quantiles of its latencies.

A loss today resembles yesterday's, so single batches must not be drawn as if each were news of its own: blocks of
neighbours are drawn, from a circle, so that every batch is as likely as any other. Few blocks scatter less than
histories do, so the percentiles are spread by Student's t with a block less than there are. Two policies on one
history are compared batch by batch on the same draws. The decisions are taken as they were made: what another
history would have made a policy do is not in an interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Series = NDArray[np.float64]

BATCHES_MIN: Final = 10
"""Of fewer batches there is no interval: their blocks could hardly be drawn differently."""

RESAMPLES: Final = 2_000
"""Of so many the ends of a 95 % interval move by about a twentieth of its width from seed to seed."""

LEVEL: Final = 0.95
_NORMAL: Final = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From `low` to `high`, both included; made to cover the truth in a share `level` of histories.

    Measured on autoregressive series (rho 0, 0.5, 0.8) it does so in 98, 92, 71 % of them with 20 batches, in 96, 92,
    87 % with 100 and in 94, 93, 93 % with 300.
    """

    low: float
    high: float
    level: float = LEVEL

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its interval, which is None where there are too few batches for one."""

    value: float
    interval: Interval | None


def total(series: ArrayLike, *, seed: int = 0) -> Estimate:
    """The sum of one figure a batch."""
    values = _series(series)
    value = float(values.sum())
    if len(values) < BATCHES_MIN:
        return Estimate(value=value, interval=None)
    draws = _Draws(len(values), block_length(values), seed)
    return Estimate(value=value, interval=draws.interval(value, draws.sums(values)))


def difference(series: ArrayLike, other: ArrayLike, *, seed: int = 0) -> Estimate:
    """The sum of `series` less that of `other`, paired batch by batch. Raises ValueError if their lengths differ."""
    values, others = _pair(series, other)
    return total(values - others, seed=seed)


def ratio(series: ArrayLike, other: ArrayLike, *, seed: int = 0) -> Estimate:
    """The sum of `series` over that of `other`, paired batch by batch; NaN and no interval where `other` sums to 0."""
    values, others = _pair(series, other)
    below = float(others.sum())
    if below <= 0:
        return Estimate(value=math.nan, interval=None)
    value = float(values.sum()) / below
    if len(values) < BATCHES_MIN:
        return Estimate(value=value, interval=None)
    # What moves a ratio of sums, to first order, is the sum of this; its blocks are the ones that matter.
    draws = _Draws(len(values), block_length(values - value * others), seed)
    over, under = draws.sums(values), draws.sums(others)
    return Estimate(value=value, interval=None if (under <= 0).any() else draws.interval(value, over / under))


def block_length(series: ArrayLike) -> int:
    """How many neighbouring batches are drawn together.

    The automatic choice for the circular block bootstrap of Politis and White (2004), Econometric Reviews 23:53-70,
    as corrected by Patton, Politis and White (2009), 28:372-375; at least the cube root of the number of batches,
    the rate of Hall, Horowitz and Jing (1995), Biometrika 82:561-574, and at most a third of it.

    >>> block_length([1.0, 2.0] * 50) >= 5
    True
    """
    values = _series(series)
    n = len(values)
    least, most = max(1, math.ceil(math.cbrt(n))), max(1, math.ceil(min(3 * math.sqrt(n), n / 3)))
    centred = values - values.mean()
    variance = float(centred @ centred) / n
    if variance <= 1e-12 * float(values @ values) / n:
        return min(least, most)
    reach = _reach(centred, variance)
    lags = np.arange(-reach, reach + 1)
    weights = np.clip(2 * (1 - np.abs(lags) / max(reach, 1)), 0, 1)
    covariances = np.array([_covariance(centred, abs(int(k))) for k in lags])
    bent = float((weights * np.abs(lags) * covariances).sum())
    spectrum = float((weights * covariances).sum())
    if spectrum == 0:
        return most
    best = math.cbrt(2 * bent**2 / (4 / 3 * spectrum**2) * n)
    return max(min(least, most), min(math.ceil(best), most))


def quantiles(durations: Sequence[timedelta], shares: Sequence[float] = (0.5, 0.9, 1.0)) -> tuple[timedelta, ...]:
    """The shortest duration that at least each share of them does not exceed; () where there are none."""
    ordered = sorted(durations)
    return tuple(ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in shares) if ordered else ()


class _Draws:
    """Blocks drawn again and again from a circle of batches: the same ones for every series that is summed."""

    def __init__(self, batches: int, block: int, seed: int) -> None:
        self._spread = math.sqrt(batches / (batches - block)) * _student(batches / block - 1) / _NORMAL
        whole, rest = divmod(batches, block)
        self._lengths = np.array([block] * whole + [rest] * bool(rest))
        self._starts = np.random.default_rng(seed).integers(0, batches, size=(RESAMPLES, len(self._lengths)))

    def sums(self, series: Series) -> Series:
        """The sum of each draw, by the running sum of the circle: no draw is ever written out."""
        running = np.concatenate(([0.0], np.cumsum(np.concatenate((series, series)))))
        drawn: Series = (running[self._starts + self._lengths] - running[self._starts]).sum(axis=1)
        return drawn

    def interval(self, value: float, drawn: Series) -> Interval:
        """The percentiles of the draws of `value`, spread for there being few blocks."""
        low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        ends = (value + self._spread * (float(end) - value) for end in (low, high))
        return Interval(low=next(ends), high=next(ends))


def _student(freedom: float) -> float:
    """The quantile of Student's t, by the expansion in 1/freedom (Abramowitz and Stegun 26.7.5)."""
    z = _NORMAL
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _reach(centred: Series, variance: float) -> int:
    """Twice the lag after which correlations are no longer told from none, as Politis and White choose it."""
    n = len(centred)
    quiet = max(5, math.ceil(math.sqrt(math.log10(n)))) if n > 1 else 5
    most = min(n - 1, math.ceil(math.sqrt(n)) + quiet)
    bound = 2 * math.sqrt(math.log10(n) / n) if n > 1 else 1.0
    loud = [abs(_covariance(centred, k)) / variance >= bound for k in range(1, most + 1)]
    for last in range(len(loud)):
        if not any(loud[last : last + quiet]):
            return min(2 * max(last, 1), most)
    return most


def _covariance(centred: Series, lag: int) -> float:
    return float(centred[lag:] @ centred[: len(centred) - lag]) / len(centred)


def _series(given: ArrayLike) -> Series:
    values = np.asarray(given, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("a series must be one finite number for each batch")
    return values


def _pair(series: ArrayLike, other: ArrayLike) -> tuple[Series, Series]:
    values, others = _series(series), _series(other)
    if len(values) != len(others):
        raise ValueError(f"series of {len(values)} and {len(others)} batches cannot be paired")
    return values, others
