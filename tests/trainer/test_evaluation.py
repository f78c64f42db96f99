from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer import artefact, classification, evaluation, train
from trainer.contract import ArtefactError, DataError, Paths, StopRequest

from .conftest import cycle, lay_out, pack, write_parquet

METRICS = {"ndcg_at_10", "hit_rate_at_10"}


@pytest.fixture
def processing(job: Callable[..., Paths], tmp_path: Path) -> Paths:
    """A processing job with two challengers (the second a stronger EASE) and no champion."""
    rows = cycle()
    learnt, held_out = rows.rows(slice(0, 3000)), rows.rows(slice(3000, None))
    paths = Paths(tmp_path / "processing")
    write_parquet(paths.processing_input("train") / "train.parquet", learnt)
    write_parquet(paths.processing_input("holdout") / "holdout.parquet", held_out)
    for name, items_max in (("r-g1-abc-small-0", "20"), ("r-g1-abc-ease-0", "2500")):
        trained = job(name, learnt, model="ease", items_max=items_max)
        train.main(trained, StopRequest())
        pack(trained.model, paths.processing_input("challenger") / name / "output" / "model.tar.gz")
    paths.processing_input("champion").mkdir()
    (paths.processing_input("champion") / "none.json").write_text("{}")
    return paths


def run(paths: Paths) -> dict[str, Any]:
    assert evaluation.main(paths) == 0
    result: dict[str, Any] = json.loads(paths.evaluation.read_text())
    return result


def check_metrics(metrics: dict[str, Any]) -> None:
    assert set(metrics) == METRICS
    for metric in metrics.values():
        assert set(metric) == {"value", "low", "high", "standard_deviation"}
        assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1


def test_the_file_has_the_shape_the_gate_reads(processing: Paths) -> None:
    result = run(processing)
    assert set(result) == {"version", "rows", "cases", "metric_names", "challengers", "champion", "baselines"}
    assert (result["version"], result["rows"], result["champion"]) == (1, 750, None)
    assert 0 < result["cases"] <= 750
    assert set(result["metric_names"]) == METRICS
    assert set(result["baselines"]) == {"popularity", "recent_popularity"}
    for entry in [*result["challengers"], *result["baselines"].values()]:
        check_metrics(entry["metrics"])
    for entry in result["challengers"]:
        assert set(entry) == {"job", "model_data", "metrics", "against_champion"}
        assert entry["against_champion"] is None
        assert entry["model_data"] == f"models/{entry['job']}/output/model.tar.gz"


def test_the_better_challenger_has_the_better_metrics(processing: Paths) -> None:
    ndcg = {entry["job"]: entry["metrics"]["ndcg_at_10"]["value"] for entry in run(processing)["challengers"]}
    assert ndcg["r-g1-abc-ease-0"] > ndcg["r-g1-abc-small-0"]


def crown(processing: Paths, job: str) -> None:
    """The archive of a challenger becomes the champion's."""
    archive = processing.processing_input("challenger") / job / "output" / "model.tar.gz"
    (processing.processing_input("champion") / "none.json").unlink()
    (processing.processing_input("champion") / "model.tar.gz").write_bytes(archive.read_bytes())


def test_every_challenger_is_compared_with_the_champion_on_the_same_cases(processing: Paths) -> None:
    crown(processing, "r-g1-abc-small-0")
    result = run(processing)
    better, same = ({**entry} for entry in result["challengers"])
    assert result["champion"]["metrics"] == same["metrics"]
    for name in METRICS:
        equal, found = same["against_champion"][name], better["against_champion"][name]
        assert (equal["difference"], equal["low"], equal["high"], equal["probability_better"]) == (0, 0, 0, 0.5)
        gain = better["metrics"][name]["value"] - same["metrics"][name]["value"]
        assert found["difference"] == pytest.approx(gain)
        assert 0 < found["low"] < gain < found["high"]
        assert found["probability_better"] == 1.0
        assert len(found["resampled"]) == 1000


def test_each_challenger_has_a_report_that_the_registry_understands(processing: Paths) -> None:
    result = run(processing)
    for entry in result["challengers"]:
        report = json.loads((processing.evaluation.parent / "model_quality" / f"{entry['job']}.json").read_text())
        for name in METRICS:
            measured = entry["metrics"][name]
            expected = {"value": measured["value"], "standard_deviation": measured["standard_deviation"]}
            assert report["ranking_metrics"][name] == expected
        assert report["dataset"]["item_count"] == result["cases"]


def test_without_a_challenger_there_is_nothing_to_evaluate(processing: Paths) -> None:
    for archive in processing.processing_input("challenger").rglob("model.tar.gz"):
        archive.unlink()
    with pytest.raises(ArtefactError, match="no challenger; give <training job>/output/model"):
        evaluation.main(processing)


def test_what_a_stopped_spot_job_left_is_passed_over(processing: Paths) -> None:
    left = processing.processing_input("challenger") / "r-g1-abc-spot-0" / "output" / "model.tar.gz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a model")
    assert {c["job"] for c in run(processing)["challengers"]} == {"r-g1-abc-small-0", "r-g1-abc-ease-0"}
    for archive in processing.processing_input("challenger").rglob("model.tar.gz"):
        archive.write_bytes(b"half a model")
    with pytest.raises(ArtefactError, match="not a readable model archive"):
        evaluation.main(processing)


def labelled_rows(file: Path, count: int, seed: int) -> None:
    """Late when x is above zero, with a fifth of it noise; every tenth row has no label."""
    draws = np.random.default_rng(seed)
    x = draws.normal(size=count)
    late = np.where((x > 0) ^ (draws.random(count) < 0.2), 1, 0)
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "timestamp": pa.array(np.arange(count) * 60_000_000, pa.timestamp("us", tz="UTC")),
        "x": x,
        "noise": draws.normal(size=count),
        "late": pa.array([None if n % 10 == 0 else int(value) for n, value in enumerate(late)], pa.int64()),
    }
    pq.write_table(pa.table(columns), file)


@pytest.fixture
def classes(tmp_path: Path) -> Paths:
    """A processing job of two tabular models: `good` has seen the column that matters, `blind` is the champion too."""
    paths = Paths(tmp_path / "classes")
    labelled_rows(paths.processing_input("train") / "train.parquet", 1500, 0)
    labelled_rows(paths.processing_input("holdout") / "holdout.parquet", 500, 1)
    for name, column in (("good", "x"), ("blind", "noise")):
        trained = lay_out(Paths(tmp_path / name), {"model": "tabular", "label": "late", "numerical": column})
        labelled_rows(trained.channel("train") / "train.parquet", 1500, 0)
        train.main(trained, StopRequest())
        pack(trained.model, paths.processing_input("challenger") / name / "output" / "model.tar.gz")
    paths.processing_input("champion").mkdir()
    (paths.processing_input("champion") / "none.json").write_text("{}")
    crown(paths, "blind")
    return paths


def test_classifiers_are_evaluated_by_the_same_gate(classes: Paths) -> None:
    result = run(classes)
    assert (result["rows"], result["cases"]) == (500, 450)
    assert result["metric_names"] == list(classification.METRIC_NAMES)
    assert set(result["baselines"]) == {"majority", "recent_majority"}
    by_job = {entry["job"]: entry for entry in result["challengers"]}
    assert by_job["blind"]["metrics"] == result["champion"]["metrics"]
    for name in classification.METRIC_NAMES:
        assert by_job["good"]["against_champion"][name]["probability_better"] == 1.0
        assert by_job["blind"]["against_champion"][name]["difference"] == 0.0
    report = json.loads((classes.evaluation.parent / "model_quality" / "good.json").read_text())
    group = report["binary_classification_metrics"]
    assert group["accuracy"]["value"] == by_job["good"]["metrics"]["accuracy"]["value"] > 0.7
    assert sum(count for row in group["confusion_matrix"].values() for count in row.values()) == 450
    assert report["dataset"] == {"item_count": 450, "dropped_without_label": 50}


def test_models_of_two_problems_are_not_compared(processing: Paths, classes: Paths) -> None:
    ranker = processing.processing_input("challenger") / "r-g1-abc-ease-0"
    shutil.copytree(ranker, classes.processing_input("challenger") / "ranker")
    with pytest.raises(DataError, match="give families of one problem"):
        evaluation.main(classes)


def test_models_of_two_labels_are_not_compared(classes: Paths, tmp_path: Path) -> None:
    archive = artefact.find_archive(classes.processing_input("champion"))
    assert archive is not None
    other = artefact.unpack(archive, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"label": "another"}))
    pack(other, archive)
    with pytest.raises(DataError, match="predicts 'another', and the first challenger"):
        evaluation.main(classes)
