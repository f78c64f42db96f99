"""A shape adds up to the whole window, whatever the column is like, and says what the reference did not have."""

from typing import Any

import numpy as np
import pytest

from retrainer.report.shapes import BARS, BINS, NAME_MAX, Bars, Density, shape
from tests.report.example import counted, grid, profiles

RNG = np.random.default_rng(5)


def density(reference: Any, current: Any) -> Density:
    drawn = drawn_of(reference, current)
    assert drawn is not None
    assert drawn["kind"] == "density"
    return drawn


def bars(reference: Any, current: Any) -> Bars:
    drawn = drawn_of(np.array(reference, dtype=object), np.array(current, dtype=object))
    assert drawn is not None
    assert drawn["kind"] == "bars"
    return drawn


def drawn_of(reference: Any, current: Any) -> Density | Bars | None:
    made = profiles({"x": reference}, {"x": current})
    return shape(made.grid.columns["x"], made.reference.columns["x"], made.current.columns["x"])


NUMBERS = {
    "normal": RNG.normal(size=3_000),
    "lognormal": RNG.lognormal(0, 2, 3_000),
    "whole": RNG.integers(0, 7, 3_000).astype(float),
    "many whole": RNG.integers(0, 5_000, 3_000).astype(float),
    "mostly zero": np.where(RNG.random(3_000) < 0.8, 0.0, RNG.exponential(size=3_000)),
    "constant": np.full(3_000, 4.2),
    "zero": np.zeros(3_000),
    "two": np.array([0.0, 5e-324] * 1_500),
    "huge": RNG.normal(size=3_000) * 1e307,
    "tiny": RNG.normal(size=3_000) * 1e-307,
    "one": np.array([3.0]),
}


@pytest.mark.parametrize("reference", NUMBERS)
@pytest.mark.parametrize("current", NUMBERS)
def test_the_shares_of_numbers_add_up_to_one_in_both_windows(reference: str, current: str) -> None:
    drawn = density(NUMBERS[reference], NUMBERS[current])
    for n, side in enumerate((drawn["reference"], drawn["current"])):
        assert drawn["below"][n] + sum(side) + drawn["above"][n] == pytest.approx(1.0, abs=1e-4)
        assert min(side) >= 0
    assert len(drawn["reference"]) == len(drawn["current"]) <= BINS[1] + 1
    assert drawn["low"] < drawn["high"]


def test_the_shares_are_those_of_the_rows() -> None:
    old, new = NUMBERS["normal"], NUMBERS["normal"] * 2 + 1
    drawn = density(old, new)
    edges = np.linspace(drawn["low"], drawn["high"], len(drawn["reference"]) + 1)
    for side, rows in (("reference", old), ("current", new)):
        exact = np.histogram(rows, edges)[0] / len(rows)
        assert np.abs(np.array(drawn[side]) - exact).max() < 0.005  # type: ignore[literal-required]
    assert drawn["above"][1] == pytest.approx(np.mean(new >= drawn["high"]), abs=0.002)


def test_each_whole_number_of_a_few_has_a_bin_of_its_own() -> None:
    drawn = density(NUMBERS["whole"], NUMBERS["whole"] + 1)
    assert (drawn["low"], drawn["high"]) == (-0.5, 6.5)
    assert drawn["reference"] == pytest.approx([1 / 7] * 7, abs=0.03)
    assert drawn["current"][0] == 0.0
    assert drawn["above"][0] == 0.0
    assert drawn["above"][1] == pytest.approx(1 / 7, abs=0.03)


def test_an_outlier_does_not_stretch_the_plot() -> None:
    drawn = density([*NUMBERS["normal"], 1e9], NUMBERS["normal"])
    assert drawn["high"] < 5


def test_infinite_values_and_nulls_are_left_out() -> None:
    holed = NUMBERS["normal"].copy()
    holed[:500], holed[500:600] = np.nan, np.inf
    drawn = density(NUMBERS["normal"], holed)
    assert drawn["below"][1] + sum(drawn["current"]) + drawn["above"][1] == pytest.approx(1.0, abs=1e-4)


def test_a_window_without_values_has_no_shape() -> None:
    nothing = np.full(10, np.nan)
    assert drawn_of(NUMBERS["normal"], nothing) is None
    assert drawn_of(nothing, NUMBERS["normal"]) is None
    assert drawn_of(np.array(["a", "b"], dtype=object), np.array([None, None], dtype=object)) is None


def test_categories_that_the_reference_does_not_have_are_named_as_new() -> None:
    drawn = bars(["a"] * 60 + ["b"] * 40, ["a"] * 50 + ["c"] * 30 + ["d"] * 20)
    assert drawn["bars"] == [{"name": "a", "shares": (0.6, 0.5)}, {"name": "b", "shares": (0.4, 0.0)}]
    assert drawn["new"] == [{"name": "c", "shares": (0.0, 0.3)}, {"name": "d", "shares": (0.0, 0.2)}]
    assert (drawn["rest"], drawn["new_rest"]) == ((0.0, 0.0), 0.0)


def test_a_category_of_the_grid_is_new_where_only_the_current_window_has_it() -> None:
    on = grid({"x": np.array(["a", "b"], dtype=object)})
    sides = [counted(on, {"x": np.array(held, dtype=object)}).columns["x"] for held in (["a"], ["a", "b"])]
    drawn = shape(on.columns["x"], sides[0], sides[1])
    assert drawn is not None
    assert drawn["kind"] == "bars"
    assert [bar["name"] for bar in drawn["new"]] == ["b"]


def test_a_category_that_the_grid_missed_and_the_reference_has_is_not_new() -> None:
    on = grid({"x": np.array(["a"], dtype=object)})
    sides = [counted(on, {"x": np.array(["a", "late"], dtype=object)}).columns["x"] for _ in range(2)]
    drawn = shape(on.columns["x"], sides[0], sides[1])
    assert drawn is not None
    assert drawn["kind"] == "bars"
    assert (drawn["new"], drawn["rest"]) == ([], (0.5, 0.5))


def test_of_many_categories_the_most_frequent_are_drawn_and_the_rest_is_told() -> None:
    many = [f"k{n}" for n in range(100) for _ in range(100 - n)]
    drawn = bars(many, [*many, *(f"new{n}" for n in range(500))])
    assert [bar["name"] for bar in drawn["bars"]] == [f"k{n}" for n in range(BARS)]
    assert len(drawn["new"]) == BARS
    shares = [sum(bar["shares"][n] for bar in (*drawn["bars"], *drawn["new"])) + drawn["rest"][n] for n in (0, 1)]
    assert shares[0] == pytest.approx(1.0, abs=1e-4)
    assert shares[1] + drawn["new_rest"] == pytest.approx(1.0, abs=1e-4)


def test_a_long_name_is_cut() -> None:
    drawn = bars(["a" * 200], ["a" * 200])
    assert len(drawn["bars"][0]["name"]) == NAME_MAX
