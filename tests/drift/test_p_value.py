"""The p-value of a column: nulls count, batches that differ are allowed for, and any window has an answer."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrainer.core.policy import Column
from retrainer.drift import p_value as judged
from retrainer.drift.counting import Categories
from retrainer.drift.grid import CategoryGrid, NumberGrid
from retrainer.drift.p_value import inflation
from retrainer.drift.values import Values
from tests.drift import counted

NUMBER = Column(kind="numerical", test="wasserstein")
NAME = Column(kind="categorical", test="psi")
BATCHES = [80] * 25
LEVELS = (0.001, 0.01, 0.05)


def p_value(column: Column, old: Values, new: Values, batches: Sequence[int] = ()) -> float:
    """From the profiles of both windows on the reference's own grid."""
    grid = counted.grid(old)
    reference = counted.reference(grid, old, batches or [len(old)])
    return judged.p_value(reference, counted.count(grid, new))


def series(rows: int, memory: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Standard normal values, each correlated with the one before (AR 1)."""
    found = rng.normal(size=rows)
    for i in range(1, rows):
        found[i] = memory * found[i - 1] + math.sqrt(1 - memory**2) * found[i]
    return found


def seldom(found: list[float]) -> None:
    for level in LEVELS:
        assert np.mean(np.array(found) <= level) <= level + 3 * math.sqrt(level / len(found))


def names(rng: np.random.Generator, rows: int, shares: list[float]) -> NDArray[np.object_]:
    known = np.array([f"c{i}" for i in range(len(shares))], dtype=object)
    return known[rng.choice(len(shares), rows, p=shares)]


def test_columns_that_stay_the_same_are_seldom_surprising() -> None:
    rng = np.random.default_rng(0)
    seldom([p_value(NUMBER, rng.lognormal(size=2000), rng.lognormal(size=300), BATCHES) for _ in range(400)])
    shares = [0.4, 0.3, 0.2, 0.08, 0.02]
    seldom([p_value(NAME, names(rng, 2000, shares), names(rng, 300, shares), BATCHES) for _ in range(400)])


@pytest.mark.parametrize("memory", [0.3, 0.8])
def test_rows_that_resemble_their_neighbours_are_no_drift(memory: float) -> None:
    rng = np.random.default_rng(1)
    drawn = [series(3000, memory, rng) for _ in range(300)]
    seldom([p_value(NUMBER, x[:2000], x[2600:], BATCHES) for x in drawn])
    blind = np.mean([p_value(NUMBER, x[:2000], x[2600:]) <= 0.01 for x in drawn])
    assert blind > 0.02  # which is why the batches are asked


def test_batches_of_one_customer_each_are_no_drift() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(400):
        taste = rng.dirichlet([5.0, 3.0, 2.0], size=29)
        rows = np.concatenate([names(rng, 80, list(t)) for t in taste])
        found.append(p_value(NAME, rows[:2000], rows[2000:], BATCHES))
    seldom(found)


def test_a_shift_is_found_in_spite_of_the_allowance() -> None:
    rng = np.random.default_rng(3)
    assert p_value(NUMBER, rng.normal(size=2000), rng.normal(0.5, size=300), BATCHES) < 1e-9
    moved = series(600, 0.8, rng) + 1.5
    assert p_value(NUMBER, series(2000, 0.8, rng), moved, BATCHES) < 1e-6
    assert p_value(NAME, names(rng, 2000, [0.5, 0.5]), names(rng, 300, [0.2, 0.8]), BATCHES) < 1e-9


def test_nulls_that_appear_or_vanish_are_a_change() -> None:
    rng = np.random.default_rng(4)
    whole, new = rng.normal(size=2000), rng.normal(size=300)
    holes = np.where(rng.random(300) < 0.4, np.nan, new)
    assert p_value(NUMBER, whole, holes, BATCHES) < 1e-12
    assert p_value(NUMBER, np.where(rng.random(2000) < 0.4, np.nan, whole), new, BATCHES) < 1e-12
    assert p_value(NUMBER, whole, np.full(300, np.nan), BATCHES) < 1e-12
    assert p_value(NUMBER, np.full(2000, np.nan), np.full(300, np.nan), BATCHES) == 1.0
    none = names(rng, 300, [0.5, 0.5])
    none[rng.random(300) < 0.4] = None
    assert p_value(NAME, names(rng, 2000, [0.5, 0.5]), none, BATCHES) < 1e-12


def test_the_same_share_of_nulls_is_none() -> None:
    rng = np.random.default_rng(5)

    def holed(rows: int) -> NDArray[np.float64]:
        return np.where(rng.random(rows) < 0.3, np.nan, rng.normal(size=rows))

    seldom([p_value(NUMBER, holed(2000), holed(300), BATCHES) for _ in range(400)])


def test_constants_are_the_same_or_certainly_are_not() -> None:
    assert p_value(NUMBER, np.ones(2000), np.ones(300), BATCHES) == 1.0
    assert p_value(NUMBER, np.ones(2000), np.zeros(300), BATCHES) < 1e-12
    assert p_value(NUMBER, np.array([1.0]), np.array([2.0])) == 1.0


def test_fewer_than_eight_batches_do_not_tell_how_much_they_differ() -> None:
    rng = np.random.default_rng(6)
    old, new = series(280, 0.8, rng), series(300, 0.8, rng)
    assert p_value(NUMBER, old, new, [40] * 7) == p_value(NUMBER, old, new)


def test_nulls_that_come_in_bursts_are_no_drift() -> None:
    rng = np.random.default_rng(8)
    found = []
    for _ in range(400):
        share = np.repeat(rng.beta(1, 4, size=29), 80)
        rows = np.where(rng.random(2320) < share, np.nan, rng.normal(size=2320))
        found.append(p_value(NUMBER, rows[:2000], rows[2000:], BATCHES))
    seldom(found)


def test_an_inflation_of_independent_rows_is_near_one_and_of_copied_rows_their_number() -> None:
    rng = np.random.default_rng(9)
    grid = counted.grid(rng.normal(size=5000))
    alone = [inflation([counted.count(grid, rng.normal(size=100)) for _ in range(50)]) for _ in range(50)]
    copied = [inflation([counted.count(grid, np.repeat(rng.normal(size=20), 5)) for _ in range(50)]) for _ in range(50)]
    assert 1.0 <= np.mean(alone) < 1.2
    assert 5.0 < np.mean(copied) < 8.0


def test_ids_that_seldom_return_are_no_drift_though_the_grid_has_only_the_references() -> None:
    rng = np.random.default_rng(10)
    found, grid = [], CategoryGrid((), complete=False)
    for _ in range(100):
        old, new = (np.array([f"id{i}" for i in rng.integers(0, 8000, n)], object) for n in (6000, 3000))
        grid = CategoryGrid(tuple(dict.fromkeys(old[:3000].tolist())), complete=False)
        profiles = counted.count(grid, old), counted.count(grid, new)
        assert isinstance(profiles[1], Categories)
        assert profiles[1].other > 0
        found.append(judged.p_value(*profiles))
    seldom(found)


def test_one_id_among_many_that_seldom_return_is_found() -> None:
    rng = np.random.default_rng(11)
    old = np.array([f"id{i}" for i in rng.integers(0, 8000, 6000)], object)
    new = np.array([f"id{i}" for i in rng.integers(0, 8000, 3000)], object)
    new[:300] = "robot"
    grid = CategoryGrid(tuple(dict.fromkeys(old[:3000].tolist())), complete=False)
    assert judged.p_value(counted.count(grid, old), counted.count(grid, new)) < 1e-9


@pytest.mark.parametrize(("rows", "held"), [(500, 9000), (20_000, 40_000)])
def test_ids_that_are_in_only_one_window_by_chance_are_no_drift(rows: int, held: int) -> None:
    rng, found = np.random.default_rng(13), []
    shares = 1 / np.arange(1, 8001) ** 1.1
    for _ in range(100 if rows < 1000 else 10):
        old, new = (names(rng, n, list(shares / shares.sum())) for n in (rows, held))
        grid = counted.grid(old)
        profiles = counted.count(grid, old), counted.count(grid, new)
        assert isinstance(profiles[1], Categories)
        assert profiles[1].other > 0, "more unseen ids than are counted by name"
        found.append(judged.p_value(*profiles))
        new[: held // 20] = "robot"
        assert judged.p_value(profiles[0], counted.count(grid, new)) < 0.01
    seldom(found)


@pytest.mark.parametrize("known", [50, 500])
def test_rows_that_come_in_copies_are_allowed_for_though_each_category_is_rare(known: int) -> None:
    rng, found = np.random.default_rng(14), []
    for _ in range(200):
        rows = np.repeat(rng.integers(0, known, 500), 4).astype(str).astype(object)
        found.append(p_value(NAME, rows[:1600], rows[1600:], [64] * 25))
    seldom(found)


def test_a_coarse_grid_costs_power_and_never_errs_the_other_way() -> None:
    rng = np.random.default_rng(12)
    old, new = rng.normal(size=2000), rng.normal(0.2, size=500)
    fine = counted.grid(old)
    assert isinstance(fine, NumberGrid)
    coarse = NumberGrid(fine.edges[::40])
    found = [judged.p_value(counted.count(g, old), counted.count(g, new)) for g in (fine, coarse)]
    assert found[0] <= found[1]


@given(st.data())
def test_any_two_windows_have_a_p_value(data: st.DataObject) -> None:
    numbers = st.floats(width=64) | st.sampled_from([0.0, 1.0, math.nan, math.inf])
    batches = data.draw(st.lists(st.integers(0, 3), min_size=8, max_size=10).filter(any))
    rows = sum(batches)
    old = data.draw(st.lists(numbers, min_size=rows, max_size=rows))
    new = data.draw(st.lists(numbers, min_size=1, max_size=20))
    assert 0 <= p_value(NUMBER, np.array(old), np.array(new), batches) <= 1
    words = st.sampled_from([None, "a", "b", "c"])
    old_words = data.draw(st.lists(words, min_size=rows, max_size=rows))
    new_words = data.draw(st.lists(words, min_size=1, max_size=20))
    assert 0 <= p_value(NAME, np.array(old_words, object), np.array(new_words, object), batches) <= 1
