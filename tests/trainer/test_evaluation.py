from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer import evaluation, train
from trainer.contract import ArtefactError, Paths, StopRequest

from .conftest import cycle, pack, write_parquet

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
        assert set(metric) == {"value", "low", "high"}
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
        assert set(entry) == {"job", "model_data", "metrics"}
        assert entry["model_data"] == f"models/{entry['job']}/output/model.tar.gz"


def test_the_better_challenger_has_the_better_metrics(processing: Paths) -> None:
    ndcg = {entry["job"]: entry["metrics"]["ndcg_at_10"]["value"] for entry in run(processing)["challengers"]}
    assert ndcg["r-g1-abc-ease-0"] > ndcg["r-g1-abc-small-0"]


def test_the_champion_answers_the_same_cases(processing: Paths) -> None:
    challengers = processing.processing_input("challenger")
    same = challengers / "r-g1-abc-ease-0" / "output" / "model.tar.gz"
    (processing.processing_input("champion") / "none.json").unlink()
    (processing.processing_input("champion") / "model.tar.gz").write_bytes(same.read_bytes())
    result = run(processing)
    by_job = {entry["job"]: entry["metrics"] for entry in result["challengers"]}
    assert result["champion"]["metrics"] == by_job["r-g1-abc-ease-0"]


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
