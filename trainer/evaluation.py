"""``python -m trainer evaluate``: challengers, champion and baselines over the same cases, as evaluation.json.

Each challenger is also compared with the champion unit by unit (``against_champion``), and gets a report of its own in
the form that SageMaker's model registry shows, ``model_quality/<training job>.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import artefact, bootstrap
from trainer.bootstrap import Metrics, Scores
from trainer.contract import ArtefactError, DataError, Paths
from trainer.families import problem_of
from trainer.progress import say
from trainer.tensors import write_bytes

VERSION = 1


@dataclass(frozen=True, slots=True)
class Measured:
    scores: Scores
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One problem (a module) and the cases that every model answers."""

    problem: Any
    cases: Any
    label: str | None  # the column that all of them predict, where the problem has one

    @classmethod
    def of(cls, config: dict[str, Any], paths: Paths) -> Evaluation:
        problem = problem_of(config)
        train, holdout = paths.processing_input("train"), paths.processing_input("holdout")
        found = cls(problem, problem.cases(train, holdout, config), config.get("label"))
        say("evaluation_started", problem=problem.__name__, cases=len(found.cases))
        return found

    def measured(self, name: str, predictor: Any) -> Measured:
        scores = self.problem.score(predictor, self.cases)
        metrics = bootstrap.intervals(scores, self.problem.METRIC_NAMES)
        say("measured", model=name, **{metric: value["value"] for metric, value in metrics.items()})
        return Measured(scores, metrics)


def main(paths: Paths) -> int:
    began = time.perf_counter()
    archives = _archives(paths.processing_input("challenger"))
    evaluation = Evaluation.of(_first_readable(archives).config, paths)
    champion = _champion(paths.processing_input("champion"), evaluation)
    baselines = evaluation.problem.baselines(evaluation.cases).items()
    result = {
        "version": VERSION,
        "rows": evaluation.cases.rows_held_out,
        "cases": len(evaluation.cases),
        "metric_names": list(evaluation.problem.METRIC_NAMES),
        "champion": None if champion is None else {"metrics": champion.metrics},
        "challengers": list(_challengers(archives, champion, evaluation, paths)),
        "baselines": {name: {"metrics": evaluation.measured(name, model).metrics} for name, model in baselines},
    }
    _write(paths.evaluation, result)
    say("evaluation_ended", seconds=time.perf_counter() - began)
    return 0


def _archives(folder: Path) -> dict[str, Path]:
    """``<training job>/output/model.tar.gz`` by job name; at least one is required."""
    archives = sorted(folder.rglob("model.tar.gz")) if folder.is_dir() else []
    if not archives:
        raise ArtefactError(f"{folder}: no challenger; give <training job>/output/model.tar.gz")
    return {archive.relative_to(folder).parts[0]: archive for archive in archives}


def _first_readable(archives: dict[str, Path]) -> artefact.Model:
    for archive in archives.values():
        try:
            return artefact.load_archive(archive)
        except ArtefactError as error:
            refused = error
    raise refused


def _challengers(
    archives: dict[str, Path], champion: Measured | None, evaluation: Evaluation, paths: Paths
) -> Iterator[dict[str, Any]]:
    """One model at a time is in memory."""
    for job, archive in archives.items():
        try:
            model = artefact.load_archive(archive)
        except ArtefactError as error:
            # SageMaker uploads what a stopped spot job leaves; the job that finished its work is beside it.
            say("challenger_skipped", job=job, reason=str(error))
            continue
        _same_problem(model, archive, evaluation)
        measured = evaluation.measured(job, model.predictor)
        report = evaluation.problem.quality(model.predictor, evaluation.cases, measured.metrics)
        _write(paths.evaluation.parent / "model_quality" / f"{job}.json", report)
        yield {
            "job": job,
            "model_data": f"models/{archive.relative_to(paths.processing_input('challenger')).as_posix()}",
            "metrics": measured.metrics,
            "against_champion": _against(champion, measured, evaluation),
        }


def _against(champion: Measured | None, measured: Measured, evaluation: Evaluation) -> dict[str, Any] | None:
    if champion is None:
        return None
    return bootstrap.paired(measured.scores, champion.scores, evaluation.problem.METRIC_NAMES)


def _champion(folder: Path, evaluation: Evaluation) -> Measured | None:
    archive = artefact.find_archive(folder)
    if archive is None:
        return None
    model = artefact.load_archive(archive)
    _same_problem(model, archive, evaluation)
    return evaluation.measured("champion", model.predictor)


def _same_problem(model: artefact.Model, archive: Path, evaluation: Evaluation) -> None:
    other = problem_of(model.config)
    if other is not evaluation.problem:
        raise DataError(
            f"{archive}: solves {other.__name__}, and the first challenger {evaluation.problem.__name__}; "
            "give families of one problem, and another problem a model of its own"
        )
    label = model.config.get("label")
    if label != evaluation.label:
        raise DataError(f"{archive}: predicts '{label}', and the first challenger '{evaluation.label}'; give one label")


def _write(file: Path, value: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
