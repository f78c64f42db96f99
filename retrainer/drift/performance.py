"""How well logged predictions did, once their labels are known.

Ranking metrics are ours: Evidently's NDCG ignores its k and counts its ranks from 2.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np

from retrainer.core.evidence import Performance
from retrainer.core.policy import Metric

TOP = 10
"""How many of the predicted items, from the first, hit_rate_at_10 looks at."""

Keys = Sequence[str | None]
Predicted = Sequence[float] | Sequence[str | None] | Sequence[Sequence[str] | None]
Labels = Sequence[float] | Sequence[str | None]


def performance(
    metric: Metric, prediction_keys: Keys, predictions: Predicted, label_keys: Keys, labels: Labels
) -> Performance | None:
    """The metric over the pairs of prediction and label that share a key; None when there is no pair.

    Of several rows with one key the last counts. A row without key or value, or whose number is not finite, is ignored.
    """
    known = _by_key(label_keys, labels)
    made = _by_key(prediction_keys, predictions)
    shared = [key for key in made if key in known]
    if not shared:
        return None
    value = _value(metric, [made[key] for key in shared], [known[key] for key in shared])
    return Performance(metric=metric, value=min(value, sys.float_info.max), labels=len(shared))


def _by_key(keys: Keys, values: Predicted | Labels) -> dict[str, object]:
    return {k: v for k, v in zip(keys, values, strict=True) if k is not None and _is_known(v)}


def _is_known(value: object) -> bool:
    return math.isfinite(value) if isinstance(value, float) else value is not None


def _value(metric: Metric, predictions: list[object], labels: list[object]) -> float:
    pairs = zip(predictions, labels, strict=True)
    if metric == "hit_rate_at_10":
        return float(np.mean([label in _top(items) for items, label in pairs]))
    if metric == "accuracy":
        return float(np.mean([prediction == label for prediction, label in pairs]))
    with np.errstate(over="ignore"):
        errors = np.array(predictions, dtype=np.float64) - np.array(labels, dtype=np.float64)
        return float(np.mean(np.abs(errors)) if metric == "mae" else np.sqrt(np.mean(errors**2)))


def _top(items: object) -> Sequence[object]:
    assert isinstance(items, Sequence)
    return items[:TOP]
