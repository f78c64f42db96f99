"""What is learned and how it is judged: the policy's label, metric and features, and the losses of predictions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrainer.core.policy import Metric, Policy
from retrainer.drift import values
from retrainer.ports import ConfigError, PermanentError

TOP = 10


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of a table's rows: texts, numbers, or lists of texts; `confidence` is the chance of being right."""

    values: NDArray[Any]
    confidence: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a family is told: which column is the label, which are features (None: all others), how it is scored."""

    label: str
    metric: Metric
    timestamp: str
    features: tuple[str, ...] | None
    categorical: tuple[str, ...]
    numerical: tuple[str, ...]
    ignored: tuple[str, ...]
    seed: int

    @property
    def is_classification(self) -> bool:
        return self.metric == "accuracy"

    @property
    def identity(self) -> tuple[object, ...]:
        """What models of this task follow from."""
        names = (self.features, self.categorical, self.numerical, self.ignored)
        return (
            self.label,
            self.metric,
            self.timestamp,
            self.seed,
            *(list(n) if n is not None else None for n in names),
        )


def task(policy: Policy, seed: int) -> Task:
    """The task of a policy. Raises ConfigError where it does not say what is predicted."""
    data = policy.data
    logged, target = data.predictions, data.target
    # A recommender's label is the item, whether or not what it served is logged.
    recommends = policy.backtest.family == "ease"
    label = logged.label if logged else target or ("item_id" if recommends else None)
    if label is None:
        said = "the policy does not say what is predicted"
        raise ConfigError(f"{said}; write data.predictions with a label, or a column with role: target")
    if logged and logged.metric == "roc_auc":
        raise ConfigError("data.predictions.metric: a backtest cannot play roc_auc; write accuracy for it")
    metric: Metric = logged.metric if logged else "hit_rate_at_10" if recommends else _metric(policy, label)
    features = tuple(name for name in data.features if name != label)
    columns = {name: c for name, c in data.columns.items() if name != label}
    return Task(
        label=label,
        metric=metric,
        timestamp=data.timestamp,
        features=features or None,
        categorical=tuple(sorted(n for n, c in columns.items() if c.kind == "categorical")),
        numerical=tuple(sorted(n for n, c in columns.items() if c.kind == "numerical")),
        ignored=tuple(sorted(n for n, c in columns.items() if c.role != "feature"))
        + ((logged.key,) if logged and logged.key not in features else ()),
        seed=seed,
    )


def _metric(policy: Policy, label: str) -> Metric:
    return "accuracy" if policy.data.columns[label].kind == "categorical" else "mae"


def known_labels(table: pa.Table, task: Task) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Which rows have a label, and the labels of all rows: texts, or numbers. Raises PermanentError without any."""
    if task.label not in table.column_names:
        raise PermanentError(f"there is no label column {task.label!r}; there are {', '.join(table.column_names)}")
    kind: values.Kind = "number" if task.metric in ("mae", "rmse") else "text"
    try:
        column = values.canonical(table.column(task.label), kind)
    except values.WrongTypeError as error:
        raise PermanentError(f"the label column {task.label!r} {error}") from error
    if kind == "number":
        numbers = values.numbers(column)
        return np.isfinite(numbers), numbers
    known: NDArray[np.bool_] = pc.is_valid(column).to_numpy()
    return known, values.texts(column)


def losses(table: pa.Table, predicted: Predicted, task: Task) -> NDArray[np.float64]:
    """The loss of each row that has a label: 1 - accuracy, 1 - hit, an absolute or a squared error."""
    known, labels = known_labels(table, task)
    made, wanted = predicted.values[known], labels[known]
    if task.metric == "accuracy":
        return np.array([p != w for p, w in zip(made, wanted, strict=True)], dtype=np.float64)
    if task.metric == "hit_rate_at_10":
        return np.array([w not in p[:TOP] for p, w in zip(made, wanted, strict=True)], dtype=np.float64)
    errors: NDArray[np.float64] = np.abs(made.astype(np.float64) - wanted)
    return errors if task.metric == "mae" else errors**2


def metrics(table: pa.Table, predicted: Predicted, task: Task) -> dict[str, float]:
    """All the metrics that a gate may name; of each, more is better."""
    known, labels = known_labels(table, task)
    made, wanted = predicted.values[known], labels[known]
    if not len(wanted):
        return {}
    if task.metric == "accuracy":
        return _of_classes(made, wanted, predicted.confidence[known] if predicted.confidence is not None else None)
    if task.metric == "hit_rate_at_10":
        return _of_lists(made, wanted)
    errors = made.astype(np.float64) - wanted
    spread = float(np.sum((wanted - wanted.mean()) ** 2))
    found = {"negative_mae": -float(np.mean(np.abs(errors))), "negative_rmse": -float(np.sqrt(np.mean(errors**2)))}
    return found | ({"r2": 1 - float(np.sum(errors**2)) / spread} if spread > 0 else {})


GATE_METRICS: dict[Metric, tuple[str, ...]] = {
    "accuracy": ("accuracy", "balanced_accuracy", "auc", "roc_auc"),
    "hit_rate_at_10": ("hit_rate_at_10", "ndcg_at_10"),
    "mae": ("negative_mae", "negative_rmse", "r2"),
    "rmse": ("negative_rmse", "negative_mae", "r2"),
}
BASELINES: dict[Metric, tuple[str, ...]] = {
    "accuracy": ("majority",),
    "hit_rate_at_10": ("popularity", "recent_popularity"),
    "mae": ("median",),
    "rmse": ("mean",),
}


def _of_classes(made: NDArray[Any], wanted: NDArray[Any], confidence: NDArray[np.float64] | None) -> dict[str, float]:
    right = np.array([p == w for p, w in zip(made, wanted, strict=True)], dtype=bool)
    classes = sorted(set(wanted.tolist()))
    shares = [float(right[wanted == c].mean()) for c in classes]
    found = {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(shares))}
    if len(classes) == 2:
        sure = np.ones(len(made)) if confidence is None else confidence
        area = _auc(np.where(made == classes[1], sure, 1 - sure), wanted == classes[1])
        found |= {"auc": area, "roc_auc": area}  # the trainer's name for it too: a gate's metric holds in both
    return found


def _auc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive stands above a negative, ties counting half (Mann and Whitney 1947)."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    ones = int(positive.sum())
    ranked = float(middle[place][positive].sum()) - ones * (ones + 1) / 2
    return ranked / (ones * (len(positive) - ones))


def _of_lists(made: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
    ranks = [p.index(w) + 1 if w in p[:TOP] else 0 for p, w in zip(made, wanted, strict=True)]
    gains = [1 / np.log2(r + 1) if r else 0.0 for r in ranks]
    return {"hit_rate_at_10": float(np.mean([r > 0 for r in ranks])), "ndcg_at_10": float(np.mean(gains))}


def baseline(name: str, train: pa.Table, rows: int, task: Task) -> Predicted:
    """What a rule without a model would predict for so many rows."""
    known, labels = known_labels(train, task)
    learned = labels[known]
    if name in ("mean", "median"):
        value = float(np.mean(learned) if name == "mean" else np.median(learned))
        return Predicted(np.full(rows, value))
    if name == "recent_popularity":
        learned = learned[-max(1, len(learned) // 5) :]
    seen, count = np.unique(learned.astype(str), return_counts=True)
    best = seen[np.lexsort((seen, -count))]
    found = np.empty(rows, dtype=object)
    found[:] = [best[0]] * rows if name == "majority" else [best[:TOP].tolist()] * rows
    return Predicted(found)
