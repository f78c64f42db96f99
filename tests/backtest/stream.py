"""A synthetic stream of two features and a label, whose concept may turn round once; and policies on it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrainer.core.policy import Policy

START = datetime(2025, 1, 1, tzinfo=UTC)
MACHINE = "arn:aws:states:eu-west-1:111111111111:stateMachine:retraining"


def rows(day: int, *, turned: bool, count: int = 200, seed: int = 0) -> pa.Table:
    """One day's rows. Turned, x moves by three, and the label is by the other side of it."""
    random = np.random.default_rng([seed, day])
    x = random.normal(3.0 if turned else 0.0, 1.0, count)
    y = random.normal(0.0, 1.0, count)
    above = x - (3.0 if turned else 0.0) + 0.3 * y > 0
    label = np.where(random.random(count) < 0.05, ~above, above) ^ turned
    moments = [START + timedelta(days=day, seconds=86_400 * n / count) for n in range(count)]
    return pa.table({"id": [f"{day}-{n}" for n in range(count)], "x": x, "y": y, "label": label, "at": moments})


def write(folder: Path, *, days: int = 30, turns_at: int | None = 15, count: int = 200) -> Path:
    """A folder with a file a day."""
    folder.mkdir(parents=True, exist_ok=True)
    for day in range(days):
        turned = turns_at is not None and day >= turns_at
        name = f"{START + timedelta(days=day):%Y-%m-%d}.parquet"
        pq.write_table(rows(day, turned=turned, count=count), folder / name)
    return folder


def policy(**changes: Any) -> Policy:
    """Two watched features, logged predictions; drift and performance ask for a retraining."""
    told: dict[str, Any] = {
        "model": "stream",
        "data": {
            "bucket": "data",
            "prefix": "data/stream/",
            "timestamp": "at",
            "columns": {
                "x": {"kind": "numerical", "test": "wasserstein", "threshold": 0.3},
                "y": {"kind": "numerical", "test": "wasserstein", "threshold": 0.3},
            },
            "predictions": {
                "prefix": "predictions/stream/",
                "key": "id",
                "prediction": "predicted",
                "label": "label",
                "metric": "accuracy",
                "batches": 4,
            },
        },
        "windows": {"reference": {"of": "training", "batches": 5}, "current": {"batches": 4}, "training_batches": 5},
        "triggers": {"drift": {"share": 0.5}, "performance": {"drop": 0.2, "labels_min": 100}},
        "guards": {"cooldown": "12h", "backoff": {"after": 2, "first": "1d", "most": "2d"}},
        "costs": {"currency": "EUR", "execution": 20.0, "error": 1.0},
        "action": {"state_machine": MACHINE, "candidates": [{"name": "tree"}], "holdout_share": 0.2},
        "gate": {"metric": "accuracy", "min_gain": -1.0},
        "backtest": {"family": "logistic_regression"},
    }
    return Policy.model_validate(told | changes)
