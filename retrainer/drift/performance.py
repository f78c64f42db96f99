"""How well logged predictions did once their labels are known, and how well they are likely to do until then.

Ranking metrics are ours: Evidently's NDCG ignores its k and counts its ranks from 2. What is estimated without labels
rests on probabilities, put right by the labels that are known, as in NannyML's confidence-based estimation (CBPE).
Of mae and rmse there is no estimate: a predicted number does not say how far off it is, and a second model that would
have to learn that from the labels is no evidence about a change that only labels can show.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrainer.core.evidence import BatchLoss, Performance
from retrainer.core.policy import Metric
from retrainer.core.window import Batch

TOP = 10
"""How many of the predicted items, from the first, hit_rate_at_10 looks at."""

PAIRS_MIN = 200
"""Fewer joined pairs do not say what a confidence is worth."""

BINS = 200
BIN_MIN = 20
"""A calibration has up to so many steps, of no fewer pairs each."""

ROUNDING = 1e-12
"""Expected pairs of both classes are none below this many a row."""

LOSS_MAX = 1e150
"""A larger loss of a row is taken for this one: sums of their squares stay numbers."""

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]
Keys = Sequence[str | None]
Predicted = Sequence[float] | Sequence[str | None] | Sequence[Sequence[str] | None]
Labels = Sequence[float] | Sequence[str | None]


def performance(
    metric: Metric, prediction_keys: Keys, predictions: Predicted, label_keys: Keys, labels: Labels
) -> Performance | None:
    """The metric over the pairs of prediction and label that share a key; None when there is no pair.

    Of several rows with one key the last counts. A row without key or value, or whose number is not finite, is ignored.
    For roc_auc a label is 1 or 0, any other is none; without both of them there is no area.
    """
    known = _by_key(label_keys, labels)
    made = _by_key(prediction_keys, predictions)
    shared = [key for key in made if key in known]
    if not shared:
        return None
    made_of, known_of = [made[key] for key in shared], [known[key] for key in shared]
    if metric == "roc_auc":
        area = _area(*_scored(made_of, known_of))
        return Performance(metric=metric, value=area.value, labels=area.labels) if area else None
    value = _value(metric, made_of, known_of)
    return Performance(metric=metric, value=min(value, sys.float_info.max), labels=len(shared))


def losses(
    metric: Metric,
    prediction_keys: Keys,
    predictions: Predicted,
    batches: Sequence[tuple[Batch, Keys, Labels]],
) -> tuple[BatchLoss, ...]:
    """The loss of the predictions on each batch of labels that has joined pairs, in their order.

    A pair is counted once, in the last batch that has its key. The variance is that of the rows (divided by their
    number, not one less). For roc_auc it is that of 1 - area times the labels, and a batch of one class has no loss.
    """
    made = _by_key(prediction_keys, predictions)
    known = [_by_key(keys, labels) for _, keys, labels in batches]
    last = {key: i for i, labels in enumerate(known) for key in labels if key in made}
    pairs: list[tuple[list[object], list[object]]] = [([], []) for _ in batches]
    for key, i in last.items():
        pairs[i][0].append(made[key])
        pairs[i][1].append(known[i][key])
    found = (
        _batch_loss(metric, batch, *joined) for (batch, _, _), joined in zip(batches, pairs, strict=True) if joined[0]
    )
    return tuple(loss for loss in found if loss)


def estimated(
    prediction_keys: Keys, predictions: Predicted, confidences: Sequence[float], label_keys: Keys, labels: Labels
) -> Performance | None:
    """The accuracy to be expected of all predictions, those still without a label included; None without any.

    It is the mean confidence (Guillory et al. 2021, arXiv 2107.03315), each made right by the joined pairs where there
    are PAIRS_MIN of them, of each predicted class for itself where it has as many. A confidence outside [0, 1] is none.
    `labels` counts the predictions, as no label was needed.
    """
    made = _by_key(prediction_keys, predictions)
    sure = {k: v for k, v in _by_key(prediction_keys, confidences).items() if 0 <= _number(v) <= 1 and k in made}
    if not sure:
        return None
    known = _by_key(label_keys, labels)
    confidence = np.array([_number(v) for v in sure.values()])
    joined = np.array([key in known for key in sure])
    right = np.array([made[key] == known.get(key) for key in sure])
    expected = calibrated(confidence, confidence[joined], right[joined])
    names = np.array([str(made[key]) for key in sure])
    for name in np.unique(names):
        of_class = names == name
        if np.count_nonzero(joined & of_class) >= PAIRS_MIN:
            pairs = joined & of_class
            expected[of_class] = calibrated(confidence[of_class], confidence[pairs], right[pairs])
    return Performance(metric="accuracy", value=float(np.mean(expected)), labels=len(sure))


def estimated_auc(
    prediction_keys: Keys, predictions: Sequence[float], label_keys: Keys, labels: Sequence[float]
) -> Performance | None:
    """The area under the ROC curve to be expected of all predictions, each the probability of the class 1.

    Each counts as 1 by its probability, made right by the joined pairs where there are PAIRS_MIN of them, and as 0 by
    the rest of it. None without predictions, or where the pairs are too few and a prediction is outside [0, 1].
    """
    made = _by_key(prediction_keys, predictions)
    known = _by_key(label_keys, labels)
    shared = [key for key in made if key in known]
    scores = np.array([_number(v) for v in made.values()])
    joined, positive = _scored([made[key] for key in shared], [known[key] for key in shared])
    if not len(scores) or (len(joined) < PAIRS_MIN and (np.min(scores) < 0 or np.max(scores) > 1)):
        return None
    value = expected_auc(scores, calibrated(scores, joined, positive))
    return None if value is None else Performance(metric="roc_auc", value=value, labels=len(scores))


def expected_auc(scores: Floats, chances: Floats) -> float | None:
    """The area under the ROC curve of `scores` whose rows are of class 1 by these chances; None if all are of one.

    That is the share of pairs of a 1 and a 0, two different rows, that are in order; of equal scores one half is.
    """
    _, place = np.unique(scores, return_inverse=True)
    ones, zeros = np.bincount(place, chances), np.bincount(place, 1 - chances)
    with_itself = float(np.sum(chances * (1 - chances)))
    in_order = float(np.sum(ones * (np.cumsum(zeros) - zeros / 2))) - with_itself / 2
    pairs = float(np.sum(chances) * np.sum(1 - chances)) - with_itself
    return min(max(in_order / pairs, 0.0), 1.0) if pairs > ROUNDING * len(scores) else None


def _by_key(keys: Keys, values: Predicted | Labels) -> dict[str, object]:
    return {k: v for k, v in zip(keys, values, strict=True) if k is not None and _is_known(v)}


def _is_known(value: object) -> bool:
    return math.isfinite(value) if isinstance(value, float) else value is not None


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value


def calibrated(scores: Floats, joined: Floats, right: Truths) -> Floats:
    """Each score as the chance of being right that the joined pairs give it, which never falls where scores rise.

    Pairs are put together in up to BINS of equal size, equal scores in one, then by isotonic regression (Zadrozny and
    Elkan 2002, KDD, 694; pool adjacent violators), with straight lines between the middles of what was pooled. With
    fewer than PAIRS_MIN pairs the scores stay.
    """
    if len(joined) < PAIRS_MIN:
        return scores.copy()
    edges = np.unique(np.quantile(joined, np.linspace(0, 1, min(BINS, len(joined) // BIN_MIN) + 1)[1:-1]))
    place = np.searchsorted(edges, joined, "right")
    size = np.bincount(place, minlength=len(edges) + 1)
    sums = (np.bincount(place, weights, minlength=len(edges) + 1)[size > 0] for weights in (joined, right))
    blocks: list[tuple[float, float, float]] = []
    for count, score, hits in zip(size[size > 0].tolist(), *(s.tolist() for s in sums), strict=True):
        block = (count, score, hits)
        while blocks and blocks[-1][2] * block[0] >= block[2] * blocks[-1][0]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    found = np.array(blocks)
    chances: Floats = np.interp(scores, found[:, 1] / found[:, 0], found[:, 2] / found[:, 0])
    return chances


def _scored(predictions: list[object], labels: list[object]) -> tuple[Floats, Truths]:
    """The scores and the classes of pairs whose label is 1 or 0."""
    pairs = [(prediction, label == 1) for prediction, label in zip(predictions, labels, strict=True) if label in (0, 1)]
    return np.array([p for p, _ in pairs], dtype=np.float64), np.array([p for _, p in pairs], dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class _Area:
    """The area under a ROC curve, and the variance of that figure."""

    value: float
    variance: float
    labels: int


def _area(scores: Floats, positive: Truths) -> _Area | None:
    """None where there is one class only.

    The variance is that of DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44:837), by ranks (Sun and Xu 2014, IEEE
    Signal Process. Lett. 21:1389). Of a single row of a class it is the largest that the area leaves room for (Birnbaum
    and Klose 1957, Ann. Math. Stat. 28:933).
    """
    ones, zeros = np.sort(scores[positive]), np.sort(scores[~positive])
    if not len(ones) or not len(zeros):
        return None
    # The share of the other class that each row is on the right side of; of equals, half.
    above = (np.searchsorted(zeros, ones, "left") + np.searchsorted(zeros, ones, "right")) / (2 * len(zeros))
    below = 1 - (np.searchsorted(ones, zeros, "left") + np.searchsorted(ones, zeros, "right")) / (2 * len(ones))
    value = float(np.mean(above))
    fewer = min(len(ones), len(zeros))
    if fewer > 1:
        variance = float(np.var(above, ddof=1) / len(ones) + np.var(below, ddof=1) / len(zeros))
    else:
        variance = value * (1 - value)
    return _Area(value=value, variance=variance, labels=len(scores))


def _batch_loss(metric: Metric, batch: Batch, predictions: list[object], labels: list[object]) -> BatchLoss | None:
    if metric == "roc_auc":
        area = _area(*_scored(predictions, labels))
        if area is None:
            return None
        count, mean, variance = area.labels, 1 - area.value, area.variance * area.labels
    else:
        rows = _row_losses(metric, predictions, labels)
        count, mean, variance = len(rows), float(np.mean(rows)), float(np.var(rows))
    return BatchLoss(key=batch.key, version=batch.version, labels=count, mean=mean, variance=variance)


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
