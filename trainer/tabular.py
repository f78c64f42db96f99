"""Rows of numbers and categories: an additive model of binned columns, and of the pairs of them that matter most.

A score is a sum of look-ups, one a column and one a pair of columns; softmax makes it probabilities. Each round gives
every table of look-ups in turn a shrunken Newton step on the log loss: Lou, Caruana, Gehrke and Hooker, "Accurate
intelligible models with pairwise interactions", KDD 2013, with tables in the place of their shallow trees. Those pairs
are kept of which one step would lower the loss most. The newest rows say how many rounds are best; then all rows are
learned from. Nothing is drawn: the same rows make the same model. Nulls
and categories never seen have a code of their own.

Flights from New York, late or not (bench/trainer/flights.py): ROC AUC .702 over March to December when retrained
monthly, .666 never; scikit-learn's HistGradientBoosting .706 and .675. Six months, 160,000 rows: 4 CPU s on one core.

Shapes: N rows, F columns, L look-ups (columns, then pairs), V codes of a look-up, E edges, C classes, K = C - 1: the
first class scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer import classification, rows
from trainer.contract import DataError, setting
from trainer.families import Job, Trained
from trainer.progress import say
from trainer.rows import Rows
from trainer.tensors import Tensors

Float = npt.NDArray[np.float64]
Code = npt.NDArray[np.int32]
Stop = Callable[[], bool]

CATEGORIES_MAX, CATEGORY_ROWS_MIN = 1000, 20  # a category seen less often is as one never seen
ALONE, PACE_ALONE = 5, 0.2  # rounds of the columns alone; pairs are chosen by what these leave unexplained
PATIENCE = 2  # rounds without a lower loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """The defaults had the least log loss on the newest tenth of the flights of January-February and January-June."""

    model: str = setting("tabular", choices=("tabular",))
    generation: int = setting(0, low=0)
    seed: int = setting(0, low=0)  # nothing is drawn; taken so that every family takes it
    validation_share: float = setting(0.1, low=0.0, high=0.5)
    label: str = setting("label")
    numerical: str = setting("")  # names of columns, with commas between them
    categorical: str = setting("")
    bins: int = setting(16, low=2, high=1000)
    joined: int = setting(2, low=1, high=1000)  # neighbouring bins are one in a pair
    pairs: int = setting(24, low=0, high=1000)
    rounds: int = setting(30, low=1, high=1000)  # at most; without validation rows exactly so many
    pace: float = setting(0.05, low=1e-3, high=1.0)
    shrinkage: float = setting(100.0, low=1e-3, high=1e6)  # added to a code's curvature


@dataclass(frozen=True, slots=True)
class Column:
    """Values become codes from 1 on: the place among `categories`, or between the quantiles `edge_E`; 0 is unknown."""

    name: str
    categories: tuple[str, ...] | None
    edge_E: Float
    joined: int

    def codes(self, table: pa.Table) -> Code:
        if self.categories is None:
            value_N = _numbers(table, self.name)
            place_N = np.searchsorted(self.edge_E, value_N, side="right")
            return np.where(np.isfinite(value_N), place_N + 1, 0).astype(np.int32)
        place = pc.index_in(_texts(table, self.name), pa.array(self.categories, pa.string()))
        return np.asarray(pc.fill_null(place, -1)).astype(np.int32) + 1

    def values(self, joined: int = 1) -> int:
        """How many codes there are, when so many neighbours are joined."""
        known = len(self.edge_E) + 1 if self.categories is None else len(self.categories)
        return -(-known // joined) + 1


@dataclass(frozen=True, slots=True)
class Tabular:
    label: str
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    pairs: tuple[tuple[int, int], ...]
    bias_K: Float
    weight_LVK: tuple[Float, ...]

    def codes(self, table: pa.Table) -> list[Code]:
        code_FN = [column.codes(table) for column in self.columns]
        return code_FN + [self.crossed(code_FN, pair) for pair in self.pairs]

    def crossed(self, code_FN: Sequence[Code], pair: tuple[int, int]) -> Code:
        a_N, b_N = (-(-code_FN[f] // self.columns[f].joined) for f in pair)
        column = self.columns[pair[1]]
        return a_N * np.int32(column.values(column.joined)) + b_N

    def values(self, pair: tuple[int, int]) -> int:
        a, b = (self.columns[f] for f in pair)
        return a.values(a.joined) * b.values(b.joined)

    def scores(self, code_LN: Sequence[Code]) -> Float:
        score_KN = np.repeat(self.bias_K[:, None], len(code_LN[0]), axis=1)
        for code_N, weight_VK in zip(code_LN, self.weight_LVK, strict=True):
            score_KN += weight_VK.T[:, code_N]
        return score_KN

    def probabilities_NC(self, table: pa.Table) -> npt.NDArray[np.float32]:  # noqa: N802 - as every classifier's
        p_KN = _softmax(self.scores(self.codes(table)))
        return np.concatenate([1 - p_KN.sum(axis=0, keepdims=True), p_KN]).T.astype(np.float32)

    def table(self, instances: list[dict[str, Any]]) -> pa.Table:
        """The rows of a request; a column that is left out is unknown."""
        kinds = [(c.name, pa.float64() if c.categories is None else pa.string()) for c in self.columns]
        return rows.table_of(instances, pa.schema(kinds))


def train(job: Job) -> Trained | None:
    p: Hyperparameters = job.p
    given = rows.read(*job.paths.learned, label=p.label)
    model, sister = learn(given, p, job.stop.__bool__)
    if model is None:
        return None
    metrics = (
        classification.measure(sister, classification.cases_of(*given.split(p.validation_share))) if sister else {}
    )
    say("validated", rows=len(given), **{name: metric["value"] for name, metric in metrics.items()})
    arrays, config = stored(model)
    first_at, last_at = given.window()
    return Trained(
        arrays=arrays, config=config, metrics=metrics, rows=len(given), first_at=first_at, last_at=last_at, parent=None
    )


def learn(given: Rows, p: Hyperparameters, stop: Stop = lambda: False) -> tuple[Tabular | None, Tabular | None]:
    """The model of all rows, None when stopped; and the one of all but the newest, which says how many rounds are best.

    Without validation rows of known classes there is no such one, and the rounds are `p.rounds`.
    """
    earlier, validation = given.split(p.validation_share)
    known = np.intersect1d(earlier.label_N, validation.label_N)
    if not len(known) or len(np.unique(earlier.label_N)) < 2:
        return fit(given, p, p.rounds, None, stop)[0], None
    sister, rounds = fit(earlier, p, p.rounds, validation, stop)
    return (fit(given, p, rounds, None, stop)[0] if sister else None), sister


def fit(
    given: Rows, p: Hyperparameters, rounds: int, validation: Rows | None = None, stop: Stop = lambda: False
) -> tuple[Tabular | None, int]:
    """The model after so many rounds, or after the best number of them for `validation`, and that number.

    (None, 0) once `stop` says so, which is asked before every round: a few tenths of a second of a million rows.
    """
    model = _empty(given, p)
    hot_KN = (_places(given, model) == np.arange(1, len(model.classes))[:, None]) * 1.0
    code_LN = model.codes(given.table)
    score_KN = model.scores(code_LN)
    for _ in range(ALONE):
        _round(model, code_LN, hot_KN, score_KN, PACE_ALONE, p.shrinkage)
    model = _with_pairs(model, code_LN, hot_KN - _softmax(score_KN), p)
    code_LN += [model.crossed(code_LN, pair) for pair in model.pairs]
    against = None if validation is None else (model.codes(validation.table), _places(validation, model))
    best, at, least = model, 0, np.inf
    for n in range(1, rounds + 1):
        if stop():
            return None, 0
        _round(model, code_LN, hot_KN, score_KN, p.pace, p.shrinkage)
        loss = _loss(model, *against) if against else -float(n)
        if loss < least:
            best, at, least = replace(model, weight_LVK=tuple(w.copy() for w in model.weight_LVK)), n, loss
        elif n > at + PATIENCE:
            break
    return best, at


def _round(model: Tabular, code_LN: list[Code], hot_KN: Float, score_KN: Float, pace: float, shrinkage: float) -> None:
    """A step of every look-up in turn; `model` and `score_KN` are changed, and the next look-up builds on that."""
    for code_N, weight_VK in zip(code_LN, model.weight_LVK, strict=True):
        for k, slope_N in enumerate(hot_KN - _softmax(score_KN)):
            step_V = pace * _newton(code_N, slope_N, len(weight_VK), shrinkage)[0]
            weight_VK[:, k] += step_V
            score_KN[k] += step_V[code_N]


def _newton(code_N: Code, slope_N: Float, values: int, shrinkage: float) -> tuple[Float, float]:
    """The step of each code, and by how much all of them lower the loss to second order.

    The curvature p (1 - p) has the same mean as the squared slope (y - p)^2 where p is right, Fisher's information.
    """
    slope_V = np.bincount(code_N, slope_N, values)
    curvature_V = np.bincount(code_N, slope_N * slope_N, values)
    step_V = slope_V / (curvature_V + shrinkage)
    return step_V, float(step_V @ slope_V) / 2


def _with_pairs(model: Tabular, code_FN: list[Code], slope_KN: Float, p: Hyperparameters) -> Tabular:
    """`model` with empty tables for the best pairs; ties go to the earlier ones."""
    every = list(combinations(range(len(model.columns)), 2))
    gains = [
        sum(_newton(model.crossed(code_FN, pair), slope_N, model.values(pair), p.shrinkage)[1] for slope_N in slope_KN)
        for pair in every
    ]
    pairs = tuple(every[n] for n in sorted(np.argsort(-np.array(gains), kind="stable")[: p.pairs]))
    empty = tuple(np.zeros((model.values(pair), len(model.bias_K))) for pair in pairs)
    return replace(model, pairs=pairs, weight_LVK=model.weight_LVK + empty)


def _empty(given: Rows, p: Hyperparameters) -> Tabular:
    """The shares of the classes, and tables of zeros for the columns."""
    classes, count_C = np.unique(given.label_N, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"column '{p.label}' holds one class, '{classes[0]}'; give rows of at least two")
    columns = [_numerical(given.table, name, p) for name in _names(p.numerical)]
    columns += [_categorical(given.table, name) for name in _names(p.categorical)]
    if not columns:
        raise DataError("there is no column to learn from; give the hyperparameters numerical and categorical names")
    weights = tuple(np.zeros((column.values(), len(classes) - 1)) for column in columns)
    return Tabular(p.label, tuple(classes.tolist()), tuple(columns), (), np.log(count_C[1:] / count_C[0]), weights)


def _numerical(table: pa.Table, name: str, p: Hyperparameters) -> Column:
    value_N = _numbers(table, name)
    known_N = value_N[np.isfinite(value_N)]
    cuts = np.linspace(0, 1, p.bins + 1)[1:-1]
    return Column(name, None, np.unique(np.quantile(known_N, cuts)) if len(known_N) else np.zeros(0), p.joined)


def _categorical(table: pa.Table, name: str) -> Column:
    counted = pc.value_counts(_texts(table, name).drop_null()).to_pylist()
    most = sorted((-c["counts"], c["values"]) for c in counted if c["counts"] >= CATEGORY_ROWS_MIN)[:CATEGORIES_MAX]
    return Column(name, tuple(sorted(value for _, value in most)), np.zeros(0), 1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _loss(model: Tabular, code_LN: list[Code], place_N: npt.NDArray[np.int64]) -> float:
    """The mean log loss; a row of an unknown class says nothing."""
    p_KN = _softmax(model.scores(code_LN))
    p_N = np.concatenate([1 - p_KN.sum(axis=0, keepdims=True), p_KN])[place_N, np.arange(len(place_N))]
    return float(-np.log(np.maximum(p_N, 1e-12))[place_N >= 0].mean())


def _softmax(score_KN: Float) -> Float:
    """The probabilities of all classes but the first, whose score is 0."""
    top_N = np.maximum(score_KN.max(axis=0), 0.0)
    power_KN = np.exp(score_KN - top_N)
    p_KN: Float = power_KN / (power_KN.sum(axis=0) + np.exp(-top_N))
    return p_KN


def _numbers(table: pa.Table, name: str) -> Float:
    try:
        value_N: Float = pc.fill_null(_column(table, name).cast(pa.float64()), np.nan).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f"column '{name}' is {table[name].type}, give numbers: {error}") from error
    return value_N


def _texts(table: pa.Table, name: str) -> pa.ChunkedArray:
    try:
        return _column(table, name).cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(f"column '{name}' is {table[name].type}, give texts or whole numbers: {error}") from error


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(f"column '{name}' is missing; there are {', '.join(table.column_names)}")
    return table[name]


def _places(given: Rows, model: Tabular) -> npt.NDArray[np.int64]:
    """The place of each row's class, -1 for one that the model does not know."""
    seen, seen_N = np.unique(given.label_N, return_inverse=True)
    return rows.index_of(model.classes, seen.tolist())[seen_N]


def stored(model: Tabular) -> tuple[Tensors, dict[str, Any]]:
    """What `load` makes the same model of: all look-ups one below the other, and all edges."""
    arrays = {
        "bias_K": model.bias_K,
        "weight_VK": np.concatenate(model.weight_LVK),
        "edge_E": np.concatenate([column.edge_E for column in model.columns]),
    }
    columns = [
        {"name": c.name, "categories": c.categories, "edges": len(c.edge_E), "joined": c.joined} for c in model.columns
    ]
    told = {"label": model.label, "classes": model.classes, "columns": columns, "pairs": model.pairs}
    return arrays, {"family": "tabular", **told}


def load(arrays: Tensors, config: dict[str, Any]) -> Tabular:
    label, classes = classification.named(config)
    edges = np.split(arrays["edge_E"], np.cumsum([c["edges"] for c in config["columns"]])[:-1])
    columns = tuple(_column_of(c, edge_E) for c, edge_E in zip(config["columns"], edges, strict=True))
    if len({column.name for column in columns}) < len(columns):
        raise ValueError("a column is there twice")
    pairs = tuple((a, b) for a, b in config["pairs"])
    if not all(type(f) is int and 0 <= f < len(columns) for pair in pairs for f in pair):
        raise ValueError("a pair is of columns that are not there")
    if any(array.dtype != np.float64 for array in arrays.values()):
        raise ValueError("the arrays must be float64")
    model = Tabular(label, classes, columns, pairs, arrays["bias_K"], ())
    heights = [column.values() for column in columns] + [model.values(pair) for pair in pairs]
    K = len(classes) - 1
    if arrays["weight_VK"].shape != (sum(heights), K) or model.bias_K.shape != (K,):
        raise ValueError("the weights are not those of these columns, pairs and classes")
    return replace(model, weight_LVK=tuple(np.split(arrays["weight_VK"], np.cumsum(heights)[:-1])))


def _column_of(told: dict[str, Any], edge_E: Float) -> Column:
    name, categories, joined = told["name"], told["categories"], told["joined"]
    if categories is not None and not classification.are_texts(categories):
        raise ValueError(f"the categories of '{name}' are no texts, each there once")
    if not isinstance(name, str) or not name.isprintable() or type(joined) is not int or joined < 1:
        raise ValueError(f"column '{name}' joins {joined} of its values; give a text and a whole number from 1 on")
    if edge_E.shape != (told["edges"],) or not np.all(edge_E[1:] > edge_E[:-1]):
        raise ValueError(f"the edges of '{name}' are not {told['edges']} in ascending order")
    return Column(name, None if categories is None else tuple(categories), edge_E, joined)
