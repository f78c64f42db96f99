"""Metrics of predictions joined with labels, against values worked out by hand."""

import math
import sys

import numpy as np
import pytest

from retrainer.core.evidence import BatchLoss
from retrainer.core.window import Batch
from retrainer.drift.performance import (
    Keys,
    Labels,
    calibrated,
    estimated,
    estimated_auc,
    expected_auc,
    losses,
    performance,
)


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


def area(scores: list[float], labels: list[float]) -> float | None:
    keys = [str(i) for i in range(len(scores))]
    found = performance("roc_auc", keys, scores, keys, labels)
    return None if found is None else found.value


def test_the_area_is_the_share_of_pairs_in_order_and_half_of_equal_ones() -> None:
    assert area([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert area([0.5, 0.5, 0.5], [0, 1, 1]) == 0.5
    assert area([0.9, 0.9, 0.1], [1, 0, 0]) == 0.75


def test_the_area_of_many_rows_is_that_of_all_their_pairs() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(1000) < 0.1).astype(float)
    scores = np.round(rng.normal(size=1000) + labels, 1)
    apart = scores[labels == 1][:, None] - scores[labels == 0][None]
    assert area(list(scores), list(labels)) == pytest.approx(np.mean((apart > 0) + (apart == 0) / 2))


def test_of_one_class_there_is_no_area_and_no_loss() -> None:
    assert area([0.1, 0.9], [1, 1]) is None
    assert area([0.1, 0.9], [0, 0]) is None
    assert losses("roc_auc", ["1", "2"], [0.1, 0.9], [(A, ["1", "2"], [1, 1])]) == ()


def test_a_label_that_is_neither_1_nor_0_counts_for_no_area() -> None:
    keys = ["a", "b", "c"]
    found = performance("roc_auc", keys, [0.1, 0.9, 0.5], keys, [0.0, 1.0, 2.0])
    assert found is not None
    assert (found.value, found.labels) == (1.0, 2)


def test_the_variance_of_an_area_is_what_it_varies_by() -> None:
    rng = np.random.default_rng(4)
    drawn: list[BatchLoss] = []
    for _ in range(400):
        labels = (rng.random(100) < 0.3).astype(float)
        scores = rng.normal(size=100) + labels
        keys = [str(i) for i in range(100)]
        drawn += losses("roc_auc", keys, list(scores), [(A, keys, list(labels))])
    varied = float(np.var([x.mean for x in drawn]))
    assert float(np.mean([x.variance / x.labels for x in drawn])) == pytest.approx(varied, rel=0.15)
    assert {x.labels for x in drawn} == {100}


def test_a_single_row_of_a_class_leaves_the_area_as_unsure_as_can_be() -> None:
    keys = ["a", "b", "c", "d", "e"]
    (found,) = losses("roc_auc", keys, [0.5, 0.1, 0.2, 0.6, 0.7], [(A, keys, [1.0, 0.0, 0.0, 0.0, 0.0])])
    assert (found.mean, found.variance / found.labels) == (0.5, 0.25)


def test_the_expected_area_is_that_of_all_ways_the_labels_may_fall() -> None:
    scores, chances = np.array([0.2, 0.4, 0.4, 0.9]), np.array([0.3, 0.5, 0.2, 0.8])
    in_order = pairs = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                weight = chances[i] * (1 - chances[j])
                pairs += weight
                in_order += weight * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
    assert expected_auc(scores, chances) == pytest.approx(in_order / pairs)


@pytest.mark.parametrize("chances", [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.5]])
def test_without_a_pair_of_both_classes_no_area_is_expected(chances: list[float]) -> None:
    assert expected_auc(np.arange(len(chances), dtype=float), np.array(chances)) is None


def test_certain_labels_expect_the_area_itself() -> None:
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0])
    assert expected_auc(scores, labels) == 0.75


def test_the_area_is_estimated_of_scores_that_are_no_probabilities_once_labels_are_known() -> None:
    rng = np.random.default_rng(5)
    true = rng.beta(0.5, 0.5, 30_000)
    labels = (rng.random(30_000) < true).astype(float)
    scores = 10 * true**3 - 4
    keys = [str(i) for i in range(30_000)]
    found = estimated_auc(keys, list(scores), keys[:5000], list(labels[:5000]))
    assert found is not None
    assert (found.metric, found.labels) == ("roc_auc", 30_000)
    assert found.value == pytest.approx(area(list(scores), list(labels)), abs=0.01)
    assert estimated_auc(keys, list(scores), [], []) is None


def test_without_labels_a_probability_is_taken_at_its_word() -> None:
    found = estimated_auc(["a", "b"], [0.2, 0.8], [], [])
    assert found is not None
    assert found.value == pytest.approx(0.8 * 0.8 / (1 - 2 * 0.8 * 0.2))
    assert estimated_auc([], [], [], []) is None


def test_each_predicted_class_is_put_right_by_its_own_labels() -> None:
    rng = np.random.default_rng(6)
    names = ["x" if yes else "y" for yes in rng.random(20_000) < 0.5]
    right = rng.random(20_000) < np.where(np.array(names) == "x", 0.9, 0.5)
    keys = [str(i) for i in range(20_000)]
    # The known labels are of "x" more often than the rest, so what is true of all of them is not of the others.
    joined = [i for i in range(20_000) if (names[i] == "x" and i < 8000) or i < 1000]
    labels = [names[i] if right[i] else "other" for i in joined]
    found = estimated(keys, names, [0.8] * 20_000, [keys[i] for i in joined], labels)
    assert found is not None
    assert found.value == pytest.approx(np.mean(right), abs=0.04)


def test_a_calibration_never_falls_and_stays_within_what_was_seen() -> None:
    rng = np.random.default_rng(7)
    scores = rng.random(1000)
    right = rng.random(1000) < 0.2 + 0.5 * scores
    found = calibrated(np.linspace(-1, 2, 500), scores, right)
    assert np.all(np.diff(found) >= 0)
    assert 0 <= found[0] <= found[-1] <= 1
    assert calibrated(np.linspace(0, 1, 500), scores, right)[250] == pytest.approx(0.45, abs=0.1)


def test_a_few_pairs_calibrate_nothing() -> None:
    scores = np.array([0.1, 0.9])
    assert list(calibrated(scores, np.zeros(199), np.ones(199, dtype=bool))) == [0.1, 0.9]
