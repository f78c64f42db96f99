"""Others' models on the same splits, in the same session: implicit on the sets, RecTools' SASRec on the next item.

Each runs in a process of the peers' environment (`make bench-trainer` makes it), one thread, and gives back lists of
items; the metric is ours, so that nothing differs but the model. CPU seconds: fitting, without imports and ranking.
Settings are the best of `searched` on validation rows; `python -m bench.trainer.peers` plays the search again.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.trainer import splits
from bench.trainer.measured import MOVIELENS_100K, PEERS_PYTHON, Row, items_of, next_ndcg, set_ndcg
from bench.trainer.sets import SEEDS
from trainer.data import IntArray, Interactions
from trainer.ranking import cases_of

SIDE = Path(__file__).with_name("peer_side.py")
SEQUENCE_SEEDS = range(1)
"""One: RecTools takes minutes of CPU time on each split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    model: str
    name: str
    chosen: dict[str, Any]
    searched: dict[str, Sequence[Any]]


SETS = (
    Peer(
        model="als",
        name="implicit ALS",
        chosen={"factors": 24, "regularization": 60.0, "weight": 10.0, "iterations": 15},
        searched={"factors": (16, 20, 24, 32), "regularization": (30.0, 60.0, 100.0), "weight": (5.0, 10.0)},
    ),
    Peer(
        model="bpr",
        name="implicit BPR",
        chosen={"factors": 16, "learning_rate": 0.01, "regularization": 0.05, "iterations": 400},
        searched={"factors": (16, 64), "learning_rate": (0.01, 0.05), "regularization": (0.01, 0.05)},
    ),
    Peer(model="cosine", name="implicit item-item, cosine", chosen={"K": 1682}, searched={"K": (50, 200, 400, 1682)}),
    Peer(model="tfidf", name="implicit item-item, TF-IDF", chosen={"K": 1682}, searched={"K": (50, 200, 400, 1682)}),
    Peer(
        model="bm25",
        name="implicit item-item, BM25",
        chosen={"K": 1682, "K1": 100.0, "B": 0.25},
        searched={"K": (200, 400, 1682), "K1": (1.2, 10.0, 100.0), "B": (0.25, 0.5)},
    ),
)
SASREC = Peer(
    model="sasrec",
    name="RecTools SASRec",
    chosen={"n_factors": 64, "n_blocks": 1, "n_heads": 1, "session_max_len": 50, "lr": 0.003, "epochs": 60},
    searched={"lr": (0.003,), "epochs": (30, 60, 100)},
)
"""On validation rows .0888, .0961 and .0958 at 64, 131 and 226 CPU seconds: more epochs than 60 do not help it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to rank for: each case's user and what that user had until then."""

    user_C: IntArray
    history_C: list[IntArray]


@dataclass(frozen=True, slots=True)
class Found:
    items_CK: IntArray
    cpu_seconds: float
    version: str


def rows() -> Iterator[Row]:
    if not PEERS_PYTHON.exists():
        print(f"  {PEERS_PYTHON} is not there: the peers are left out (make bench-trainer makes it)", flush=True)
        return
    ratings = splits.read(MOVIELENS_100K)
    for peer in SETS:
        row = Row(task="ML-100K sets, 75/25", model=peer.name, metric="nDCG@10")
        for seed in SEEDS:
            _on_sets(peer, peer.chosen, seed, *splits.set_split(ratings, seed), row)
        yield row
    for task, split in (
        ("leave-one-out", splits.leave_one_out(ratings)),
        ("rolling next item", splits.rolling(ratings)),
    ):
        row = Row(task=f"ML-100K {task}", model=SASREC.name, metric="nDCG@10")
        for seed in SEQUENCE_SEEDS:
            _on_next(SASREC, SASREC.chosen, seed, split.train, split.test, row)
        yield row


def _on_sets(
    peer: Peer, settings: dict[str, Any], seed: int, train: Interactions, test: Interactions, row: Row
) -> None:
    history, wanted = items_of(train), items_of(test)
    asked = Asked(np.array(list(wanted)), [history[user] for user in wanted])
    found = ranked(peer.model, settings, seed, train, asked)
    _note(row, found, set_ndcg(found.items_CK, wanted.values()), settings)


def _on_next(
    peer: Peer, settings: dict[str, Any], seed: int, train: Interactions, test: Interactions, row: Row
) -> None:
    users = cases_of(train, test).users
    history_C = [user.item_T[:position] for user in users for position in user.position_C]
    wanted_C = [int(user.item_T[position]) for user in users for position in user.position_C]
    found = ranked(peer.model, settings, seed, train, Asked(np.arange(len(history_C)), history_C))
    _note(row, found, next_ndcg(found.items_CK, wanted_C), settings)


def _note(row: Row, found: Found, value: float, settings: dict[str, Any]) -> None:
    row.values.append(value)
    row.cpu_seconds.append(found.cpu_seconds)
    row.note = f"peer; {found.version}; " + ", ".join(f"{name} {value}" for name, value in settings.items())


def ranked(model: str, settings: dict[str, Any], seed: int, train: Interactions, asked: Asked) -> Found:
    """The best unseen items of each case by a peer's model trained on ``train``."""
    with tempfile.TemporaryDirectory() as folder:
        job, given, found = (Path(folder) / name for name in ("job.json", "train.npz", "found.npz"))
        job.write_text(json.dumps({"model": model, "settings": settings, "seed": seed}))
        lengths = [len(history_T) for history_T in asked.history_C]
        np.savez(
            given,
            user_N=train.user_N,
            item_N=train.item_N,
            user_C=asked.user_C,
            history_N=np.concatenate(asked.history_C),
            bound_C=np.concatenate([[0], np.cumsum(lengths)]),
        )
        subprocess.run([PEERS_PYTHON, SIDE, job, given, found], check=True, stdout=subprocess.DEVNULL)
        with np.load(found) as told:
            return Found(told["found_CK"], float(told["seconds"]), str(told["version"]))


def search() -> None:
    """The grids, on rows cut out of the training part; prints every point."""
    ratings = splits.read(MOVIELENS_100K)
    for peer in SETS:
        for settings in _grid(peer):
            row = Row(task="", model=peer.name, metric="")
            for seed in SEEDS[:2]:
                train, _ = splits.set_split(ratings, seed)
                _on_sets(peer, settings, seed, *splits.set_split(train, seed), row)
            _say(row, settings)
    split = splits.leave_one_out(ratings)
    for settings in _grid(SASREC):
        row = Row(task="", model=SASREC.name, metric="")
        _on_next(SASREC, settings, 0, split.fit, split.validation, row)
        _say(row, settings)


def _grid(peer: Peer) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*peer.searched.values()):
        yield peer.chosen | dict(zip(peer.searched, values, strict=True))


def _say(row: Row, settings: dict[str, Any]) -> None:
    print(f"{row.model} {settings}: {np.mean(row.values):.4f}, {np.mean(row.cpu_seconds):.1f} CPU s", flush=True)


if __name__ == "__main__":
    search()
