"""Every family learns what is there, knows nothing of what it never saw, and is the same twice."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrainer.backtest import paired
from retrainer.backtest import task as tasks
from retrainer.backtest.families import family
from retrainer.backtest.task import Predicted, Task
from retrainer.core.policy import Backtest
from retrainer.ports import ConfigError, PermanentError
from tests.backtest import stream

TASK = tasks.task(stream.policy(), seed=0)
BUILT_IN = ("lightgbm", "hist_gradient_boosting", "logistic_regression", "tabular")


def rows(seed: int = 0, count: int = 400) -> pa.Table:
    """A label that a number and a category decide together, with nulls in both."""
    random = np.random.default_rng(seed)
    x = random.normal(size=count)
    city = random.choice(["rome", "oslo", "bonn"], count)
    label = np.where(x + (city == "oslo") * 3 > 0.5, "yes", "no")
    x[::50] = np.nan
    cities = [None if n % 40 == 0 else str(name) for n, name in enumerate(city)]
    return pa.table({"x": x, "city": cities, "label": label, "id": [str(n) for n in range(count)]})


def a_task(**changes: Any) -> Task:
    told: dict[str, Any] = {
        "label": "label",
        "metric": "accuracy",
        "timestamp": "at",
        "features": None,
        "categorical": (),
        "numerical": (),
        "ignored": ("id",),
        "seed": 0,
    }
    return Task(**(told | changes))


@pytest.mark.parametrize("name", [*BUILT_IN, "sklearn.naive_bayes:GaussianNB"])
def test_a_number_and_a_category_are_learned(name: str) -> None:
    model = family(Backtest(family=name)).family.fit(rows(), a_task())
    predicted = model.predict(rows(1))
    assert tasks.losses(rows(1), predicted, a_task()).mean() < 0.2
    assert predicted.confidence is not None
    assert predicted.confidence.min() >= 0.5 - 1e-9


@pytest.mark.parametrize("name", BUILT_IN)
def test_unknown_categories_and_lost_columns_are_no_error(name: str) -> None:
    model = family(Backtest(family=name)).family.fit(rows(), a_task())
    strange = pa.table({"x": [0.1, None], "city": ["never seen", None], "label": ["yes", "no"]})
    assert len(model.predict(strange).values) == 2
    assert len(model.predict(strange.drop_columns("city")).values) == 2


@pytest.mark.parametrize("name", BUILT_IN)
def test_twice_is_the_same(name: str) -> None:
    one, two = (family(Backtest(family=name)).family.fit(rows(), a_task()).predict(rows(1)) for _ in range(2))
    assert one.values.tolist() == two.values.tolist()


@pytest.mark.parametrize("name", ["lightgbm", "hist_gradient_boosting"])
@pytest.mark.parametrize("metric", ["mae", "rmse"])
def test_numbers_are_predicted_too(name: str, metric: Any) -> None:
    table = rows().set_column(2, "label", pa.array(np.nan_to_num(rows().column("x").to_numpy()) * 2))
    model = family(Backtest(family=name)).family.fit(table, a_task(metric=metric))
    assert tasks.losses(table, model.predict(table), a_task(metric=metric)).mean() < 0.5


def test_rows_of_one_label_make_a_model_that_always_says_it() -> None:
    table = rows().set_column(2, "label", pa.array(["no"] * 400))
    assert set(family(Backtest()).family.fit(table, a_task()).predict(rows(1)).values) == {"no"}


def test_rows_without_labels_cannot_be_learned() -> None:
    table = rows().set_column(2, "label", pa.nulls(400, pa.string()))
    with pytest.raises(PermanentError, match="no row has a label"):
        family(Backtest()).family.fit(table, a_task())


class Constant:
    """A family of one's own."""

    def __init__(self, says: str = "yes") -> None:
        self._says = says

    def fit(self, table: pa.Table, task: Task) -> "Constant":
        return self

    def predict(self, table: pa.Table) -> Predicted:
        return Predicted(np.full(table.num_rows, self._says, dtype=object))


def test_a_callable_of_ones_own_is_a_family() -> None:
    named = family(Backtest(family=f"{__name__}:Constant", parameters={"says": "no"}))
    assert set(named.family.fit(rows(), a_task()).predict(rows()).values) == {"no"}
    other = family(Backtest(family=f"{__name__}:Constant"))
    assert named.identity != other.identity


def test_ease_recommends_what_goes_together() -> None:
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 6)
    items = np.concatenate([random.permutation(12)[:6] + (100 if user % 2 else 200) for user in range(60)])
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    moments = [begin + timedelta(minutes=n) for n in range(360)]
    table = pa.table({"user_id": users, "item_id": items, "at": moments})
    task = a_task(label="item_id", metric="hit_rate_at_10", ignored=())
    model = family(Backtest(family="ease", parameters={"regularisation": 1.0})).family.fit(table, task)
    new = pa.table({"user_id": [999] * 4, "item_id": [201, 203, 205, 207], "at": moments[:4]})
    predicted = model.predict(new)
    assert all(len(items) <= 10 for items in predicted.values)
    assert tasks.losses(new, predicted, task)[1:].mean() < 0.4
    assert "201" not in predicted.values[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("boosting", "write one of lightgbm"),
        ("no.such.module:It", "cannot be used"),
        ("json:dumps", "cannot be used"),
        ("builtins:dict", "nothing with a fit"),
    ],
)
def test_what_is_no_family_is_told(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        family(Backtest(family=name))


def test_the_trainers_own_families_take_its_hyperparameters_and_hold_to_their_limits() -> None:
    with pytest.raises(ConfigError, match=r"backtest\.parameters: tabular: hyperparameter 'bins' is '1'"):
        family(Backtest(family="tabular", parameters={"bins": 1})).family.fit(rows(), a_task())
    one, two = (
        family(Backtest(family="tabular", parameters={"validation_share": 0, "rounds": n})).family.fit(rows(), a_task())
        for n in (1, 30)
    )
    assert one.predict(rows(1)).confidence.mean() < two.predict(rows(1)).confidence.mean()  # type: ignore[union-attr]


def test_a_family_that_cannot_predict_what_is_asked_is_told() -> None:
    with pytest.raises(ConfigError, match="lightgbm predicts nothing for hit_rate_at_10; write ease"):
        family(Backtest()).family.fit(rows(), a_task(metric="hit_rate_at_10"))
    with pytest.raises(ConfigError, match="ease predicts nothing for accuracy; write lightgbm"):
        family(Backtest(family="ease")).family.fit(rows(), a_task())
    for name in ("logistic_regression", "tabular"):
        with pytest.raises(ConfigError, match=f"{name} predicts no numbers"):
            family(Backtest(family=name)).family.fit(rows(), a_task(metric="mae"))


def test_a_policy_that_does_not_say_what_is_predicted_is_told() -> None:
    data = stream.policy().data.model_dump(exclude={"predictions"}, mode="json")
    with pytest.raises(ConfigError, match="does not say what is predicted"):
        tasks.task(stream.policy(data=data, triggers={"volume": {"rows": 9}}), seed=0)
    data["columns"]["label"] = {"kind": "categorical", "role": "target"}
    found = tasks.task(stream.policy(data=data, triggers={"volume": {"rows": 9}}), seed=0)
    assert (found.label, found.metric, found.features) == ("label", "accuracy", ("x", "y"))


def test_an_area_under_a_curve_cannot_be_played() -> None:
    data = stream.policy().data.model_dump(mode="json")
    data["predictions"]["metric"] = "roc_auc"
    with pytest.raises(ConfigError, match="a backtest cannot play roc_auc; write accuracy for it"):
        tasks.task(stream.policy(data=data), seed=0)


def test_metrics_that_gates_name_are_measured() -> None:
    table = pa.table({"label": ["a", "a", "b", "b"]})
    predicted = Predicted(np.array(["a", "b", "b", "b"], dtype=object), np.array([0.9, 0.6, 0.7, 0.8]))
    found = tasks.metrics(table, predicted, a_task())
    assert found == {"accuracy": 0.75, "balanced_accuracy": 0.75, "auc": 1.0, "roc_auc": 1.0}
    numbers = tasks.metrics(pa.table({"label": [1.0, 3.0]}), Predicted(np.array([1.0, 2.0])), a_task(metric="rmse"))
    assert numbers == pytest.approx({"negative_mae": -0.5, "negative_rmse": -np.sqrt(0.5), "r2": 0.5})


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "auc"])
def test_a_resampled_gain_is_as_wide_as_that_of_rows_resampled_and_measured_anew(metric: str) -> None:
    draws = np.random.default_rng(0)
    truth = draws.random(400) < 0.3
    table = pa.table({"label": np.where(truth, "b", "a")})

    def made(noise: float) -> Predicted:
        chance = np.clip(0.5 + 0.3 * (truth - 0.5) + draws.normal(0, noise, 400), 0.01, 0.99)
        values = np.where(chance > 0.5, "b", "a").astype(object)
        return Predicted(values, np.where(chance > 0.5, chance, 1 - chance))

    both = made(0.15), made(0.3)
    gains = paired.resampled(table, both, a_task(), metric)
    assert (len(gains), list(gains)) == (1000, sorted(gains))
    anew = []
    for _ in range(300):
        rows = draws.integers(0, 400, 400)
        part = [
            tasks.metrics(table.take(rows), Predicted(one.values[rows], _taken(one, rows)), a_task()) for one in both
        ]
        anew.append(part[0][metric] - part[1][metric])
    assert np.std(gains) == pytest.approx(np.std(anew), rel=0.2)
    whole = [tasks.metrics(table, one, a_task())[metric] for one in both]
    assert np.mean(gains) == pytest.approx(whole[0] - whole[1], abs=0.2 * float(np.std(gains)))


def _taken(one: Predicted, rows: Any) -> Any:
    assert one.confidence is not None
    return one.confidence[rows]


def test_a_gain_that_cannot_be_measured_is_none_and_a_tie_is_half_better() -> None:
    one = Predicted(np.array(["a", "a"], dtype=object))
    table = pa.table({"label": ["a", "b"]})
    assert paired.resampled(table, (one, one), a_task(), "auc") == ()
    gains = paired.resampled(table, (one, one), a_task(), "accuracy")
    assert (paired.better(gains), paired.interval(gains)) == (0.5, (0.0, 0.0))
