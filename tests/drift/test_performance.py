"""Metrics of predictions joined with labels, against values worked out by hand."""

import math
import sys

import numpy as np
import pytest

from retrainer.core.window import Batch
from retrainer.drift.performance import Keys, Labels, estimated, losses, performance


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


def batch(name: str) -> Batch:
    return Batch(bucket="lake", key=f"data/m/{name}.parquet", version="1", size_bytes=1)


A, B, C = batch("a"), batch("b"), batch("c")


def test_each_batch_has_the_loss_of_its_own_labels() -> None:
    found = losses("accuracy", ["1", "2", "3"], ["x", "y", "z"], [(A, ["1", "2"], ["x", "n"]), (B, ["3"], ["z"])])
    assert [(x.key, x.version, x.labels, x.mean, x.variance) for x in found] == [
        (A.key, "1", 2, 0.5, 0.25),
        (B.key, "1", 1, 0.0, 0.0),
    ]


@pytest.mark.parametrize(("metric", "mean", "variance"), [("mae", 2.0, 1.0), ("rmse", 5.0, 16.0)])
def test_losses_of_numbers_are_absolute_or_squared_errors(metric: str, mean: float, variance: float) -> None:
    (found,) = losses(metric, ["a", "b"], [1.0, 2.0], [(A, ["a", "b"], [2.0, 5.0])])  # type: ignore[arg-type]
    assert (found.mean, found.variance) == (mean, variance)


def test_the_loss_of_a_ranking_is_a_miss() -> None:
    items = [str(i) for i in range(11)]
    (found,) = losses("hit_rate_at_10", ["a", "b"], [items, items], [(A, ["a", "b"], ["9", "10"])])
    assert (found.labels, found.mean) == (2, 0.5)


def test_a_batch_without_a_joined_label_has_no_loss_and_a_label_said_again_counts_in_the_last() -> None:
    again: list[tuple[Batch, Keys, Labels]]
    again = [(A, ["1"], ["no"]), (B, ["unknown", None], ["x", "x"]), (C, ["1"], ["x"])]
    (found,) = losses("accuracy", ["1", "1"], ["wrong", "x"], again)
    assert (found.key, found.labels, found.mean) == (C.key, 1, 0.0)


def test_losses_are_numbers_whatever_the_predictions() -> None:
    (found,) = losses("rmse", ["a", "b"], [1e308, 0.0], [(A, ["a", "b"], [-1e308, 0.0])])
    assert math.isfinite(found.mean)
    assert math.isfinite(found.variance)


def test_losses_agree_with_the_performance_of_all_batches() -> None:
    rng = np.random.default_rng(0)
    keys = [str(i) for i in range(100)]
    made, labels = list(rng.normal(size=100)), list(rng.normal(size=100))
    whole = performance("mae", keys, made, keys, labels)
    parts = losses("mae", keys, made, [(A, keys[:30], labels[:30]), (B, keys[30:], labels[30:])])
    assert whole is not None
    assert sum(x.mean * x.labels for x in parts) / 100 == pytest.approx(whole.value)


def test_without_enough_pairs_the_estimate_is_the_mean_confidence() -> None:
    found = estimated(["a", "b", "a", "c"], ["x"] * 4, [0.1, 0.9, 0.5, math.nan], ["a"], ["x"])
    assert found is not None
    assert (found.metric, found.labels) == ("accuracy", 2)
    assert found.value == pytest.approx(0.7)


def test_what_is_no_probability_is_no_confidence() -> None:
    assert estimated(["a", "b"], ["x", "x"], [1.5, -0.1], [], []) is None
    assert estimated([], [], [], [], []) is None


def test_an_overconfident_model_is_calibrated_by_its_labels() -> None:
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.5, 1.0, size=20_000)
    right = rng.random(20_000) < sure - 0.3
    keys = [str(i) for i in range(20_000)]
    labels = ["x" if r else "y" for r in right[:2000]]
    found = estimated(keys, ["x"] * 20_000, list(sure), keys[:2000], labels)
    assert found is not None
    assert found.labels == 20_000
    assert found.value == pytest.approx(np.mean(right), abs=0.03)


def test_the_estimate_falls_when_the_model_grows_unsure_before_any_label() -> None:
    rng = np.random.default_rng(2)
    sure = np.concatenate([rng.uniform(0.8, 1.0, 5000), rng.uniform(0.4, 0.8, 5000)])
    right = rng.random(10_000) < sure
    keys = [str(i) for i in range(10_000)]
    seen = [*range(0, 5000, 10), *range(5000, 10_000, 50)]
    labels = ["x" if right[i] else "y" for i in seen]
    found = estimated(keys, ["x"] * 10_000, list(sure), [keys[i] for i in seen], labels)
    assert found is not None
    assert found.value == pytest.approx(np.mean(right), abs=0.03)
    assert found.value < np.mean(right[seen]) - 0.08


def test_one_confidence_for_all_is_the_accuracy_of_the_labels() -> None:
    keys = [str(i) for i in range(400)]
    found = estimated(keys, ["x"] * 400, [0.5] * 400, keys, ["x"] * 300 + ["y"] * 100)
    assert found is not None
    assert found.value == pytest.approx(0.75)
