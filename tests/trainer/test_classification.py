from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer import bootstrap, classification
from trainer.classification import METRIC_NAMES, Cases, FloatArray, cases_of
from trainer.contract import ArtefactError, BadRequestError, DataError
from trainer.rows import labelled, read, table_of

SCHEMA = pa.schema({"x": pa.float64(), "kind": pa.string()})


@dataclass(frozen=True)
class Told:
    """Answers with the probabilities that stand in the rows themselves, in the columns p_<class>."""

    classes: tuple[str, ...]
    label: str = "y"
    asked: list[int] = field(default_factory=list)

    def probabilities_NC(self, table: pa.Table) -> FloatArray:  # noqa: N802
        self.asked.append(table.num_rows)
        return np.stack([table[f"p_{name}"].to_numpy() for name in self.classes], axis=1).astype(np.float32)

    def table(self, instances: list[dict[str, Any]]) -> pa.Table:
        return table_of(instances, pa.schema({f"p_{name}": pa.float64() for name in self.classes}))


def told(labels: list[Any], train: list[Any] | None = None, **probabilities: list[float]) -> Cases:
    """A holdout with these labels and probabilities; the training rows have only labels."""
    holdout = pa.table({"y": labels, **{f"p_{name}": given for name, given in probabilities.items()}})
    return cases_of(labelled(pa.table({"y": train or labels}), "y"), labelled(holdout, "y"))


def values(predictor: Any, cases: Cases) -> dict[str, float]:
    return {name: metric["value"] for name, metric in classification.measure(predictor, cases).items()}


# a is right 2 of 3, b 1 of 1
FOUR = told(["a", "a", "a", "b"], a=[0.9, 0.8, 0.3, 0.4], b=[0.1, 0.2, 0.7, 0.6])


def test_the_metrics_of_four_rows_worked_by_hand() -> None:
    found = values(Told(("a", "b")), FOUR)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["log_likelihood"] == pytest.approx(np.log([0.9, 0.8, 0.3, 0.6]).mean(), rel=1e-6)
    assert found["roc_auc"] == pytest.approx(2 / 3)  # b's 0.6 is above 0.1 and 0.2, not above 0.7


def test_the_area_under_the_curve_is_that_of_scikit_learn_with_ties_and_many_classes() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draws = np.random.default_rng(0)
    share_NC = np.round(draws.dirichlet(np.ones(3), 200), 1)
    share_NC[:, 2] = 1 - share_NC[:, 0] - share_NC[:, 1]
    labels = draws.choice(list("abc"), 200, p=[0.6, 0.3, 0.1])
    three = told(labels.tolist(), **dict(zip("abc", share_NC.T.tolist(), strict=True)))
    expected = np.mean(
        [metrics.roc_auc_score(labels == c, share_NC[:, i].astype(np.float32)) for i, c in enumerate("abc")]
    )
    assert values(Told(("a", "b", "c")), three)["roc_auc"] == pytest.approx(expected)
    found = values(Told(("a", "b", "c")), three)["balanced_accuracy"]
    predicted = np.array(list("abc"))[share_NC.astype(np.float32).argmax(axis=1)]
    assert found == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))


def test_the_interval_of_the_area_is_that_of_resampling_the_rows_and_measuring_anew() -> None:
    draws = np.random.default_rng(1)
    truth_N = draws.random(300) < 0.2
    score_N = np.clip(draws.normal(0.4 + 0.15 * truth_N, 0.15), 0, 1)
    two = told(np.where(truth_N, "yes", "no").tolist(), no=(1 - score_N).tolist(), yes=score_N.tolist())
    found = classification.measure(Told(("no", "yes")), two)
    by_name: dict[str, list[float]] = {name: [] for name in METRIC_NAMES}
    for _ in range(400):
        at_N = draws.integers(0, 300, 300)
        part = told(
            np.where(truth_N[at_N], "yes", "no").tolist(), no=(1 - score_N[at_N]).tolist(), yes=score_N[at_N].tolist()
        )
        total_NM = classification.score(Told(("no", "yes")), part).total_UM
        for name, value in zip(METRIC_NAMES, total_NM.mean(axis=0), strict=True):
            by_name[name].append(value)
    for name in METRIC_NAMES:
        assert found[name]["standard_deviation"] == pytest.approx(np.std(by_name[name]), rel=0.2), name


def test_a_label_the_model_has_never_seen_is_missed_and_nearly_impossible() -> None:
    cases = told(["a", "new"], a=[1.0, 1.0], b=[0.0, 0.0])
    found = values(Told(("a", "b")), cases)
    assert found["accuracy"] == 0.5
    assert found["log_likelihood"] == pytest.approx(np.log(classification.EPSILON) / 2)
    report = classification.quality(Told(("a", "b")), cases, classification.measure(Told(("a", "b")), cases))
    assert report["multiclass_classification_metrics"]["confusion_matrix"]["new"] == {"a": 1, "new": 0}


def test_one_class_alone_cannot_be_told_apart() -> None:
    found = values(Told(("a", "b")), told(["a", "a"], a=[0.9, 0.8], b=[0.1, 0.2]))
    assert (found["roc_auc"], found["balanced_accuracy"]) == (0.5, 1.0)


def test_probabilities_that_are_no_numbers_are_none_and_of_another_shape_are_refused() -> None:
    cases = told(["a", "b"], a=[float("nan"), 0.2], b=[0.3, float("inf")])
    assert values(Told(("a", "b")), cases)["accuracy"] == 0.0

    class Odd(Told):
        def probabilities_NC(self, table: pa.Table) -> FloatArray:  # noqa: N802
            return super().probabilities_NC(table)[:1]

    with pytest.raises(ArtefactError, match=r"shape \(1, 2\) for 2 rows and 2 classes"):
        classification.measure(Odd(("a", "b")), told(["a", "b"], a=[0.1, 0.2], b=[0.3, 0.8]))


def test_a_better_model_is_seen_to_be_better_on_every_metric() -> None:
    draws = np.random.default_rng(3)
    truth_N = draws.random(400) < 0.5
    sharp_N, blunt_N = (np.clip(draws.normal(0.5 + by * (truth_N - 0.5), 0.2), 0.01, 0.99) for by in (0.8, 0.2))
    labels = np.where(truth_N, "b", "a").tolist()
    better, worse = (
        classification.score(Told(("a", "b")), told(labels, a=(1 - one_N).tolist(), b=one_N.tolist()))
        for one_N in (sharp_N, blunt_N)
    )
    for name, found in bootstrap.paired(better, worse, METRIC_NAMES).items():
        assert found["low"] > 0, name
        assert found["probability_better"] == 1.0


# ---- baselines


def test_the_majority_is_named_and_the_recent_one_where_it_changed() -> None:
    cases = told(["a", "b"], train=["a"] * 70 + ["b"] * 30, a=[0.0, 0.0])
    named = classification.baselines(cases)
    assert set(named) == {"majority", "recent_majority"}
    best = {name: one.classes[int(one.probability_C.argmax())] for name, one in named.items()}
    assert best == {"majority": "a", "recent_majority": "b"}
    assert all(one.probability_C.min() > 0 and one.probability_C.sum() == pytest.approx(1) for one in named.values())
    assert values(named["majority"], cases)["roc_auc"] == 0.5


# ---- reading


def write(file: Path, **columns: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (pa.array([1, None, 0]), ["1", "0"]),
        (pa.array([1.0, float("nan"), 0.0]), ["1", "0"]),
        (pa.array([True, None, False]), ["true", "false"]),
        (pa.array(["é", None, ""]), ["é", ""]),
        (pa.array(["b", None, "a"]).dictionary_encode(), ["b", "a"]),
    ],
)
def test_labels_of_any_type_are_text_and_rows_without_one_are_counted(labels: pa.Array, texts: list[str]) -> None:
    rows = labelled(pa.table({"y": labels, "x": [1, 2, 3]}), "y")
    assert rows.label_N.tolist() == texts
    assert (rows.dropped, rows.table["x"].to_pylist()) == (1, [1, 3])


def test_rows_of_several_files_come_in_the_order_of_time(tmp_path: Path) -> None:
    at = [datetime(2020, 1, day, tzinfo=UTC) for day in (3, 1, 2)]
    write(tmp_path / "one.parquet", y=["c", "a", "b"], when=pa.array(at, pa.timestamp("us", "UTC")), x=[3, 1, 2])
    write(
        tmp_path / "two.parquet",
        y=["a"],
        when=pa.array([datetime(2019, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        x=[0],
    )
    rows = read(tmp_path, label="y")
    assert rows.table["x"].to_pylist() == [0, 1, 2, 3]
    assert [str(np.datetime64(end, "us"))[:10] for end in rows.window()] == ["2019-01-01", "2020-01-03"]
    earlier, later = rows.split(0.5)
    assert (earlier.label_N.tolist(), later.label_N.tolist()) == (["a", "a"], ["b", "c"])
    assert read(tmp_path, label="y", columns=["y"]).table.column_names == ["y", "when"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": [1]}, "column 'y' is missing, which holds the labels; it has x"),
        ({"y": pa.array([None], pa.string())}, "no row has a label in column 'y'"),
        ({"y": pa.array([[1]])}, "give a label that is text or a number"),
    ],
)
def test_what_cannot_be_a_label_is_named(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    write(tmp_path / "rows.parquet", **columns)
    with pytest.raises(DataError, match=said):
        read(tmp_path, label="y")


def test_a_folder_without_rows_and_a_file_that_is_cut_off_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.parquet file found"):
        read(tmp_path, label="y")
    write(tmp_path / "rows.parquet", y=["a"] * 100)
    whole = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="not a readable parquet file"):
        read(tmp_path, label="y")


# ---- the registry's report


def test_two_classes_give_the_registrys_binary_report() -> None:
    predictor = Told(("a", "b"))
    report = classification.quality(predictor, FOUR, classification.measure(predictor, FOUR))
    group = report["binary_classification_metrics"]
    assert group["confusion_matrix"] == {"a": {"a": 2, "b": 1}, "b": {"b": 1}}
    assert group["recall"] == {"value": 1.0, "standard_deviation": "NaN"}
    assert group["precision"]["value"] == 0.5
    assert group["accuracy"]["value"] == 0.75
    assert group["accuracy"]["standard_deviation"] > 0
    assert group["auc"] == group["roc_auc"]
    curve = group["receiver_operating_characteristic_curve"]
    assert curve["true_positive_rates"][-1] == curve["false_positive_rates"][-1] == 1.0
    assert report["dataset"] == {"item_count": 4, "dropped_without_label": 0}
    assert report["by_class"]["a"] == pytest.approx(
        {"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3, "predicted": 2}
    )


def test_three_classes_give_the_multiclass_report() -> None:
    predictor = Told(("a", "b", "c"))
    cases = told(["a", "b", "c"], a=[0.8, 0.5, 0.1], b=[0.1, 0.4, 0.2], c=[0.1, 0.1, 0.7])
    group = classification.quality(predictor, cases, classification.measure(predictor, cases))[
        "multiclass_classification_metrics"
    ]
    assert group["confusion_matrix"]["b"] == {"a": 1, "b": 0}
    assert group["weighted_recall"]["value"] == pytest.approx(2 / 3)
    assert group["accuracy_best_constant_classifier"]["value"] == pytest.approx(1 / 3)


def test_a_model_is_asked_once_for_its_score_and_its_report() -> None:
    predictor, cases = Told(("a", "b")), told(["a", "b"], a=[0.9, 0.1], b=[0.1, 0.9])
    classification.quality(predictor, cases, classification.measure(predictor, cases))
    assert predictor.asked == [2]


# ---- answers


def test_an_answer_names_the_class_and_its_likeliest_few() -> None:
    predictor = Told(tuple("abcdefg"))
    row = {f"p_{name}": share for name, share in zip("abcdefg", (0.1, 0.3, 0.2, 0.1, 0.1, 0.15, 0.05), strict=True)}
    (found,) = classification.answer(predictor, {"instances": [row]})
    assert (found["label"], found["probability"]) == ("b", 0.3)
    assert found["probabilities"] == {"b": 0.3, "c": 0.2, "f": 0.15, "a": 0.1, "d": 0.1}
    assert classification.answer(predictor, {"instances": []}) == []


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "give {"),
        ({"instances": {"x": 1}}, "give {"),
        ({"instances": [1]}, r"instances\[0\] must be an object"),
        ({"instances": [{"p_a": 1.0}, {}]}, r"instances\[1\] has none of the columns; give p_a \(double\)"),
        ({"instances": [{"p_a": "much"}]}, "'p_a' must be double in every instance"),
        ({"instances": [{"p_a": [1]}]}, "'p_a' must be double"),
        ({"instances": [{"p_a": {"x": 1}}]}, "'p_a' must be double"),
        ({"instances": [{"p_a": 10**400}]}, "'p_a' must be double"),
        ({"instances": [{"p_a": "\ud800"}]}, "'p_a' must be double"),
    ],
)
def test_a_hostile_request_is_told_what_to_send(request_: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        classification.answer(Told(("a", "b")), request_)


def test_a_column_that_is_left_out_is_null_and_one_not_asked_for_is_ignored() -> None:
    table = table_of([{"x": 1, "more": 2}, {"kind": "b"}], SCHEMA)
    assert table.to_pylist() == [{"x": 1.0, "kind": None}, {"x": None, "kind": "b"}]
    with pytest.raises(BadRequestError, match="'kind' must be string"):
        table_of([{"kind": "\ud800"}], SCHEMA)
