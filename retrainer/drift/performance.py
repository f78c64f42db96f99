"""How well logged predictions did, once their labels are known.

Ranking metrics are ours: Evidently's NDCG ignores its k and counts its ranks from 2.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrainer.core.evidence import BatchLoss, Performance
from retrainer.core.policy import Metric
from retrainer.core.window import Batch

TOP = 10
"""How many of the predicted items, from the first, hit_rate_at_10 looks at."""

PAIRS_MIN = 200
"""Fewer joined pairs do not say what a confidence is worth."""

LOSS_MAX = 1e150
"""A larger loss of a row is taken for this one: sums of their squares stay numbers."""

Floats = NDArray[np.float64]
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


def losses(
    metric: Metric,
    prediction_keys: Keys,
    predictions: Predicted,
    batches: Sequence[tuple[Batch, Keys, Labels]],
) -> tuple[BatchLoss, ...]:
    """The loss of the predictions on each batch of labels that has joined pairs, in their order.

    A pair is counted once, in the last batch that has its key. The variance is that of the rows (divided by their
    number, not one less).
    """
    made = _by_key(prediction_keys, predictions)
    known = [_by_key(keys, labels) for _, keys, labels in batches]
    last = {key: i for i, labels in enumerate(known) for key in labels if key in made}
    pairs: list[tuple[list[object], list[object]]] = [([], []) for _ in batches]
    for key, i in last.items():
        pairs[i][0].append(made[key])
        pairs[i][1].append(known[i][key])
    return tuple(
        _batch_loss(batch, _row_losses(metric, *joined))
        for (batch, _, _), joined in zip(batches, pairs, strict=True)
        if joined[0]
    )


def estimated(
    prediction_keys: Keys, predictions: Predicted, confidences: Sequence[float], label_keys: Keys, labels: Labels
) -> Performance | None:
    """The accuracy to be expected of all predictions, those still without a label included; None without any.

    It is the mean confidence (Guillory et al. 2021, arXiv 2107.03315), each replaced by how often the joined pairs of
    its tenth were right where there are PAIRS_MIN of them (Zadrozny and Elkan 2001). A confidence outside [0, 1] is
    none. `labels` counts the predictions, as no label was needed.
    """
    made = _by_key(prediction_keys, predictions)
    sure = {k: v for k, v in _by_key(prediction_keys, confidences).items() if 0 <= _number(v) <= 1 and k in made}
    if not sure:
        return None
    known = _by_key(label_keys, labels)
    confidence = np.array([_number(v) for v in sure.values()])
    joined = [key for key in sure if key in known]
    if len(joined) >= PAIRS_MIN:
        right = np.array([made[key] == known[key] for key in joined], dtype=np.float64)
        confidence = _calibrated(confidence, np.array([_number(sure[key]) for key in joined]), right)
    return Performance(metric="accuracy", value=float(np.mean(confidence)), labels=len(sure))


def _by_key(keys: Keys, values: Predicted | Labels) -> dict[str, object]:
    return {k: v for k, v in zip(keys, values, strict=True) if k is not None and _is_known(v)}


def _is_known(value: object) -> bool:
    return math.isfinite(value) if isinstance(value, float) else value is not None


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value


def _calibrated(confidence: Floats, joined: Floats, right: Floats) -> Floats:
    """Each confidence as the share of right pairs in its tenth; equal confidences are in one tenth."""
    edges = np.unique(np.quantile(joined, np.linspace(0.1, 0.9, 9)))
    tenth = np.searchsorted(edges, joined, "right")
    pairs = np.bincount(tenth, minlength=len(edges) + 1)
    share = np.bincount(tenth, weights=right, minlength=len(edges) + 1) / np.maximum(pairs, 1)
    share[pairs == 0] = np.mean(right)
    found: Floats = share[np.searchsorted(edges, confidence, "right")]
    return found


def _batch_loss(batch: Batch, rows: Floats) -> BatchLoss:
    return BatchLoss(
        key=batch.key, version=batch.version, labels=len(rows), mean=float(np.mean(rows)), variance=float(np.var(rows))
    )


def _row_losses(metric: Metric, predictions: list[object], labels: list[object]) -> Floats:
    """One minus accuracy, one minus hit, the absolute or the squared error of each pair."""
    pairs = zip(predictions, labels, strict=True)
    if metric == "hit_rate_at_10":
        return np.array([label not in _top(items) for items, label in pairs], dtype=np.float64)
    if metric == "accuracy":
        return np.array([prediction != label for prediction, label in pairs], dtype=np.float64)
    with np.errstate(over="ignore"):
        errors = np.abs(np.array(predictions, dtype=np.float64) - np.array(labels, dtype=np.float64))
        return np.minimum(errors if metric == "mae" else errors**2, LOSS_MAX)


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
