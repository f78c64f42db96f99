"""The report that SageMaker's model registry shows as a package's model quality (ModelMetrics.ModelQuality.Statistics).

Its form is that of Model Monitor's statistics.json: one group of metrics by the kind of problem, each metric with its
``value`` and ``standard_deviation``, a confusion matrix as {actual: {predicted: count}}. Source: AWS, SageMaker AI
developer guide, "Model quality metrics and Amazon CloudWatch monitoring".

Shapes: C classes, N rows, A actual and P predicted class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.bootstrap import Metrics

Counts = npt.NDArray[np.int64]
CURVE_POINTS = 100


def entry(value: float, standard_deviation: float | None = None) -> dict[str, float | str]:
    """Model Monitor writes "NaN" where it has no deviation, as JSON has no number for it."""
    return {"value": value, "standard_deviation": "NaN" if standard_deviation is None else standard_deviation}


def entries(metrics: Metrics) -> dict[str, Any]:
    return {name: entry(metric["value"], metric.get("standard_deviation")) for name, metric in metrics.items()}


def confusion(actual_N: Counts, predicted_N: Counts, classes: int) -> Counts:
    return np.bincount(actual_N * classes + predicted_N, minlength=classes * classes).reshape(classes, classes)


def named(count_AP: Counts, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Only what occurs, and the diagonal: a thousand classes are a million cells, nearly all of them empty."""
    return {
        actual: {classes[p]: int(count_AP[a, p]) for p in sorted({a, *np.flatnonzero(count_AP[a]).tolist()})}
        for a, actual in enumerate(classes)
    }


def by_class(count_AP: Counts, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision and recall are 0 where nothing was predicted as, or is of, the class (as scikit-learn counts)."""
    right_C = np.diag(count_AP).astype(np.float64)
    support_C, predicted_C = count_AP.sum(axis=1), count_AP.sum(axis=0)
    recall_C, precision_C = right_C / np.maximum(support_C, 1), right_C / np.maximum(predicted_C, 1)
    f1_C = 2 * right_C / np.maximum(support_C + predicted_C, 1)
    return {
        name: {
            "precision": float(precision_C[c]),
            "recall": float(recall_C[c]),
            "f1": float(f1_C[c]),
            "support": int(support_C[c]),
            "predicted": int(predicted_C[c]),
        }
        for c, name in enumerate(classes)
    }


def roc_curve(positive_N: npt.NDArray[np.bool_], score_N: npt.NDArray[np.float32] | None) -> dict[str, list[float]]:
    """At most CURVE_POINTS thresholds, evenly spread over the rows; without a score, the diagonal."""
    if score_N is None or positive_N.all() or not positive_N.any():
        return {"false_positive_rates": [0.0, 1.0], "true_positive_rates": [0.0, 1.0]}
    order_N = np.argsort(-score_N, kind="stable")
    last_N = np.flatnonzero(np.append(np.diff(score_N[order_N]) != 0, True))  # of each run of equal scores
    last_N = last_N[np.unique(np.linspace(0, len(last_N) - 1, min(CURVE_POINTS, len(last_N))).astype(int))]
    true_N, false_N = np.cumsum(positive_N[order_N]), np.cumsum(~positive_N[order_N])
    return {
        "false_positive_rates": [0.0, *(false_N[last_N] / false_N[-1]).tolist()],
        "true_positive_rates": [0.0, *(true_N[last_N] / true_N[-1]).tolist()],
    }


def multiclass(count_AP: Counts, classes: Sequence[str], metrics: Metrics) -> dict[str, Any]:
    """``weighted_``: by the rows of each class."""
    rows = max(1, int(count_AP.sum()))
    each = by_class(count_AP, classes)
    weighted = {
        f"weighted_{name}": entry(sum(one[name] * one["support"] for one in each.values()) / rows)
        for name in ("precision", "recall", "f1")
    }
    most = int(np.argmax(count_AP.sum(axis=1)))
    constant = {"accuracy_best_constant_classifier": entry(float(count_AP[most].sum() / rows))}
    return {"confusion_matrix": named(count_AP, classes), **entries(metrics), **weighted, **constant}


def binary(count_AP: Counts, classes: Sequence[str], metrics: Metrics, curve: dict[str, Any]) -> dict[str, Any]:
    """The second class, in the order of the texts, is the positive one: "1", "true", "yes" come after their no."""
    positive = by_class(count_AP, classes)[classes[1]]
    negative = by_class(count_AP, classes)[classes[0]]
    rates = {
        "precision": positive["precision"],
        "recall": positive["recall"],
        "f1": positive["f1"],
        "true_positive_rate": positive["recall"],
        "false_negative_rate": 1 - positive["recall"],
        "true_negative_rate": negative["recall"],
        "false_positive_rate": 1 - negative["recall"],
    }
    told = entries(metrics)
    return {
        "confusion_matrix": named(count_AP, classes),
        **told,
        "auc": told["roc_auc"],
        **{name: entry(rate) for name, rate in rates.items()},
        "receiver_operating_characteristic_curve": curve,
    }
