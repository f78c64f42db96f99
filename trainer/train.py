"""``python -m trainer train``: read, split by time, fit, select, write the model directory.

The last ``validation_share`` of the rows by time selects the epoch; the finishing pass then learns from those rows too,
since the newest rows are what a retraining is for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainer import artefact, checkpoint, data, ease, evaluate, tensors
from trainer.contract import (
    ArtefactError,
    HyperparameterError,
    Paths,
    StopRequest,
    parse_hyperparameters,
    read_hyperparameters,
)
from trainer.popularity import recent_counts
from trainer.progress import say
from trainer.recommender_numpy import SequenceRanker

if TYPE_CHECKING:
    from trainer.recommender import SasrecHyperparameters, Trainer

FAMILIES = ("sasrec", "ease")


def main(paths: Paths, stop: StopRequest) -> int:
    """The exit code: 0 when trained, and 0 when stopped by SIGTERM with a checkpoint written."""
    began = time.perf_counter()
    raw = read_hyperparameters(paths.hyperparameters)
    family = raw.get("model", "sasrec")
    if family not in FAMILIES:
        raise HyperparameterError(f"hyperparameter 'model' is '{family}'; give one of {', '.join(FAMILIES)}")
    train = data.read(paths.channel("train"))
    say("train_started", model=family, rows=len(train), users=len(np.unique(train.user_N)))
    finished = _train_ease(paths, raw, train) if family == "ease" else _train_sasrec(paths, raw, train, stop)
    say("train_ended" if finished else "train_stopped", seconds=time.perf_counter() - began)
    return 0


def validation_split(train: data.Interactions, share: float) -> tuple[data.Interactions, data.Interactions]:
    """Earlier and later rows; all rows of one moment stay together, and the earlier part is never empty."""
    cut = len(train) - int(len(train) * share)
    cut = int(np.searchsorted(train.time_N, train.time_N[cut])) if cut < len(train) else cut
    cut = cut if cut > 0 else len(train)
    return train.rows(slice(0, cut)), train.rows(slice(cut, None))


# ---- EASE


def _train_ease(paths: Paths, raw: dict[str, str], train: data.Interactions) -> bool:
    p = parse_hyperparameters(ease.EaseHyperparameters, raw)
    fit, validation = validation_split(train, p.validation_share)
    users = evaluate.cases(fit, validation)
    metrics = evaluate.measure(ease.train(fit, p), users) if users else {}
    say("validated", **_values(metrics))
    model = ease.train(train, p)
    config = {"family": "ease", "halflife": p.halflife}
    arrays = artefact.ease_tensors(model, p.neighbours)
    artefact.save(paths.model, arrays, config, _manifest(p, train, metrics, parent=None))
    return True


# ---- SASRec


def _train_sasrec(paths: Paths, raw: dict[str, str], train: data.Interactions, stop: StopRequest) -> bool:
    from trainer.recommender import SasrecHyperparameters  # torch: 3.4 CPU s, and EASE does without

    p = parse_hyperparameters(SasrecHyperparameters, raw)
    if p.dimension % p.heads:
        raise HyperparameterError(f"hyperparameter 'dimension' is {p.dimension}; give a multiple of heads ({p.heads})")
    fit, validation = validation_split(train, p.validation_share)
    item_I = data.catalogue(train)
    champion = _champion(paths) if p.warm_start == "auto" else None
    trainer, parent = _trainer(train, fit, item_I, champion, p)
    fingerprint = _fingerprint(p, train, parent)
    users = evaluate.cases(fit, validation)
    popularity_I = recent_counts(train, item_I)
    measured: dict[int, evaluate.Metrics] = {}

    def validate(weights: dict[str, npt.NDArray[Any]]) -> float | None:
        if not users:
            return None
        metrics = evaluate.measure(SequenceRanker(item_I, popularity_I, weights, p.heads), users)
        measured[trainer.progress.epoch] = metrics
        return metrics["ndcg_at_10"]["value"]

    def after_epoch(seconds: float) -> None:
        at = trainer.progress
        values = _values(measured.get(at.epoch - 1, {}))
        say("epoch_ended", epoch=at.epoch, of=trainer.epochs, train_loss=at.loss, **values, seconds=seconds)

    found = checkpoint.load_newest(paths.checkpoints, fingerprint)
    if found:
        _resume(trainer, found, measured)
    saver = _Saver(paths.checkpoints, p.checkpoint_seconds, trainer, fingerprint, measured, stop)
    if not trainer.run(validate, saver.between_steps, after_epoch):
        saver.save()
        return False
    arrays = {**trainer.weights(), "item_I": item_I, "popularity_I": popularity_I}
    config = {"family": "sasrec", "heads": p.heads, "window": p.window, "dimension": p.dimension, "blocks": p.blocks}
    metrics = measured.get(trainer.progress.best_epoch, {})
    artefact.save(paths.model, arrays, config, _manifest(p, train, metrics, parent))
    return True


def _trainer(
    train: data.Interactions,
    fit: data.Interactions,
    item_I: data.IntArray,
    champion: artefact.Model | None,
    p: SasrecHyperparameters,
) -> tuple[Trainer, str | None]:
    """A trainer on the champion's weights where they fit, and the champion's digest; else a cold one and None."""
    import torch

    from trainer import recommender

    index_N = data.index_of(item_I, train.item_N)
    positions = [position_T for _user, position_T in data.sequences(train)]
    full = [index_N[position_T] for position_T in positions]
    fitted = full if len(fit) == len(train) else [index_N[at_T[at_T < len(fit)]] for at_T in positions]
    feed = recommender.Feed(fit=fitted, full=full, items=len(item_I))
    if champion is not None and isinstance(champion.ranker, SequenceRanker):
        known_I = data.index_of(champion.ranker.item_I, item_I) >= 0
        net = recommender.warm(champion.ranker.weights, champion.ranker.item_I, item_I, fitted, p)
        if net is not None:
            parent = str(champion.manifest["weights_sha256"])
            say("warm_start", parent=parent[:12], new_items=int(np.count_nonzero(~known_I)))
            return recommender.Trainer(net, feed, p, epochs=p.epochs_warm, known_I=torch.from_numpy(known_I)), parent
    say("cold_start", reason="no usable champion" if champion is None else "the champion has another shape")
    net = recommender.cold(fitted, len(item_I), p)
    none_I = torch.zeros(len(item_I), dtype=torch.bool)
    return recommender.Trainer(net, feed, p, epochs=p.epochs, known_I=none_I), None


def _champion(paths: Paths) -> artefact.Model | None:
    """The champion to start from; one that cannot be read costs the warm start, not the retraining."""
    try:
        archive = artefact.find_archive(paths.channel("champion"))
        if archive is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return artefact.load(artefact.unpack(archive, Path(folder)))
    except ArtefactError as error:
        say("champion_refused", detail=str(error))
        return None


# ---- checkpoints


def _resume(trainer: Trainer, found: checkpoint.Checkpoint, measured: dict[int, evaluate.Metrics]) -> None:
    from trainer.recommender import Progress

    trainer.restore(found.tensors, Progress(**found.state["progress"]))
    measured.update({int(epoch): metrics for epoch, metrics in found.state["measured"].items()})
    say("resumed", epoch=trainer.progress.epoch, step=trainer.progress.step)


class _Saver:
    """Asked between two steps: writes a checkpoint when one is due, and says whether to stop."""

    def __init__(
        self,
        folder: Path,
        seconds: float,
        trainer: Trainer,
        fingerprint: str,
        measured: dict[int, evaluate.Metrics],
        stop: StopRequest,
    ) -> None:
        self.folder, self.seconds, self.trainer, self.stop = folder, seconds, trainer, stop
        self.fingerprint, self.measured = fingerprint, measured
        self.saved_at = time.monotonic()

    def between_steps(self) -> bool:
        if self.stop:
            return True
        if time.monotonic() - self.saved_at >= self.seconds:
            self.save()
        return False

    def save(self) -> None:
        at = self.trainer.progress
        state = {"fingerprint": self.fingerprint, "progress": dataclasses.asdict(at), "measured": self.measured}
        file = checkpoint.save(self.folder, at.optimiser_steps, self.trainer.tensors(), state)
        self.saved_at = time.monotonic()
        say("checkpoint_saved", file=file.name, epoch=at.epoch, step=at.step)


def _fingerprint(p: SasrecHyperparameters, train: data.Interactions, parent: str | None) -> str:
    rows = tensors.digest({"user": train.user_N, "item": train.item_N, "time": train.time_N})
    told = json.dumps([dataclasses.asdict(p), rows, parent], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


# ---- what is written beside the weights


def _values(metrics: evaluate.Metrics) -> dict[str, float]:
    return {name: metric["value"] for name, metric in metrics.items()}


def _manifest(p: Any, train: data.Interactions, metrics: evaluate.Metrics, parent: str | None) -> dict[str, Any]:
    return {
        "generation": p.generation,
        "seed": p.seed,
        "hyperparameters": {name: str(value) for name, value in dataclasses.asdict(p).items()},
        "validation": metrics,
        "rows": len(train),
        "trained_until": str(np.datetime64(int(train.time_N[-1]), "us")) + "Z",
        "parent_weights_sha256": parent,
        "training_job": os.environ.get("TRAINING_JOB_NAME"),
        "git_revision": os.environ.get("GIT_REVISION"),
    }
