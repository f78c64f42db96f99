"""The problem "which class": every labelled row of the holdout is a case, and every model answers all of them.

Rows are parquet tables; one column is the label, read as text whatever its type. Labels a model has never seen count as
missed, with a probability of EPSILON. Higher is better for every metric:

- ``accuracy``, and ``balanced_accuracy``: the mean recall of the classes that occur in the holdout;
- ``log_likelihood``: the mean log of the probability given to what was so (the negative of log loss);
- ``roc_auc``: of each class against the rest, mean over classes; with two classes it is the usual one.

A unit is a row. Balanced accuracy and AUC are no means of rows, so each row gets a pseudo-value that makes them one:
the figure plus the row's influence on it (DeLong et al., Biometrics 1988; Efron and Tibshirani 1993, chapter 21).
So the same bootstrap serves all metrics.

Shapes: N rows, C classes (of a model, or of the holdout), M metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainer import bootstrap
from trainer import quality as report
from trainer.bootstrap import Array, Metrics, Scores
from trainer.contract import ArtefactError, BadRequestError
from trainer.popularity import RECENT_SHARE
from trainer.rows import Labels, Rows, index_of, read

FloatArray = npt.NDArray[np.float32]

METRIC_NAMES = ("accuracy", "balanced_accuracy", "log_likelihood", "roc_auc")
EPSILON = float(np.finfo(np.float32).eps)  # as scikit-learn clips before the logarithm
ANSWER_CLASSES = 5


class Classifier(Protocol):
    """What can be evaluated and served; the columns it needs are taken from the table by name."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def label(self) -> str: ...

    def probabilities_NC(self, table: pa.Table) -> FloatArray: ...  # noqa: N802 - shapes in names

    def table(self, instances: list[dict[str, Any]]) -> pa.Table:
        """Of a request; raises BadRequestError with what to send instead."""
        ...


@dataclass(frozen=True, slots=True)
class Cases:
    """The holdout, and of the training rows the labels, for the baselines; ``classes`` are those of the holdout."""

    rows: Rows
    train_label_N: Labels
    classes: tuple[str, ...]
    actual_N: npt.NDArray[np.int64]
    _kept: list[tuple[Classifier, FloatArray]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows_held_out(self) -> int:
        return len(self.rows) + self.rows.dropped

    def probabilities(self, predictor: Classifier) -> FloatArray:
        """Asked for twice of each model, to score it and to report on it: the last answer is kept."""
        if not self._kept or self._kept[0][0] is not predictor:
            self._kept[:] = [(predictor, _checked(predictor, self.rows.table))]
        return self._kept[0][1]


def cases(train: Path, holdout: Path, config: Mapping[str, Any]) -> Cases:
    """``config["label"]`` names the column; of the training rows only that one is read."""
    label = str(config["label"])
    return cases_of(read(train, label=label, columns=[label]), read(holdout, label=label))


def cases_of(train: Rows, holdout: Rows) -> Cases:
    classes, actual_N = np.unique(holdout.label_N, return_inverse=True)
    return Cases(holdout, train.label_N, tuple(classes.tolist()), actual_N.astype(np.int64))


def measure(predictor: Classifier, cases: Cases) -> Metrics:
    return bootstrap.intervals(score(predictor, cases), METRIC_NAMES)


def score(predictor: Classifier, cases: Cases) -> Scores:
    if not len(cases):
        return Scores(np.zeros((0, len(METRIC_NAMES))), np.zeros(0))
    probability_NC = cases.probabilities(predictor)
    own_C = index_of(predictor.classes, cases.classes)  # the model's column of each class of the holdout, or -1
    right_N = (probability_NC.argmax(axis=1) == own_C[cases.actual_N]).astype(np.float64)
    own_NC = np.where(own_C >= 0, probability_NC[:, own_C], 0.0)
    given_N = own_NC[np.arange(len(cases)), cases.actual_N]
    total_NM = np.stack(
        [
            right_N,
            _balanced(right_N, cases.actual_N),
            np.log(np.clip(given_N, EPSILON, 1.0)),
            _roc_auc(own_NC, cases.actual_N),
        ],
        axis=1,
    )
    return Scores(total_NM, np.ones(len(cases)))


def _balanced(right_N: Array, actual_N: npt.NDArray[np.int64]) -> Array:
    support_C = np.bincount(actual_N)
    recall_C = np.bincount(actual_N, weights=right_N) / support_C
    weight_C = len(actual_N) / (len(support_C) * support_C)
    pseudo_N: Array = recall_C.mean() + weight_C[actual_N] * (right_N - recall_C[actual_N])
    return pseudo_N


def _roc_auc(own_NC: Array, actual_N: npt.NDArray[np.int64]) -> Array:
    """One half where the holdout has one class only: nothing can be told apart."""
    classes = own_NC.shape[1]
    if classes < 2:
        return np.full(len(actual_N), 0.5)
    mean_N: Array = np.zeros(len(actual_N))
    for c in range(classes):
        mean_N += _one_against_rest(own_NC[:, c], actual_N == c) / classes
    return mean_N


def _one_against_rest(score_N: Array, is_N: npt.NDArray[np.bool_]) -> Array:
    """A row's placement: the share of the other side that it is on the right side of, a tie being half."""
    placement_N = np.empty(len(score_N))
    placement_N[is_N] = _share_below(np.sort(score_N[~is_N]), score_N[is_N])
    placement_N[~is_N] = 1 - _share_below(np.sort(score_N[is_N]), score_N[~is_N])
    auc = placement_N[is_N].mean()
    weight_N = len(is_N) / np.where(is_N, is_N.sum(), (~is_N).sum())
    pseudo_N: Array = auc + weight_N * (placement_N - auc)
    return pseudo_N


def _share_below(sorted_S: Array, score_N: Array) -> Array:
    below_N = np.searchsorted(sorted_S, score_N, "left") + np.searchsorted(sorted_S, score_N, "right")
    share_N: Array = below_N / (2 * len(sorted_S))
    return share_N


def _checked(predictor: Classifier, table: pa.Table) -> FloatArray:
    probability_NC = predictor.probabilities_NC(table)
    if probability_NC.shape != (table.num_rows, len(predictor.classes)):
        raise ArtefactError(
            f"the model gives probabilities of shape {probability_NC.shape} for {table.num_rows} rows "
            f"and {len(predictor.classes)} classes"
        )
    return np.nan_to_num(probability_NC, nan=0.0, posinf=0.0, neginf=0.0)


# ---- baselines


@dataclass(frozen=True, slots=True)
class Constant:
    """The same probabilities whatever the row says."""

    classes: tuple[str, ...]
    label: str
    probability_C: FloatArray

    def probabilities_NC(self, table: pa.Table) -> FloatArray:  # noqa: N802
        return np.broadcast_to(self.probability_C, (table.num_rows, len(self.classes)))

    def table(self, instances: list[dict[str, Any]]) -> pa.Table:
        return pa.table({self.label: pa.nulls(len(instances))})


def baselines(cases: Cases) -> dict[str, Constant]:
    """``majority`` of all training rows, and of the last tenth of them."""
    classes, code_N = np.unique(cases.train_label_N, return_inverse=True)
    recent = max(1, int(len(code_N) * RECENT_SHARE))
    overall_C = np.bincount(code_N, minlength=len(classes)) / len(code_N)
    recent_C = np.bincount(code_N[-recent:], minlength=len(classes)) + overall_C  # ties, and what is rare, by overall
    return {
        name: Constant(tuple(classes.tolist()), cases.rows.label, (share_C / share_C.sum()).astype(np.float32))
        for name, share_C in (("majority", overall_C), ("recent_majority", recent_C))
    }


# ---- what a stored model says


def named(config: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The label's column and the classes of a model's config; raises ValueError where they are none."""
    label, classes = config["label"], config["classes"]
    if not isinstance(label, str) or not are_texts(classes) or len(classes) < 2:
        raise ValueError("label must be a text, classes at least two texts, each there once")
    return label, tuple(classes)


def are_texts(values: Any) -> bool:
    """Whether this is a list of texts, each there once."""
    return isinstance(values, list) and all(isinstance(v, str) for v in values) and len(set(values)) == len(values)


# ---- the registry's report


def quality(predictor: Classifier, cases: Cases, metrics: Metrics) -> dict[str, Any]:
    """Binary where model and holdout know the same two classes; else multiclass, over the classes of both."""
    classes = tuple(sorted({*predictor.classes, *cases.classes}))
    actual_N = index_of(classes, cases.classes)[cases.actual_N]
    probability_NC = cases.probabilities(predictor)
    predicted_N = index_of(classes, predictor.classes)[probability_NC.argmax(axis=1)]
    count_AP = report.confusion(actual_N, predicted_N, len(classes))
    dataset = {"item_count": len(cases), "dropped_without_label": cases.rows.dropped}
    told: dict[str, Any] = {"dataset": dataset, "by_class": report.by_class(count_AP, classes)}
    if len(classes) == 2:
        positive_N = probability_NC[:, predictor.classes.index(classes[1])] if classes[1] in predictor.classes else None
        curve = report.roc_curve(actual_N == 1, positive_N)
        return {"binary_classification_metrics": report.binary(count_AP, classes, metrics, curve), **told}
    return {"multiclass_classification_metrics": report.multiclass(count_AP, classes, metrics), **told}


# ---- answers


def answer(predictor: Classifier, request: dict[str, Any]) -> list[dict[str, Any]]:
    """``{"instances": [{<column>: <value>, ...}]}``; each prediction names the best class and its likeliest few."""
    instances = request.get("instances")
    if not isinstance(instances, list):
        raise BadRequestError('give {"instances": [{"column": value, ...}, ...]}')
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise BadRequestError(f'instances[{number}] must be an object of columns, such as {{"column": value}}')
    if not instances:
        return []
    probability_NC = _checked(predictor, predictor.table(instances))
    return [_prediction(predictor.classes, probability_C) for probability_C in probability_NC]


def _prediction(classes: Sequence[str], probability_C: FloatArray) -> dict[str, Any]:
    best = np.argsort(-probability_C, kind="stable")[:ANSWER_CLASSES]
    shares = {classes[c]: round(float(probability_C[c]), 6) for c in best}
    return {"label": classes[best[0]], "probability": shares[classes[best[0]]], "probabilities": shares}
