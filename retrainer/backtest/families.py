"""Model families: what a backtest trains in the place of the policy's training jobs.

A family is named by the policy's `backtest.family`: lightgbm, hist_gradient_boosting, logistic_regression; ease or
tabular, which are the trainer's own; or module:callable. The callable is given `backtest.parameters` and returns a
Family, or an estimator as scikit-learn's are (sklearn.naive_bayes:GaussianNB is one). It runs in this process: name
only code that you would run yourself.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrainer.backtest.tabular import Encoding, Estimator, labels_of
from retrainer.backtest.task import TOP, Predicted, Task
from retrainer.core.policy import Backtest
from retrainer.ports import ConfigError, PermanentError

Parameters = Mapping[str, str | float | int | bool]


class Model(Protocol):
    """What was trained. Of lists, the best item stands first."""

    def predict(self, table: pa.Table) -> Predicted: ...


class Family(Protocol):
    """Trains a model on rows, whose columns `task` tells apart. Raises PermanentError where they cannot be learned."""

    def fit(self, table: pa.Table, task: Task) -> Model: ...


@dataclass(frozen=True, slots=True)
class Named:
    """A family and what its models follow from: its name, its parameters, its code."""

    family: Family
    identity: tuple[object, ...]


def family(wanted: Backtest) -> Named:
    """The family of a policy. Raises ConfigError where it is unknown, or its package is not there."""
    name, parameters = wanted.family, dict(wanted.parameters)
    made: Family
    if ":" in name:
        made, where = _called(name, parameters)
    elif name in _BUILT_IN:
        made, where = _Tabular(name, parameters), _installed(name)
    elif name in _TRAINERS:
        made, where = _TRAINERS[name](parameters), _version_of(f"trainer.{name}")
    else:
        known = ", ".join([*_BUILT_IN, *_TRAINERS])
        raise ConfigError(f"backtest.family: {name!r} is not known; write one of {known}, or module:callable")
    return Named(made, (name, sorted((k, str(v)) for k, v in parameters.items()), where))


def _called(name: str, parameters: dict[str, Any]) -> tuple[Family, str]:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)(**parameters)
    except (ImportError, AttributeError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"backtest.family: {name} cannot be used ({why}); write module:callable that exists"
        ) from error
    if not hasattr(made, "fit"):
        raise ConfigError(f"backtest.family: {name} gives nothing with a fit; return a Family or an estimator")
    if hasattr(made, "get_params"):
        return _Foreign(made), _version_of(module)
    found: Family = made
    return found, _version_of(module)


def _version_of(module: str) -> str:
    """The version of an installed package, or the hash of the module's own file: another one makes other models."""
    from retrainer.backtest.cache import code

    loaded = importlib.import_module(module)
    package = importlib.import_module(module.partition(".")[0])
    if version := getattr(package, "__version__", ""):
        return str(version)
    return code((Path(str(loaded.__file__)),)) if getattr(loaded, "__file__", None) else ""


def _check(task: Task, name: str, *, recommends: bool) -> None:
    """Raises ConfigError where lists are asked of a family that predicts one value, or the other way round."""
    if recommends != (task.metric == "hit_rate_at_10"):
        other = "lightgbm" if recommends else "ease"
        raise ConfigError(f"backtest.family: {name} predicts nothing for {task.metric}; write {other}, or your own")


# --- tables of features ---

_BUILT_IN = {
    "lightgbm": "lightgbm",
    "hist_gradient_boosting": "sklearn",
    "logistic_regression": "sklearn",
}


def _installed(name: str) -> str:
    try:
        return str(importlib.import_module(_BUILT_IN[name]).__version__)
    except ImportError as error:
        raise ConfigError(f"backtest.family {name} is not installed; pip install 'retrainer[backtest]'") from error


class _Tabular:
    """The built-in families on the policy's feature columns."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        self._name, self._parameters = name, parameters

    def fit(self, table: pa.Table, task: Task) -> Model:
        if self._name == "logistic_regression" and task.metric in ("mae", "rmse"):
            raise ConfigError("logistic_regression predicts no numbers; write backtest.family: lightgbm")
        _check(task, self._name, recommends=False)
        table, labels = labels_of(table, task)
        encoding = Encoding.of(table, task, one_hot=self._name == "logistic_regression")
        return _fitted(self._estimator(task, encoding), encoding, table, labels)

    def _estimator(self, task: Task, encoding: Encoding) -> Estimator:
        try:
            return _ESTIMATORS[self._name](task, encoding, self._parameters)
        except TypeError as error:
            raise ConfigError(f"backtest.parameters: {self._name} does not take them: {error}") from error


class _Foreign:
    """Any estimator with scikit-learn's fit and predict, on one-hot columns without nulls."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def fit(self, table: pa.Table, task: Task) -> Model:
        from sklearn.base import clone

        _check(task, type(self._estimator).__name__, recommends=False)
        table, labels = labels_of(table, task)
        return _fitted(clone(self._estimator), Encoding.of(table, task, one_hot=True), table, labels)


def _lightgbm(task: Task, encoding: Encoding, parameters: dict[str, Any]) -> Estimator:
    import lightgbm

    kind = lightgbm.LGBMClassifier if task.is_classification else lightgbm.LGBMRegressor
    given: dict[str, Any] = {
        "random_state": task.seed,
        "n_jobs": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    if task.metric == "mae":
        given["objective"] = "l1"
    estimator: Estimator = kind(**(given | parameters))
    return estimator


def _hist_gradient_boosting(task: Task, encoding: Encoding, parameters: dict[str, Any]) -> Estimator:
    from sklearn import ensemble

    kind = ensemble.HistGradientBoostingClassifier if task.is_classification else ensemble.HistGradientBoostingRegressor
    given: dict[str, Any] = {"random_state": task.seed, "categorical_features": encoding.is_categorical}
    if task.metric == "mae":
        given["loss"] = "absolute_error"
    estimator: Estimator = kind(**(given | parameters))
    return estimator


def _logistic_regression(task: Task, encoding: Encoding, parameters: dict[str, Any]) -> Estimator:
    from sklearn.linear_model import LogisticRegression

    estimator: Estimator = LogisticRegression(**({"max_iter": 1000, "random_state": task.seed} | parameters))
    return estimator


_ESTIMATORS = {
    "lightgbm": _lightgbm,
    "hist_gradient_boosting": _hist_gradient_boosting,
    "logistic_regression": _logistic_regression,
}


def _fitted(estimator: Estimator, encoding: Encoding, table: pa.Table, labels: NDArray[Any]) -> Model:
    if labels.dtype == object and len(set(labels.tolist())) == 1:
        return _Always(labels[0])
    given = encoding.encoded(table)
    if type(estimator).__module__.startswith("lightgbm") and any(encoding.is_categorical):
        places = [n for n, is_categorical in enumerate(encoding.is_categorical) if is_categorical]
        estimator.fit(given, labels, categorical_feature=places)
    else:
        estimator.fit(given, labels)
    return _Fitted(estimator, encoding, is_classification=labels.dtype == object)


@dataclass(frozen=True, slots=True)
class _Always:
    """A model of rows that all had one label."""

    label: str

    def predict(self, table: pa.Table) -> Predicted:
        values = np.full(table.num_rows, self.label, dtype=object)
        return Predicted(values, np.ones(table.num_rows))


@dataclass(frozen=True, slots=True)
class _Fitted:
    estimator: Any
    encoding: Encoding
    is_classification: bool

    def predict(self, table: pa.Table) -> Predicted:
        given = self.encoding.encoded(table)
        if not self.is_classification:
            return Predicted(np.asarray(self.estimator.predict(given), dtype=np.float64))
        if not hasattr(self.estimator, "predict_proba"):
            return Predicted(np.asarray(self.estimator.predict(given), dtype=object))
        probability = np.asarray(self.estimator.predict_proba(given))
        best = probability.argmax(axis=1)
        classes = np.asarray(self.estimator.classes_, dtype=object)
        return Predicted(classes[best], probability[np.arange(len(best)), best])


# --- the trainer's models: told by their names only, and taken as they are, with the trainer's hyperparameters ---


class _Ease:
    """trainer/ease.py. Each row is a request: the user's rows before it are the history."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters

    def fit(self, table: pa.Table, task: Task) -> Model:
        _check(task, "ease", recommends=True)
        ease, data = importlib.import_module("trainer.ease"), importlib.import_module("trainer.data")
        given = _hyperparameters("ease", ease.Hyperparameters, self._parameters)
        rows = _interactions(data, table, task)
        model = ease.fit(rows, given)
        histories = {user: rows.item_N[at].tolist() for user, at in data.sequences(rows)}
        return _Recommender(model, histories, task)


class _TrainersTabular:
    """trainer/tabular.py on the policy's feature columns, or on all, each of the kind that its type says."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters

    def fit(self, table: pa.Table, task: Task) -> Model:
        _check(task, "tabular", recommends=False)
        if not task.is_classification:
            raise ConfigError("tabular predicts no numbers; write backtest.family: lightgbm")
        tabular, rows = importlib.import_module("trainer.tabular"), importlib.import_module("trainer.rows")
        table, labels = labels_of(table, task)
        if len(set(labels.tolist())) == 1:
            return _Always(labels[0])
        columns = Encoding.of(table, task, one_hot=False).columns
        numbers, words = (",".join(c.name for c in columns if (c.codes is None) is plain) for plain in (True, False))
        told = {"label": task.label, "seed": task.seed, "numerical": numbers, "categorical": words} | self._parameters
        given = _hyperparameters("tabular", tabular.Hyperparameters, told)
        try:
            model, _ = tabular.learn(rows.labelled(table, task.label), given)
        except importlib.import_module("trainer.contract").DataError as error:
            raise PermanentError(f"the training failed: {error}") from error
        return _Classifier(model)


@dataclass(frozen=True, slots=True)
class _Classifier:
    model: Any

    def predict(self, table: pa.Table) -> Predicted:
        for column in self.model.columns:
            if column.name not in table.column_names:
                table = table.append_column(column.name, pa.nulls(table.num_rows))
        probability = self.model.probabilities_NC(table).astype(np.float64)
        best = probability.argmax(axis=1)
        classes = np.asarray(self.model.classes, dtype=object)
        return Predicted(classes[best], probability[np.arange(len(best)), best])


_TRAINERS: Mapping[str, Callable[[dict[str, Any]], Family]] = {"ease": _Ease, "tabular": _TrainersTabular}


def _hyperparameters(name: str, kind: Any, parameters: Mapping[str, Any]) -> Any:
    """As the training job reads them, out of strings: its limits hold here too."""
    contract = importlib.import_module("trainer.contract")
    try:
        return contract.parse_hyperparameters(kind, {key: str(value) for key, value in parameters.items()})
    except contract.HyperparameterError as error:
        raise ConfigError(f"backtest.parameters: {name}: {error}") from error


def _interactions(data: Any, table: pa.Table, task: Task) -> Any:
    from retrainer.backtest.history import microseconds

    lacking = [name for name in ("user_id", "item_id") if name not in table.column_names]
    if lacking:
        raise PermanentError(f"ease needs a column {lacking[0]!r}; the history has {', '.join(table.column_names)}")
    users, items = (table.column(name).cast(pa.int64()).to_numpy() for name in ("user_id", "item_id"))
    return data.in_order(users, items, microseconds("the history", table.column(task.timestamp)))


@dataclass(frozen=True, slots=True)
class _Recommender:
    model: Any
    histories: dict[int, list[int]]
    task: Task

    def predict(self, table: pa.Table) -> Predicted:
        data = importlib.import_module("trainer.data")
        from retrainer.backtest.history import microseconds

        users, items = (table.column(name).cast(pa.int64()).to_numpy() for name in ("user_id", "item_id"))
        moments = microseconds("the batch", table.column(self.task.timestamp))
        found = np.empty(table.num_rows, dtype=object)
        order = data.order_of(users, items, moments)
        for user in np.unique(users):
            rows = order[users[order] == user]
            seen = [*self.histories.get(int(user), ()), *items[rows].tolist()]
            self._fill(found, rows, np.array(seen, dtype=np.int64), len(seen) - len(rows))
        return Predicted(found)

    def _fill(self, found: NDArray[Any], rows: NDArray[np.int64], seen: NDArray[np.int64], start: int) -> None:
        """The ten best items before each of the user's rows, without those of the history."""
        data = importlib.import_module("trainer.data")
        catalogue = self.model.item_I
        place = data.index_of(catalogue, seen)
        known = np.concatenate([[0], np.cumsum(place >= 0)])
        history = place[place >= 0]
        scores = self.model.rolling(history[: known[len(seen) - 1]], int(known[start]))
        for n, row in enumerate(rows):
            before = int(known[start + n])
            score = scores[before - int(known[start])].copy()
            score[history[:before]] = -np.inf
            least = np.partition(score, -TOP)[-TOP] if len(score) > TOP else -np.inf
            among = np.flatnonzero(score >= least)
            best = among[np.lexsort((catalogue[among], -score[among]))][:TOP]
            found[row] = [str(item) for item in catalogue[best]]
