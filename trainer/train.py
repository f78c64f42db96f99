"""``python -m trainer train``: hyperparameters, the family's own ``train``, the model directory."""

from __future__ import annotations

import time
from importlib import import_module

import numpy as np

from trainer import artefact, launch, manifest
from trainer.contract import (
    DataError,
    DivergedError,
    HyperparameterError,
    Paths,
    StopRequest,
    parse_hyperparameters,
    read_hyperparameters,
)
from trainer.families import FAMILIES, Job, Trained
from trainer.progress import is_first_process, say


def main(paths: Paths, stop: StopRequest) -> int:
    """The exit code: 0 when trained, and 0 when stopped by SIGTERM with a checkpoint written."""
    began = time.perf_counter()
    raw = read_hyperparameters(paths.hyperparameters)
    name = raw.get("model", "sasrec")
    if name not in FAMILIES:
        raise HyperparameterError(f"hyperparameter 'model' is '{name}'; give one of {', '.join(FAMILIES)}")
    family = import_module(FAMILIES[name].trains)
    p = parse_hyperparameters(family.Hyperparameters, raw)
    workers = getattr(p, "workers", None)
    if launch.is_needed(1 if workers is None else workers, paths):
        if workers is None:
            raise DataError(f"{name} trains on one machine; give an InstanceCount of 1")
        return launch.main(workers, paths, stop)
    say("train_started", model=name, generation=p.generation, seed=p.seed)
    trained = family.train(Job(p=p, paths=paths, stop=stop))
    stop.is_asked = True  # a model half written is worth less than one a moment later
    if trained is not None and is_first_process():
        _check(trained)
        artefact.save(paths.model, trained.arrays, trained.config, manifest.of(p, trained, paths))
    say("train_ended" if trained else "train_stopped", seconds=time.perf_counter() - began)
    return 0


def _check(trained: Trained) -> None:
    """No model would load this one; the loss of the last step can be sound all the same."""
    for name, array in trained.arrays.items():
        if not np.isfinite(array).all():
            raise DivergedError(f"{name} holds what is no number; give a smaller learning_rate or more regularisation")
