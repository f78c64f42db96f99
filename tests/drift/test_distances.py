"""Scores from profiles where the rows have no say: nulls, unseen categories, windows without values, doubt, speed."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstwo

from retrainer.core.policy import Column
from retrainer.drift import significance
from retrainer.drift.distances import Score, decided, score
from retrainer.drift.divergences import Table, of_bins, of_shares, of_table
from retrainer.drift.grid import CategoryGrid, NumberGrid
from retrainer.drift.values import Values
from tests.drift import counted

NUMERICAL = ("psi", "jensenshannon", "wasserstein", "hellinger", "ks", "missing")
CATEGORICAL = ("psi", "jensenshannon", "hellinger", "TVD", "chisquare", "g_test", "missing", "unseen")


def scored(kind: Any, test: Any, old: Values, new: Values, grid: counted.Held | None = None) -> Score:
    grid = grid or counted.grid(old)
    return score(Column(kind=kind, test=test), grid, counted.count(grid, old), counted.count(grid, new))


def words(text: str) -> Values:
    """One category a letter; a dot is null."""
    return np.array([None if letter == "." else letter for letter in text], object)


def test_the_missing_share_is_the_difference_of_both_windows() -> None:
    holes = np.array([math.nan, math.inf, 1.0, 2.0])
    assert scored("numerical", "missing", np.ones(4), holes).value == 0.5
    assert scored("numerical", "missing", holes, np.ones(4)).value == 0.5
    assert scored("categorical", "missing", words("ab.."), words("abc.")).value == 0.25
    assert scored("categorical", "missing", words("ab"), words("c")).value == 0.0


def test_unseen_is_the_share_of_rows_in_categories_that_the_reference_does_not_have() -> None:
    assert scored("categorical", "unseen", words("aab"), words("abcd")).value == 0.5
    assert scored("categorical", "unseen", words("aab"), words("ab.")).value == 0.0
    assert (
        scored("categorical", "unseen", words("aabc"), words("ac"), CategoryGrid(("a",), complete=False)).value == 0.0
    )


def test_unseen_categories_without_a_name_are_bounded() -> None:
    ids = np.array([f"id{i}" for i in range(3000)], object)
    found = scored("categorical", "unseen", ids[:2000], ids[1000:], CategoryGrid((), complete=False))
    assert found.low <= 0.5 <= found.high
    assert scored("categorical", "unseen", ids[:10], ids[10:], CategoryGrid(tuple(ids[:10]), complete=True)).low == 1.0


@pytest.mark.parametrize("test", NUMERICAL)
def test_a_window_without_values_is_as_far_as_can_be_from_one_with_values(test: Any) -> None:
    none, some = np.full(30, math.nan), np.arange(30.0)
    column = Column(kind="numerical", test=test)
    far = scored("numerical", test, some, none)
    assert decided(column, far)
    assert far.low < 0.01 if test == "ks" else far.low >= 0.1
    same = scored("numerical", test, none, none)
    assert same.value == (1.0 if test == "ks" else 0.0)


@pytest.mark.parametrize("test", NUMERICAL[:-1])
def test_nulls_that_appear_count_though_the_values_stay(test: Any) -> None:
    values = np.random.default_rng(0).normal(size=4000)
    holes = np.where(np.arange(4000) % 2 == 0, np.nan, values)
    found = scored("numerical", test, values, holes)
    assert found.high < 1e-9 if test == "ks" else found.low > 0.3


@pytest.mark.parametrize("test", NUMERICAL[:-1])
def test_numbers_beyond_any_square_are_left_to_the_rows(test: Any) -> None:
    found = scored("numerical", test, np.array([-1e300, 1e300, 0.0]), np.array([1e300, 1.0]))
    assert not decided(Column(kind="numerical", test=test), found)


def test_what_lies_on_both_sides_of_the_threshold_is_not_decided() -> None:
    psi, ks = Column(kind="numerical", test="psi", threshold=0.2), Column(kind="numerical", test="ks", threshold=0.05)
    assert not decided(psi, Score(0.2, 0.19, 0.21))
    assert decided(psi, Score(0.2, 0.2, 0.21))
    assert decided(psi, Score(0.1, 0.05, 0.19))
    assert decided(ks, Score(0.01, 0.001, 0.04))
    assert not decided(ks, Score(0.05, 0.04, 0.05))


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 10**6),
)
def test_the_exact_p_value_of_a_distance_is_that_of_samples_so_far_apart(first: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    told = ks_2samp(rng.normal(size=first), rng.normal(0.5, size=second), method="exact")
    found = significance.kolmogorov_smirnov((told.statistic,) * 2, first, second)
    assert list(found) == pytest.approx([told.pvalue] * 2, rel=1e-9)


@pytest.mark.parametrize("rows", [1000, 3000, 50_000, 2_000_000])
def test_the_p_value_of_many_rows_is_within_its_bounds_of_scipys(rows: int) -> None:
    for scaled in np.linspace(0.3, 3.7, 18):
        apart = scaled / math.sqrt(rows)
        low, high = significance.kolmogorov_smirnov((apart, apart), 2 * rows, 2 * rows)
        if max(2 * rows, 0) > 10_000:
            assert low <= kstwo.sf(apart, rows) <= high


@given(st.data())
def test_bounds_of_bins_hold_for_every_count_between(data: st.DataObject) -> None:
    width = data.draw(st.integers(2, 6))
    counts = st.lists(st.integers(0, 50), min_size=width, max_size=width).filter(any)
    true = np.array([data.draw(counts), data.draw(counts)], np.int64)
    spare = st.lists(st.integers(0, 5), min_size=2 * width, max_size=2 * width)
    least = np.maximum(true - np.array(data.draw(spare)).reshape(2, -1), 0)
    most = true + np.array(data.draw(spare)).reshape(2, -1)
    for test in ("psi", "jensenshannon", "hellinger", "TVD"):
        low, high = of_bins(test, true.sum(axis=1).astype(np.float64), least, most)
        assert low - 1e-9 <= of_shares(test, true.astype(np.float64)) <= high + 1e-9


@given(st.data())
def test_bounds_of_a_table_hold_for_every_way_to_fill_its_blocks(data: st.DataObject) -> None:
    width = data.draw(st.integers(2, 8))
    counts = st.lists(st.integers(0, 30), min_size=width, max_size=width).filter(any)
    true = np.array([data.draw(counts), data.draw(counts)], np.int64)
    true = true[:, true.sum(axis=0) > 0]
    hidden = data.draw(st.integers(0, true.shape[1]))
    block = true[:, :hidden].sum(axis=1, keepdims=True)
    table = Table(true[:, hidden:], block if hidden else block[:, :0])
    for test in ("psi", "jensenshannon", "hellinger", "TVD"):
        low, high = of_table(test, table)
        assert low - 1e-9 <= of_shares(test, true.astype(np.float64)) <= high + 1e-9


@given(st.lists(st.floats(), min_size=1, max_size=20), st.lists(st.floats(), min_size=1, max_size=20), st.data())
def test_any_numbers_on_any_grid_have_a_score_between_its_bounds(
    old: list[float], new: list[float], data: st.DataObject
) -> None:
    edges = np.unique(data.draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=10)))
    grid = NumberGrid(edges.astype(np.float64))
    for test in NUMERICAL:
        found = scored("numerical", test, np.array(old), np.array(new), grid)
        assert 0 <= found.low <= found.value <= found.high
