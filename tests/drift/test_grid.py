"""A grid is chosen once, from a sample of rows, and is the same wherever it is chosen."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrainer.drift import grid as grids
from retrainer.drift.grid import (
    CATEGORIES_MAX,
    CategoryGrid,
    Grid,
    NumberGrid,
    Projection,
    category_grid,
    choose,
    number_grid,
)
from retrainer.drift.values import canonical


def column(values: Any, kind: Any = "number") -> Any:
    return canonical(pa.chunked_array([values]), kind)


@settings(deadline=None)
@given(st.lists(st.floats(), max_size=200))
def test_edges_are_finite_sorted_and_distinct(values: list[float]) -> None:
    edges = number_grid(np.array(values, np.float64)).edges
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    assert len(edges) > 0 or not any(map(math.isfinite, values))


def test_a_value_that_repeats_has_a_cell_of_its_own() -> None:
    edges = number_grid(np.array([0.0, 0.0, 1.5, 2.5, 3.5])).edges.tolist()
    assert edges[edges.index(0.0) + 1] == np.nextafter(0.0, 1.0)


def test_cells_hold_a_thousandth_of_the_rows_and_reach_beyond_them() -> None:
    values = np.random.default_rng(0).lognormal(size=200_000)
    edges = number_grid(values).edges
    assert np.histogram(values, bins=edges)[0].max() <= 1.1 * len(values) / 1_023
    low, high = np.quantile(values, [0.001, 0.999])
    assert edges[-1] > high + (high - low)
    assert edges[0] < low - (high - low)
    assert len(edges) <= 2_049


@pytest.mark.parametrize(
    ("values", "count"),
    [([], 0), ([math.nan, math.inf], 0), ([7.0] * 9, 2), ([1.7e308, -1.7e308], 4), ([1.0, 2.0], 1_029)],
)
def test_columns_without_a_width_have_few_edges(values: list[float], count: int) -> None:
    assert len(number_grid(np.array(values)).edges) == count


def test_whole_numbers_have_a_cell_each() -> None:
    values = np.random.default_rng(0).integers(0, 100, 50_000).astype(np.float64)
    edges = number_grid(values).edges
    cells = np.searchsorted(edges, np.arange(100.0), side="right")
    assert len(set(cells.tolist())) == 100
    assert (edges[cells] == np.nextafter(np.arange(100.0), np.inf)).all()


def test_categories_are_the_most_frequent_by_name_where_equal() -> None:
    words = np.array(["b", None, "a", "c", "c"], dtype=object)
    assert category_grid(words) == CategoryGrid(("c", "a", "b"), True)


def test_more_categories_than_a_grid_holds_are_told() -> None:
    words = np.array([f"{number:06}" for number in range(CATEGORIES_MAX + 1)], dtype=object)
    found = category_grid(words)
    assert (len(found.names), found.complete) == (CATEGORIES_MAX, False)
    assert category_grid(words[:-1]).complete
    assert not category_grid(np.array(["x" * 300], dtype=object)).complete


def test_a_column_of_nothing_is_a_grid_too() -> None:
    found = choose(
        [{"x": column(pa.nulls(3)), "c": column(pa.nulls(3), "text")}], {"x": "numerical", "c": "categorical"}
    )
    assert isinstance(found.columns["x"], NumberGrid)
    assert found.columns["c"] == CategoryGrid((), True)
    assert choose([], {"x": "numerical", "c": "categorical"}).id == found.id


def test_the_id_is_that_of_what_it_holds_and_never_changes() -> None:
    held: dict[str, Any] = {"x": NumberGrid(np.array([0.0, 1.5])), "c": CategoryGrid(("a", "é"), True)}
    assert Grid(held, {}).id == Grid(dict(reversed(held.items())), {}).id == "ef74987c800e06ab"
    others: list[Any] = [NumberGrid(np.array([0.0, 1.25])), CategoryGrid(("a", "é"), True)]
    ids = {Grid(held, {}).id, *(Grid({**held, "x": other}, {}).id for other in others)}
    ids |= {Grid(held, {"e": Projection(np.ones(2), np.full((4, 2), end))}).id for end in (0.0, 1.0)}
    assert len(ids) == 5


def test_a_sample_of_many_rows_is_enough_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "GRID_ROWS", 3_000)
    values = np.random.default_rng(0).normal(size=60_000)
    parts = [{"x": column(part)} for part in np.split(values, 6)]
    found = choose(iter(parts), {"x": "numerical"}).columns["x"]
    assert isinstance(found, NumberGrid)
    assert np.histogram(values, bins=found.edges)[0].max() < 60_000 / 1_023 * 12
    assert choose(parts, {"x": "numerical"}).id == choose(parts, {"x": "numerical"}).id


def test_the_grid_of_a_wide_table_is_coarser() -> None:
    values = column(np.random.default_rng(0).normal(size=9_000))
    for columns, count in ((1, 4_096), (25, 2_000), (1_000, 1_024)):
        names = [f"x{number}" for number in range(columns)]
        found = choose([dict.fromkeys(names, values)], dict.fromkeys(names, "numerical")).columns["x0"]
        assert isinstance(found, NumberGrid)
        assert len(found.edges) == pytest.approx(count + 1_025, rel=0.1)


def test_a_derived_column_may_not_have_the_name_of_another() -> None:
    with pytest.raises(ValueError, match=r"'e\.norm' is watched, and is derived"):
        choose([], {"e": "embedding", "e.norm": "numerical"})
