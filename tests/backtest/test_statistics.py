"""The intervals cover what they should as often as they say, and the same seed gives the same ones."""

import math
from datetime import timedelta

import numpy as np
import pytest

from retrainer.backtest import statistics
from retrainer.backtest.statistics import BATCHES_MIN, Interval, Series


def autoregressive(seed: int, batches: int, rho: float, mean: float = 10.0) -> Series:
    """Values that resemble the ones before by `rho`, about a mean."""
    shocks = np.random.default_rng(seed).normal(size=batches + 100)
    values = np.zeros(batches + 100)
    for n in range(1, batches + 100):
        values[n] = rho * values[n - 1] + shocks[n]
    return values[100:] + mean


def covered(batches: int, rho: float, histories: int = 200) -> float:
    """The share of histories whose interval holds the true sum."""
    intervals = [statistics.total(autoregressive(n, batches, rho), seed=n).interval for n in range(histories)]
    return sum(found is not None and 10.0 * batches in found for found in intervals) / histories


@pytest.mark.parametrize(("batches", "rho", "least"), [(40, 0.0, 0.93), (100, 0.5, 0.88), (300, 0.8, 0.88)])
def test_an_interval_of_a_sum_covers_the_truth_about_as_often_as_it_says(
    batches: int, rho: float, least: float
) -> None:
    assert least <= covered(batches, rho) <= 0.995


def test_blocks_are_longer_where_neighbours_resemble_each_other() -> None:
    lengths = [statistics.block_length(autoregressive(1, 400, rho)) for rho in (0.0, 0.5, 0.9)]
    assert lengths == sorted(lengths)
    assert lengths[0] >= math.ceil(400 ** (1 / 3))
    assert lengths[-1] > 2 * lengths[0]


@pytest.mark.parametrize("series", [[3.0], [1.0, 2.0], [5.0] * 50, [0.0] * 30, [float(n) for n in range(200)]])
def test_a_block_is_never_longer_than_a_third_of_the_batches_but_for_the_fewest(series: list[float]) -> None:
    assert 1 <= statistics.block_length(series) <= max(1, math.ceil(len(series) / 3))


def test_two_policies_are_told_apart_on_the_same_batches_though_their_own_intervals_overlap() -> None:
    weather = autoregressive(0, 200, 0.8) * 10
    better, worse = weather + autoregressive(1, 200, 0.0, 0.0), weather + autoregressive(2, 200, 0.0, 0.5)
    own, other = statistics.total(better).interval, statistics.total(worse).interval
    assert own is not None
    assert other is not None
    assert own.high > other.low
    gap = statistics.difference(worse, better)
    assert gap.interval is not None
    assert gap.interval.low > 0
    assert gap.value in gap.interval


def test_the_same_policy_twice_differs_by_nothing_and_surely() -> None:
    series = autoregressive(0, 60, 0.5)
    assert statistics.difference(series, series).interval == Interval(low=0.0, high=0.0)
    same = statistics.ratio(series, series)
    assert same.value == 1
    assert same.interval is not None
    assert (same.interval.low, same.interval.high) == pytest.approx((1.0, 1.0))


def test_a_ratio_is_of_the_sums_and_its_interval_holds_it() -> None:
    own, best = autoregressive(0, 100, 0.5) * 1.2, autoregressive(0, 100, 0.5)
    found = statistics.ratio(own + autoregressive(3, 100, 0.0, 0.0), best)
    assert found.interval is not None
    assert 1.2 in found.interval
    assert found.value in found.interval


def test_a_ratio_to_nothing_is_not_a_number() -> None:
    found = statistics.ratio([1.0] * 20, [0.0] * 20)
    assert math.isnan(found.value)
    assert found.interval is None


def test_too_few_batches_have_a_sum_and_no_interval() -> None:
    few = [1.0] * (BATCHES_MIN - 1)
    assert statistics.total(few) == statistics.Estimate(value=len(few), interval=None)
    assert statistics.ratio(few, few).interval is None
    assert statistics.total([]).value == 0


def test_the_seed_alone_decides_the_draws() -> None:
    series = autoregressive(0, 100, 0.5)
    assert statistics.total(series, seed=4) == statistics.total(series, seed=4)
    assert statistics.total(series, seed=4) != statistics.total(series, seed=5)


@pytest.mark.parametrize("series", [[1.0, math.nan], [1.0, math.inf], [[1.0], [2.0]]])
def test_what_is_no_series_of_finite_numbers_is_refused(series: list[float]) -> None:
    with pytest.raises(ValueError, match="one finite number"):
        statistics.total(series)


def test_series_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        statistics.difference([1.0, 2.0], [1.0])


def test_student_is_wider_for_fewer_blocks_and_normal_for_many() -> None:
    # The table's 0.975 quantiles for 4, 9 and 120 degrees of freedom.
    found = [statistics._student(freedom) for freedom in (4, 9, 120)]
    assert found == pytest.approx([2.776, 2.262, 1.980], rel=0.02)


def test_a_quantile_of_latencies_is_one_that_was_measured() -> None:
    hours = [timedelta(hours=n) for n in (4, 1, 3, 2, 10)]
    assert statistics.quantiles(hours) == (timedelta(hours=3), timedelta(hours=10), timedelta(hours=10))
    assert statistics.quantiles(hours[:1]) == (timedelta(hours=4),) * 3
    assert statistics.quantiles([]) == ()
