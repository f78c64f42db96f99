"""A row of the trainer's table, and the metrics that every model's lists are held to, ours and the peers' alike.

Shapes: U users, K ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainer.bootstrap import Scores, intervals
from trainer.data import IntArray, Interactions, sequences

CUTOFF = 10
WHEELS = Path(".cache/wheels")
MOVIELENS_100K = WHEELS / "recbole-1.2.1-py3-none-any.whl"
PEERS_PYTHON = Path(os.environ.get("TRAINER_PEERS", ".venv-trainer-peers/bin/python"))
"""Python of the peers' environment; without it their rows are left out."""


@dataclass(slots=True, kw_only=True)
class Row:
    """One model on one task: a value of the metric and the CPU seconds of training, without ranking, for each seed.

    The first row of a task whose note begins with "peer" is what the others' costs are told against.
    """

    task: str
    model: str
    metric: str
    values: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    interval: list[float] = field(default_factory=list)
    """Of 95 %, over the users of the first seed."""
    note: str = ""

    def add(self, scores: Scores) -> None:
        """The first metric of these scores, as the value of one more seed."""
        told = intervals(scores, [self.metric])[self.metric]
        self.values.append(told["value"])
        self.interval = self.interval or [told["low"], told["high"]]


@contextmanager
def seconds_into(cpu_seconds: list[float]) -> Iterator[None]:
    """Adds the CPU time of the block, children that have been waited for included."""
    before = _cpu()
    yield
    cpu_seconds.append(_cpu() - before)


def _cpu() -> float:
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system


def items_of(rows: Interactions) -> dict[int, IntArray]:
    """What each user consumed, oldest first."""
    return {user: rows.item_N[position_T] for user, position_T in sequences(rows)}


def set_scores(found_UK: Iterable[IntArray], wanted_U: Iterable[IntArray], cutoff: int = CUTOFF) -> Scores:
    """DCG / ideal DCG at the cutoff of each user, with binary relevance; nDCG is the mean.

    The ideal has min(cutoff, number of wanted items) hits: `ndcg_at_k` of microsoft/recommenders (evaluation/
    python_evaluation.py, score_type="binary"; its natural logarithm cancels), which the published figures are told in.
    Lists may be shorter than the cutoff; every user must want something.
    """
    discount_K = 1.0 / np.log2(np.arange(2, cutoff + 2))
    told = []
    for found_K, wanted in zip(found_UK, wanted_U, strict=True):
        hit_K = np.isin(found_K[:cutoff], wanted)
        told.append((hit_K * discount_K[: len(hit_K)]).sum() / discount_K[: min(cutoff, len(wanted))].sum())
    return Scores(np.array(told, dtype=np.float64)[:, None], np.ones(len(told)))


def set_ndcg(found_UK: Iterable[IntArray], wanted_U: Iterable[IntArray], cutoff: int = CUTOFF) -> float:
    return set_scores(found_UK, wanted_U, cutoff).means(["nDCG"])["nDCG"]


def next_ndcg(found_UK: Iterable[IntArray], wanted_U: Iterable[int], cutoff: int = CUTOFF) -> float:
    """The same with a single wanted item each: 1 / log2(1 + rank)."""
    return set_ndcg(found_UK, (np.array([wanted]) for wanted in wanted_U), cutoff)
