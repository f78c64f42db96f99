"""The tabular model learns what is there, is the same twice, and says what it cannot take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer import artefact, classification, rows, tabular, train
from trainer.contract import BadRequestError, DataError, Paths, StopRequest
from trainer.tabular import Hyperparameters, Tabular

P = Hyperparameters(label="late", numerical="x,y", categorical="city", shrinkage=5.0)


def table(count: int = 3000, seed: int = 0) -> pa.Table:
    """Late when the signs of x and y differ, a matter of the pair alone, or in Oslo; with nulls in all three."""
    draws = np.random.default_rng(seed)
    x, y = draws.normal(size=(2, count))
    city = draws.choice(["rome", "oslo", "bonn"], count, p=[0.45, 0.1, 0.45])
    late = np.where((x * y < 0) | (city == "oslo"), "yes", "no")
    columns = {
        "timestamp": pa.array(np.arange(count) * 60_000_000, pa.timestamp("us", tz="UTC")),
        "x": [None if n % 50 == 0 else value for n, value in enumerate(x)],
        "y": np.where(np.arange(count) % 70 == 0, np.nan, y),
        "city": [None if n % 90 == 0 else str(name) for n, name in enumerate(city)],
        "late": late,
    }
    return pa.table(columns)


def learned(given: pa.Table, p: Hyperparameters = P) -> Tabular:
    model, _ = tabular.learn(rows.labelled(given, p.label), p)
    assert model
    return model


def accuracy(model: Tabular, given: pa.Table) -> float:
    best_N = np.array(model.classes)[model.probabilities_NC(given).argmax(axis=1)]
    return float(np.mean(best_N == np.array(given[model.label].to_pylist())))


def test_what_two_columns_say_only_together_is_learned_by_their_pair() -> None:
    test = table(seed=1)
    assert accuracy(learned(table()), test) > 0.9
    assert accuracy(learned(table(), replace(P, pairs=0)), test) < 0.7


def test_the_pair_that_matters_is_found_among_others() -> None:
    model = learned(table(), replace(P, pairs=1))
    assert [tuple(model.columns[f].name for f in pair) for pair in model.pairs] == [("x", "y")]


def test_probabilities_are_as_often_right_as_they_say() -> None:
    model, test = learned(table(6000)), table(6000, seed=1)
    p_N = model.probabilities_NC(test)[:, 1]
    late_N = np.array(test["late"].to_pylist()) == "yes"
    for low, high in ((0.0, 0.2), (0.8, 1.0)):
        chosen_N = (p_N >= low) & (p_N <= high)
        assert chosen_N.sum() > 500
        assert late_N[chosen_N].mean() == pytest.approx(p_N[chosen_N].mean(), abs=0.08)


def test_three_classes_are_learned_too() -> None:
    draws = np.random.default_rng(0)
    x = draws.normal(size=2000)
    given = pa.table({"x": x, "kind": np.digitize(x, [-0.5, 0.5])})
    model = learned(given, Hyperparameters(label="kind", numerical="x", shrinkage=1.0))
    assert model.classes == ("0", "1", "2")
    assert model.probabilities_NC(given).sum(axis=1) == pytest.approx(np.ones(2000), abs=1e-5)
    assert np.mean(model.probabilities_NC(given).argmax(axis=1) == given["kind"].to_numpy()) > 0.9


def test_the_same_rows_make_the_same_model() -> None:
    one, two = (tabular.stored(learned(table())) for _ in range(2))
    assert one[1] == two[1]
    assert all(np.array_equal(one[0][name], two[0][name]) for name in one[0])


def test_nulls_nans_and_strange_categories_are_answered() -> None:
    model = learned(table())
    strange = pa.table({"x": [None, 1e300], "y": [float("nan"), float("inf")], "city": ["never seen", None]})
    assert np.isfinite(model.probabilities_NC(strange)).all()


def job(base: Path, given: pa.Table, **hyperparameters: str) -> Paths:
    paths = Paths(base)
    paths.channel("train").mkdir(parents=True)
    pq.write_table(given, paths.channel("train") / "train.parquet")
    paths.hyperparameters.parent.mkdir(parents=True, exist_ok=True)
    told = {"model": "tabular", "label": "late", "numerical": "x, y", "categorical": "city", "shrinkage": "5"}
    paths.hyperparameters.write_text(json.dumps(told | hyperparameters))
    return paths


def test_a_job_leaves_a_model_that_is_loaded_evaluated_and_answers(tmp_path: Path) -> None:
    paths = job(tmp_path, table())
    assert train.main(paths, StopRequest()) == 0
    loaded = artefact.load(paths.model)
    assert accuracy(loaded.predictor, table(seed=1)) > 0.9
    assert loaded.manifest["validation"]["accuracy"]["value"] > 0.9
    instances = [{"x": 2.0, "y": -2.0, "city": "rome"}, {"x": 2.0, "y": 2.0}]
    answers = classification.answer(loaded.predictor, {"instances": instances})
    assert [answer["label"] for answer in answers] == ["yes", "no"]
    with pytest.raises(BadRequestError, match="'x' must be double"):
        classification.answer(loaded.predictor, {"instances": [{"x": "two"}]})


def test_a_stopped_job_leaves_no_model(tmp_path: Path) -> None:
    paths, stop = job(tmp_path, table()), StopRequest()
    stop.received = True
    assert train.main(paths, stop) == 0
    assert not paths.model.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"numerical": "x,z"}, "column 'z' is missing"),
        ({"numerical": "city"}, "column 'city' is string, give numbers"),
        ({"label": "none"}, "column 'none' is missing"),
        ({"numerical": "", "categorical": ""}, "there is no column to learn from"),
    ],
)
def test_what_cannot_be_learned_from_is_told(tmp_path: Path, wrong: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        train.main(job(tmp_path, table(), **wrong), StopRequest())


def test_one_class_alone_is_refused() -> None:
    given = table().set_column(4, "late", pa.array(["no"] * 3000))
    with pytest.raises(DataError, match="holds one class, 'no'"):
        learned(given)


def test_weights_that_do_not_fit_their_columns_are_refused() -> None:
    arrays, config = tabular.stored(learned(table()))
    with pytest.raises(ValueError, match="the weights are not those of"):
        tabular.load({**arrays, "weight_VK": arrays["weight_VK"][:-1]}, json.loads(json.dumps(config)))
