"""Metrics of predictions joined with labels, against values worked out by hand."""

import math
import sys

import pytest

from retrainer.drift.performance import performance


def test_hit_rate_looks_at_the_first_ten_items_only() -> None:
    items = [str(i) for i in range(11)]
    found = performance("hit_rate_at_10", ["a", "b", "c"], [items, items, ["x"]], ["a", "b", "c"], ["9", "10", "x"])
    assert found is not None
    assert found.value == pytest.approx(2 / 3)
    assert found.labels == 3


def test_accuracy_is_the_share_of_equal_texts() -> None:
    found = performance("accuracy", ["a", "b"], ["1", "0"], ["b", "a"], ["0", "0"])
    assert found is not None
    assert found.value == 0.5


@pytest.mark.parametrize(("metric", "value"), [("mae", 2.0), ("rmse", math.sqrt(5.0))])
def test_errors_of_numbers(metric: str, value: float) -> None:
    found = performance(metric, ["a", "b"], [1.0, 2.0], ["a", "b"], [2.0, 5.0])  # type: ignore[arg-type]
    assert found is not None
    assert found.value == pytest.approx(value)


def test_of_rows_with_one_key_the_last_counts() -> None:
    found = performance("mae", ["a", "a"], [9.0, 1.0], ["a", "a"], [9.0, 2.0])
    assert found is not None
    assert (found.value, found.labels) == (1.0, 1)


def test_a_row_without_key_or_value_does_not_replace_an_earlier_one() -> None:
    found = performance("mae", ["a", None, "a"], [1.0, 5.0, math.nan], ["a", "a", "b"], [2.0, math.inf, 3.0])
    assert found is not None
    assert (found.value, found.labels) == (1.0, 1)


def test_without_a_pair_there_is_no_performance() -> None:
    assert performance("accuracy", ["a"], ["1"], ["b"], ["1"]) is None
    assert performance("hit_rate_at_10", ["a"], [None], ["a"], ["1"]) is None


def test_an_error_too_large_for_a_float_is_the_largest_float() -> None:
    found = performance("rmse", ["a"], [1e308], ["a"], [-1e308])
    assert found is not None
    assert found.value == sys.float_info.max
