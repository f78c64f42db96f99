"""Two-sample p-values against scipy, by enumeration, and by what they promise: never too small under the null."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from retrainer.drift.two_sample import chi_square_tail, contingency, distance, exact, kolmogorov_smirnov, limit

SIZES = [(1, 1), (1, 5), (2, 3), (7, 7), (10, 25), (37, 1001), (50, 200), (200, 200), (200, 5000), (100, 10_000)]
LARGE = [(201, 10_000), (300, 5000), (500, 500), (1000, 9000), (5000, 5000)]


def shifted(sizes: tuple[int, int], shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, *sizes])
    return rng.normal(size=sizes[0]), rng.normal(shift, size=sizes[1])


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
)
def test_the_distance_is_the_largest_difference_of_shares_anywhere(first: list[int], second: list[int]) -> None:
    a, b = np.array(first, float), np.array(second, float)
    largest = max(abs(float(np.mean(a <= x)) - float(np.mean(b <= x))) for x in range(-1, 7))
    assert distance(a, b) == pytest.approx(largest, abs=1e-12) == distance(b, a)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 2.0])
def test_small_samples_have_the_exact_p_value_of_scipy_down_to_the_farthest_tail(
    sizes: tuple[int, int], shift: float
) -> None:
    first, second = shifted(sizes, shift)
    expected = stats.ks_2samp(first, second, method="exact").pvalue
    assert kolmogorov_smirnov(first, second) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (4, 4), (3, 6), (1, 7)])
def test_the_exact_p_value_counts_the_orders_of_two_samples(rows: int, columns: int) -> None:
    found = []
    for chosen in itertools.combinations(range(rows + columns), rows):
        order = np.isin(np.arange(rows + columns), chosen)
        found.append(np.max(np.abs(np.cumsum(order) / rows - np.cumsum(~order) / columns)))
    for value in {round(d, 12) for d in found}:
        assert exact(value, rows, columns) == pytest.approx(np.mean(np.array(found) >= value - 1e-9))


@pytest.mark.parametrize("sizes", LARGE)
@pytest.mark.parametrize("far", [1e-3, 1e-6, 1e-9, 1e-12])
def test_large_samples_err_towards_no_drift_and_by_less_than_a_factor_of_two(
    sizes: tuple[int, int], far: float
) -> None:
    rows, columns = sizes
    found = math.sqrt(-math.log(far / 2) / 2 / (rows * columns / (rows + columns)))
    steps = math.ceil(found * rows * columns / math.gcd(rows, columns)) * math.gcd(rows, columns)
    reached = steps / (rows * columns)
    true = exact(reached, rows, columns)
    told = float(limit(reached * math.sqrt(rows * columns / (rows + columns))))
    assert 0.995 * true < told < 2 * true


def test_the_limit_is_kolmogorovs_distribution() -> None:
    x = np.array([0.0, 0.2, 0.39, 0.5, 0.8, 1.0, 1.36, 2.0, 3.0, 4.0])
    assert limit(x) == pytest.approx(stats.kstwobign.sf(x), rel=1e-9, abs=0.003)
    assert limit(x[3:]) == pytest.approx(stats.kstwobign.sf(x[3:]), rel=1e-9)


@pytest.mark.parametrize("sizes", [(150, 900), (300, 2000)])
def test_p_values_of_one_distribution_are_uniform(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    found = np.array([kolmogorov_smirnov(rng.normal(size=sizes[0]), rng.normal(size=sizes[1])) for _ in range(1500)])
    # 1.63 / sqrt(1500) is the 1 % point of Kolmogorov's distribution.
    assert stats.kstest(found, "uniform").statistic < 1.63 / math.sqrt(1500) + 0.02


@pytest.mark.parametrize("values", [2, 5, 40])
def test_ties_make_no_p_value_smaller(values: int) -> None:
    rng = np.random.default_rng(4)
    found = np.array(
        [
            kolmogorov_smirnov(
                rng.integers(values, size=250).astype(float), rng.integers(values, size=900).astype(float)
            )
            for _ in range(1500)
        ]
    )
    for level in (0.001, 0.01, 0.05, 0.2, 0.5):
        assert np.mean(found <= level) <= level + 3 * math.sqrt(level / 1500)


def test_a_clear_shift_is_certain_and_none_is_not() -> None:
    first, second = shifted((5000, 400), 0.5)
    assert kolmogorov_smirnov(first, second) < 1e-12
    assert kolmogorov_smirnov(first, first) == 1.0
    assert kolmogorov_smirnov(first, np.array([])) == 1.0
    assert kolmogorov_smirnov(np.array([1.0]), np.array([1.0])) == 1.0


def test_inflated_rows_are_worth_fewer() -> None:
    first, second = shifted((2000, 2000), 0.2)
    assert kolmogorov_smirnov(first, second, inflation=4.0) == pytest.approx(
        float(limit(distance(first, second) * math.sqrt(1000 / 4)))
    )
    counts = np.array([500, 300, 200]), np.array([400, 300, 300])
    assert contingency(*counts, inflation=4.0) > 1e3 * contingency(*counts)


@pytest.mark.parametrize("degrees", [1, 2, 5, 50, 1000])
@pytest.mark.parametrize("value", [0.0, 0.01, 1.0, 5.0, 30.0, 60.0, 200.0, 1200.0])
def test_the_tail_of_chi_square_is_that_of_scipy(degrees: int, value: float) -> None:
    assert chi_square_tail(value, degrees) == pytest.approx(stats.chi2.sf(value, degrees), rel=1e-10, abs=1e-300)


@pytest.mark.parametrize(
    "shares",
    [[0.5, 0.5], [0.2] * 5, [0.97, 0.03], [0.5, 0.3, 0.15, 0.049, 0.001], [0.9, *[0.001] * 100]],
    ids=["even", "five", "uneven", "a rare one", "a hundred rare ones"],
)
@pytest.mark.parametrize("sizes", [(300, 2000), (2000, 300), (200, 200)])
def test_counts_of_one_distribution_are_seldom_surprising(shares: list[float], sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    chance = np.array(shares) / sum(shares)
    found = np.array(
        [contingency(rng.multinomial(sizes[0], chance), rng.multinomial(sizes[1], chance)) for _ in range(2000)]
    )
    for level in (0.001, 0.01, 0.05):
        assert np.mean(found <= level) <= level * 1.15 + 3 * math.sqrt(level / 2000)


def test_common_categories_lose_nothing_to_the_correction() -> None:
    found = contingency(np.array([500, 300, 200]), np.array([4000, 3500, 2500]))
    expected = stats.chi2_contingency([[500, 300, 200], [4000, 3500, 2500]], lambda_="log-likelihood").pvalue
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        ([20_000, 0], [185, 15]),
        ([*[20] * 1000, 0], [*[0] * 180, *[1] * 5, *[0] * 815, 15]),
        ([20_000, 0], [0, 200]),
        ([10_000, 10_000], [40, 160]),
        ([0] * 200 + [20_000], [1] * 200 + [0]),
    ],
    ids=["a new category", "a new one among a thousand", "another one altogether", "shares moved", "all are new"],
)
def test_what_has_changed_is_certain(reference: list[int], current: list[int]) -> None:
    assert contingency(np.array(reference), np.array(current)) < 1e-9


@pytest.mark.parametrize(
    ("reference", "current"),
    [([20_000, 0], [199, 1]), ([5], [5]), ([0, 0], [3, 4]), ([], []), ([1, 0], [0, 1]), ([20_000, 20], [199, 1])],
)
def test_what_may_be_chance_is_not_certain(reference: list[int], current: list[int]) -> None:
    assert contingency(np.array(reference, int), np.array(current, int)) > 0.01


@given(st.data())
def test_counts_of_any_kind_have_a_p_value(data: st.DataObject) -> None:
    width = data.draw(st.integers(0, 8))
    rows = st.lists(st.integers(0, 10**9), min_size=width, max_size=width)
    first, second = np.array(data.draw(rows), int), np.array(data.draw(rows), int)
    assert 0 <= contingency(first, second) <= 1
