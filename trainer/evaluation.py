"""``python -m trainer evaluate``: challengers, champion and baselines over the same cases, as evaluation.json."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from trainer import artefact, data, evaluate
from trainer.contract import ArtefactError, Paths
from trainer.evaluate import Metrics, UserCases
from trainer.popularity import popularity, recent_popularity
from trainer.progress import say
from trainer.tensors import write_bytes

VERSION = 1


def main(paths: Paths) -> int:
    began = time.perf_counter()
    train = data.read(paths.processing_input("train"))
    holdout = data.read(paths.processing_input("holdout"))
    users = evaluate.cases(train, holdout)
    say("evaluation_started", train_rows=len(train), holdout_rows=len(holdout), users=len(users))
    result = {
        "version": VERSION,
        "rows": len(holdout),
        "cases": sum(len(user.position_C) for user in users),
        "metric_names": list(evaluate.METRIC_NAMES),
        "challengers": _challengers(paths.processing_input("challenger"), users),
        "champion": _champion(paths.processing_input("champion"), users),
        "baselines": {
            name: {"metrics": _measured(name, ranker, users)}
            for name, ranker in (("popularity", popularity(train)), ("recent_popularity", recent_popularity(train)))
        },
    }
    paths.evaluation.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(paths.evaluation, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    say("evaluation_ended", seconds=time.perf_counter() - began)
    return 0


def _challengers(folder: Path, users: list[UserCases]) -> list[dict[str, Any]]:
    """One entry an archive ``<training job>/output/model.tar.gz``, by job name; at least one is required."""
    archives = sorted(folder.rglob("model.tar.gz")) if folder.is_dir() else []
    if not archives:
        raise ArtefactError(f"{folder}: no challenger; give <training job>/output/model.tar.gz")
    entries = []
    for archive in archives:
        try:
            entries.append(_challenger(archive.relative_to(folder), archive, users))
        except ArtefactError as error:
            # SageMaker uploads what a stopped spot job leaves; the job that finished its work is beside it.
            say("challenger_skipped", reason=str(error))
            refused = error
    if not entries:
        raise refused
    return entries


def _challenger(place: Path, archive: Path, users: list[UserCases]) -> dict[str, Any]:
    job = place.parts[0] if len(place.parts) > 1 else archive.parent.name
    return {
        "job": job,
        "model_data": f"models/{place.as_posix()}",
        "metrics": _measured(job, _load(archive).ranker, users),
    }


def _champion(folder: Path, users: list[UserCases]) -> dict[str, Any] | None:
    archive = artefact.find_archive(folder)
    if archive is None:
        return None
    return {"metrics": _measured("champion", _load(archive).ranker, users)}


def _load(archive: Path) -> artefact.Model:
    with tempfile.TemporaryDirectory() as folder:
        return artefact.load(artefact.unpack(archive, Path(folder)))


def _measured(name: str, ranker: evaluate.Ranker, users: list[UserCases]) -> Metrics:
    metrics = evaluate.measure(ranker, users)
    say("measured", model=name, **{metric: value["value"] for metric, value in metrics.items()})
    return metrics
