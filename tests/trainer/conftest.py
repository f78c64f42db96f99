"""Synthetic interactions and job directories: small enough to train on for real in a test."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.contract import Paths
from trainer.data import Interactions, in_order

ITEMS = 120


def cycle(users: int = 150, length: int = 25, seed: int = 0, items: int = ITEMS) -> Interactions:
    """Users walk round a ring of items (ids 1000, 1001, ...), skipping now and then: the last item tells the next."""
    draws = np.random.default_rng(seed)
    user_N = np.repeat(np.arange(users), length)
    step_UT = draws.choice([1, 2], p=[0.85, 0.15], size=(users, length))
    place_UT = (draws.integers(0, items, size=(users, 1)) + np.cumsum(step_UT, axis=1)) % items
    start_U = draws.integers(0, 10_000, size=users)
    time_UT = (start_U[:, None] + np.arange(length)[None, :] * 100) * 1_000_000
    return in_order(user_N, 1000 + place_UT.reshape(-1), time_UT.reshape(-1).astype(np.int64))


def write_parquet(file: Path, rows: Interactions) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "user_id": rows.user_N,
        "item_id": rows.item_N,
        "rating": np.ones(len(rows)),
        "timestamp": pa.array(rows.time_N, pa.timestamp("us", tz="UTC")),
    }
    pq.write_table(pa.table(columns), file)


def pack(model: Path, archive: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for file in sorted(model.iterdir()):
            tar.add(file, file.name)
    return archive


def lay_out(paths: Paths, hyperparameters: dict[str, str], rows: Interactions | None = None) -> Paths:
    """One training job's input; no rows means ``cycle()``."""
    write_parquet(paths.channel("train") / "train.parquet", cycle() if rows is None else rows)
    paths.hyperparameters.parent.mkdir(parents=True, exist_ok=True)
    paths.hyperparameters.write_text(json.dumps(hyperparameters))
    return paths


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Paths]:
    """``job("name", rows, epochs="3", ...)`` lays out one training job under the test's own folder."""

    def named(name: str, rows: Interactions | None = None, **hyperparameters: str) -> Paths:
        return lay_out(Paths(tmp_path / name), hyperparameters, rows)

    return named
