"""Model Monitor's baseline as a reference: its sketch within its error, its categories and counts exactly."""

import json
from typing import Any

import numpy as np
import pytest

from retrainer.adapters.datasets.monitor import MonitorError, baseline
from retrainer.drift.counting import Categories, Numbers
from retrainer.drift.grid import CategoryGrid, NumberGrid
from retrainer.drift.stored import dump, load_grid, load_profile
from retrainer.drift.values import Floats

ROWS = 40_000


def _sketched(values: Floats) -> list[list[float]]:
    """Compactors as KLL makes them: half of each full one, sorted, every other value, goes on to the next."""
    rng, rest = np.random.default_rng(2), values
    levels: list[list[float]] = []
    while len(rest) > 2_048:
        levels.append([])
        rest = np.sort(rest)[int(rng.integers(2)) :: 2]
    return [*levels, rest.tolist()]


def _number(name: str, values: Floats, *, missing: int = 0, sketched: bool = True) -> dict[str, Any]:
    counts, edges = np.histogram(values, 10)
    kll: dict[str, Any] = {
        "buckets": [
            {"lower_bound": low, "upper_bound": high, "count": float(count)}
            for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        ]
    }
    if sketched:
        kll["sketch"] = {"parameters": {"c": 0.64, "k": 2048.0}, "data": _sketched(values)}
    return {
        "name": name,
        "inferred_type": "Fractional",
        "numerical_statistics": {
            "common": {"num_present": len(values), "num_missing": missing},
            "mean": float(np.mean(values)),
            "sum": float(np.sum(values)),
            "std_dev": float(np.std(values)),
            "min": float(np.min(values)),
            "max": float(np.max(values)),
            "distribution": {"kll": kll},
        },
    }


def _text(name: str, counts: dict[str, int], present: int) -> dict[str, Any]:
    buckets = [{"value": value, "count": count} for value, count in counts.items()]
    return {
        "name": name,
        "inferred_type": "String",
        "string_statistics": {
            "common": {"num_present": present, "num_missing": 3},
            "distinct_count": len(counts),
            "distribution": {"categorical": {"buckets": buckets}},
        },
    }


def _document(*features: dict[str, Any]) -> bytes:
    return json.dumps({"version": 0.0, "dataset": {"item_count": ROWS}, "features": list(features)}).encode()


@pytest.fixture
def values() -> Floats:
    return np.random.default_rng(1).lognormal(size=ROWS)


@pytest.mark.parametrize(("sketched", "off"), [(True, 0.005), (False, 1e-4)])
def test_a_numbers_ranks_are_those_of_its_rows(values: Floats, sketched: bool, off: float) -> None:
    grid, profile = baseline([_document(_number("x", values, missing=7, sketched=sketched))], {"x": "numerical"})

    edges, found = grid.columns["x"], profile.columns["x"]
    assert isinstance(edges, NumberGrid)
    assert isinstance(found, Numbers)
    shares = np.cumsum(found.counts)[:-1] / found.values
    rows = np.searchsorted(np.sort(values), edges.edges, "left") / ROWS
    assert np.max(np.abs(shares - rows)) < off
    assert (found.values, found.nulls, profile.rows, found.mean) == (ROWS, 7, ROWS + 7, float(np.mean(values)))


def test_categories_are_counted_as_they_were(values: Floats) -> None:
    document = _document(_text("word", {"a": 10, "b": 5}, 15), _number("x", values))

    grid, profile = baseline([document], {"word": "categorical"})

    assert grid.columns["word"] == CategoryGrid(("a", "b"), complete=True)
    found = profile.columns["word"]
    assert isinstance(found, Categories)
    assert (found.counts.tolist(), found.other, found.nulls) == ([10, 5], 0, 3)


def test_categories_that_were_left_out_are_told() -> None:
    grid, profile = baseline([_document(_text("word", {"a": 10}, 15))], {"word": "categorical"})

    found = profile.columns["word"]
    assert isinstance(found, Categories)
    assert (grid.columns["word"], found.other) == (CategoryGrid(("a",), complete=False), 5)


def test_constraints_add_the_categories_that_are_allowed() -> None:
    allowed = {"features": [{"name": "word", "string_constraints": {"domains": ["a", "z"]}}]}

    grid, _ = baseline([_document(_text("word", {"a": 10}, 10)), json.dumps(allowed).encode()], {"word": "categorical"})

    assert grid.columns["word"] == CategoryGrid(("a", "z"), complete=True)


def test_a_place_is_a_feature_where_captured_csv_has_no_names(values: Floats) -> None:
    document = _document(_text("word", {"a": 10}, 10), _number("x", values, missing=7))

    _, profile = baseline([document], {"_c1": "numerical"})

    assert profile.columns["_c1"].nulls == 7


def test_a_baseline_is_stored_like_any_other(values: Floats) -> None:
    grid, profile = baseline([_document(_number("x", values))], {"x": "numerical"})

    assert load_grid(dump(grid)).id == grid.id == load_profile(dump(profile)).grid


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"[", "no statistics.json or constraints.json"),
        (b"[" * 100_000, "no statistics.json or constraints.json"),
        (b'{"features": [3]}', "no statistics.json or constraints.json"),
        (b'{"features": []}', "it has no statistics; name"),
        (_document(_text("word", {"a": 1}, 1)), "it has no feature 'x'; it has word"),
        (_document(_text("x", {"a": 1}, 1)), "feature 'x' is not as Model Monitor writes a numerical one"),
        (_document({"name": "x", "numerical_statistics": {}}), "feature 'x' is not as Model Monitor writes"),
        (
            _document(
                {
                    "name": "x",
                    "numerical_statistics": {
                        "common": {"num_present": 1e300, "num_missing": 0},
                        "distribution": {"kll": {"buckets": []}},
                    },
                }
            ),
            "feature 'x' is not as Model Monitor writes",
        ),
    ],
)
def test_what_is_no_baseline_is_told(document: bytes, why: str) -> None:
    with pytest.raises(MonitorError, match=why):
        baseline([document], {"x": "numerical"})


def test_a_column_without_values_has_none() -> None:
    empty = {
        "name": "x",
        "numerical_statistics": {"common": {"num_present": 0, "num_missing": 9}, "mean": None},
    }

    _, profile = baseline([_document(empty)], {"x": "numerical"})

    found = profile.columns["x"]
    assert isinstance(found, Numbers)
    assert (found.values, found.nulls) == (0, 9)
