"""Small sequential interactions: each item calls for a certain next one, so that there is something to learn."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS, STEPS, ITEMS = 120, 15, 40
SECOND = 1_000_000
START = 1_700_000_000 * SECOND
"""Microseconds since 1970, as the timestamps are."""


def interactions(number: int, *, steps: int = STEPS, first_item: int = 1, rating: float = 3.0) -> dict[str, Any]:
    """The columns of the n-th batch: `steps` rows of each user, later than those of the batches before it.

    With another `first_item` every item is new; `rating` is the mean of the ratings.
    """
    dice = np.random.default_rng(number)
    begin = dice.integers(0, ITEMS, USERS)
    astray = dice.integers(0, ITEMS, (steps, USERS)) * (dice.random((steps, USERS)) < 0.1)
    item = first_item + (begin + np.arange(steps)[:, None] + astray) % ITEMS
    rows = steps * USERS
    at = START + (number * STEPS * USERS + np.arange(rows)) * SECOND
    return {
        "user_id": np.tile(np.arange(1, USERS + 1), steps),
        "item_id": item.reshape(-1),
        "rating": np.clip(dice.normal(rating, 0.5, rows), 0, 10),
        "timestamp": pa.array(at, pa.timestamp("us", tz="UTC")),
        "request_id": [f"{number}-{n}" for n in range(rows)],
    }


def parquet(columns: dict[str, Any]) -> bytes:
    """The columns as a file."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def batch(number: int = 0, **changes: Any) -> bytes:
    """The n-th batch as a file."""
    return parquet(interactions(number, **changes))


def predictions(request_ids: Sequence[str], items: Sequence[Sequence[int]]) -> bytes:
    """A log of what was served, as a file."""
    return parquet({"request_id": list(request_ids), "items": pa.array([list(i) for i in items], pa.list_(pa.int64()))})
