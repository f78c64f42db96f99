"""Which models there are: for each family the module of its problem, the one that trains it and the one that loads it.

Modules are named, not imported: EASE trains without torch, and all but the CNN are evaluated and served without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainer.bootstrap import Metrics
from trainer.contract import ArtefactError, Paths, StopRequest
from trainer.progress import say
from trainer.tensors import Tensors

if TYPE_CHECKING:
    from trainer import artefact


@dataclass(frozen=True, slots=True)
class Family:
    problem: str
    """Has METRIC_NAMES, cases (which have a length), score, baselines, quality and answer."""
    trains: str
    """Has the dataclass ``Hyperparameters`` and ``train(job: Job) -> Trained | None``."""
    loads: str
    """Has ``load(arrays, config)``: the predictor; one of ``artefact.UNFIT`` for what does not fit."""


FAMILIES = {
    "sasrec": Family("trainer.ranking", "trainer.recommender", "trainer.recommender_numpy"),
    "ease": Family("trainer.ranking", "trainer.ease", "trainer.ease"),
    "cnn": Family("trainer.classification", "trainer.cnn", "trainer.cnn"),
    "tabular": Family("trainer.classification", "trainer.tabular", "trainer.tabular"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a family's ``train`` is given; ``p`` is that family's ``Hyperparameters``."""

    p: Any
    paths: Paths
    stop: StopRequest

    def champion(self) -> artefact.Model | None:
        """The champion to start from; one that cannot be read costs the warm start, not the retraining."""
        from trainer import artefact  # which asks FAMILIES how to load

        try:
            archive = artefact.find_archive(self.paths.channel("champion"))
            return None if archive is None else artefact.load_archive(archive)
        except ArtefactError as error:
            say("champion_refused", detail=str(error))
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a family's ``train`` gives back; None instead when a SIGTERM stopped it and the checkpoint is written."""

    arrays: Tensors
    config: dict[str, Any]
    """Whatever ``load`` needs beside the tensors; must hold ``family``."""
    metrics: Metrics
    """On the validation rows; empty where none were held back."""
    rows: int
    first_at: int
    """The moment of the first row, in microseconds since 1970; ``last_at`` likewise."""
    last_at: int
    parent: str | None
    """The champion's ``weights_sha256`` after a warm start."""


def problem_of(config: dict[str, Any]) -> Any:
    """The problem's module, by the ``family`` of a model's config."""
    return import_module(FAMILIES[config["family"]].problem)
