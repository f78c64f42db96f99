"""Scores from profiles against Evidently's on the rows: always within the bounds, and near them where rows are many."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrainer.core.policy import Column
from retrainer.drift import columns
from retrainer.drift.distances import Score, decided, score
from retrainer.drift.grid import CategoryGrid
from retrainer.drift.values import Floats, Values
from tests.drift import counted

NUMERICAL = ("psi", "jensenshannon", "wasserstein", "hellinger", "ks")
CATEGORICAL = ("psi", "jensenshannon", "hellinger", "TVD", "chisquare", "g_test")
SIZES = [
    (1, 1),
    (3, 2),
    (20, 20),
    (50, 7),
    (1000, 1),
    (1000, 50),
    (7, 900),
    (20_000, 100),
    (9000, 9000),
    (60_000, 30_000),
]
Draw = Callable[[np.random.Generator, int, float], Floats]

SHAPES: dict[str, Draw] = {
    "normal": lambda rng, n, shift: rng.normal(shift, size=n),
    "lognormal": lambda rng, n, shift: rng.lognormal(shift, size=n),
    "heavy tails": lambda rng, n, shift: rng.standard_cauchy(n) + shift,
    "few integers": lambda rng, n, shift: rng.poisson(3 * np.exp(shift), n).astype(np.float64),
    "many integers": lambda rng, n, shift: rng.poisson(1000 * (1 + shift / 10), n).astype(np.float64),
    "zero-inflated": lambda rng, n, shift: np.where(rng.random(n) < 0.7, 0.0, rng.lognormal(shift, size=n)),
    "constant": lambda rng, n, shift: np.full(n, 3.0 + shift),
    "nearly constant": lambda rng, n, shift: np.where(rng.random(n) < 0.0005 + shift / 100, 7.0, 3.0),
    "two values": lambda rng, n, shift: np.where(rng.random(n) < 0.4 + shift / 5, 1.0, 0.0),
    "an outlier": lambda rng, n, shift: np.where(np.arange(n) == n // 2, 1e9, rng.normal(shift, size=n)),
    "small-scaled": lambda rng, n, shift: 1e-6 * rng.normal(shift, size=n),
    "far from zero": lambda rng, n, shift: 1e9 + rng.normal(shift, size=n),
    "holes": lambda rng, n, shift: np.where(rng.random(n) < 0.1 + shift / 5, np.nan, rng.normal(size=n)),
    "infinite": lambda rng, n, shift: np.where(rng.random(n) < 0.05, np.inf, rng.normal(shift, size=n)),
    "uniform": lambda rng, n, shift: rng.random(n) + shift,
}


def told(column: Column, old: Values, new: Values) -> float:
    """What Evidently's test gives on the rows, after our mendings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = importlib.import_module("retrainer.adapters.evidently_report")
        value = engine.score(column, engine.Windows(old, new))
    return columns.verdict("x", column, value, 1.0).score


def found(column: Column, old: Values, new: Values, *, names: int | None = None) -> Score:
    grid = counted.grid(old)
    if isinstance(grid, CategoryGrid) and names is not None:
        grid = CategoryGrid(grid.names[:names], complete=False)
    return score(column, grid, counted.count(grid, old), counted.count(grid, new))


def agrees(column: Column, old: Values, new: Values) -> Score:
    seen, true = found(column, old, new), told(column, old, new)
    assert seen.low <= true <= seen.high, (column.test, seen, true)
    assert seen.low <= seen.value <= seen.high
    return seen


@pytest.mark.parametrize("test", NUMERICAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_of_numbers_hold_what_evidently_gives_on_the_rows(shape: str, test: Any) -> None:
    column, rng = Column(kind="numerical", test=test), np.random.default_rng(len(shape))
    for rows, held in SIZES if test != "hellinger" else SIZES[:-1]:
        for shift in (0.0, 0.02, 0.5):
            agrees(column, SHAPES[shape](rng, rows, 0.0), SHAPES[shape](rng, held, shift))


@pytest.mark.parametrize("test", CATEGORICAL)
@pytest.mark.parametrize("names", [1, 2, 6, 60, 1500])
def test_categories_counted_by_name_have_evidentlys_score(names: int, test: Any) -> None:
    column, rng = Column(kind="categorical", test=test), np.random.default_rng(names)
    known = np.array([*(f"c{i}" for i in range(names)), None], object)
    for rows, held in SIZES[:-1]:
        for share in (0.0, 0.3):
            chances = rng.dirichlet(np.full(names + 1, 0.5), size=2)
            chances[1] = (1 - share) * chances[0] + share * chances[1]
            old, new = (known[rng.choice(names + 1, n, p=p)] for n, p in zip((rows, held), chances, strict=True))
            seen = agrees(column, old, new)
            assert seen.high - seen.low <= 1e-6 * (1 + seen.value)
            rough, true = found(column, old, new, names=names // 2), told(column, old, new)
            assert rough.low <= true <= rough.high


@pytest.mark.parametrize(
    ("test", "within"), [("psi", 0.01), ("jensenshannon", 0.01), ("wasserstein", 0.003), ("hellinger", 0.01)]
)
@pytest.mark.parametrize("shape", ["normal", "lognormal", "heavy tails", "zero-inflated", "uniform"])
@pytest.mark.parametrize("shift", [0.1, 0.5])
def test_many_rows_have_evidentlys_score_within_a_hundredth(shape: str, test: Any, within: float, shift: float) -> None:
    column, rng = Column(kind="numerical", test=test), np.random.default_rng(len(shape))
    old, new = SHAPES[shape](rng, 100_000, 0.0), SHAPES[shape](rng, 100_000, shift)
    assert agrees(column, old, new).value == pytest.approx(told(column, old, new), rel=within, abs=0.001)


@pytest.mark.parametrize("test", [t for t in NUMERICAL if t != "ks"])
@pytest.mark.parametrize("shape", SHAPES)
def test_large_windows_that_have_not_changed_need_not_be_read(shape: str, test: Any) -> None:
    column, rng = Column(kind="numerical", test=test), np.random.default_rng(len(shape))
    old, new = SHAPES[shape](rng, 300_000, 0.0), SHAPES[shape](rng, 300_000, 0.0)
    assert decided(column, found(column, old, new))


def test_a_million_rows_agree() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.lognormal(size=1_000_000), rng.lognormal(0.05, size=1_000_000)
    for test in NUMERICAL[:3]:
        column = Column(kind="numerical", test=test)  # type: ignore[arg-type]
        assert agrees(column, old, new).value == pytest.approx(told(column, old, new), rel=0.01)


VALUES = st.floats(width=32) | st.sampled_from([0.0, 1.0, 1e-6, 1e9, 1e300, np.nan]) | st.integers(-3, 3)


@given(st.sampled_from(NUMERICAL), st.lists(VALUES, min_size=1, max_size=40), st.lists(VALUES, min_size=1, max_size=40))
@settings(deadline=None, max_examples=300)
def test_bounds_of_any_few_numbers_hold(test: Any, old: list[float], new: list[float]) -> None:
    column = Column(kind="numerical", test=test)
    held = np.array(old, np.float64), np.array(new, np.float64)
    seen = found(column, *held)
    try:
        true = told(column, *held)
    except ValueError:  # numpy has no bins between neighbouring floats
        return
    assert seen.low <= true <= seen.high


@pytest.mark.parametrize("test", NUMERICAL)
def test_the_smallest_numbers_have_a_score(test: Any) -> None:
    column = Column(kind="numerical", test=test)
    for old, new in (([0.0], [5e-324]), ([5e-324, 1e-323] * 9, [0.0, 4e-323] * 5)):
        seen = found(column, np.array(old), np.array(new))
        assert seen.low <= seen.value <= seen.high


WORDS = st.sampled_from(["a", "b", "c", "d", "(null)", None])


@given(st.sampled_from(CATEGORICAL), st.lists(WORDS, min_size=1, max_size=60), st.lists(WORDS, min_size=1, max_size=60))
@settings(deadline=None, max_examples=300)
def test_bounds_of_any_few_categories_hold(test: Any, old: list[str | None], new: list[str | None]) -> None:
    agrees(Column(kind="categorical", test=test), np.array(old, object), np.array(new, object))
