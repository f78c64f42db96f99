"""The application beside the model: it asks the endpoint, logs what was served, and hands in what was consumed."""

import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrainer.demo.movielens import Quarter

HISTORY = 100
"""Newest items of a user that a request carries."""
SHOWN = 10
"""Items a recommendation shows."""


@dataclass(frozen=True, slots=True)
class Request:
    """A user about to consume `item_id`, which the shop does not know yet; `history` is oldest first."""

    id: str
    user_id: int
    history: tuple[int, ...]
    item_id: int


class Shop:
    """Remembers what every user consumed, as the replay goes on."""

    def __init__(self) -> None:
        self._consumed: dict[int, list[int]] = defaultdict(list)

    def requests(self, quarter: Quarter) -> list[Request]:
        """One before each interaction of the quarter; afterwards the shop remembers them all."""
        users = quarter.rows.column("user_id").to_pylist()
        items = quarter.rows.column("item_id").to_pylist()
        made = []
        for row, (user, item) in enumerate(zip(users, items, strict=True)):
            history = tuple(self._consumed[user][-HISTORY:])
            made.append(Request(f"{quarter.name}-{row}", user, history, item))
            self._consumed[user].append(item)
        return made


def body(requests: Sequence[Request]) -> bytes:
    """The invocation that asks for all of them at once."""
    instances = [{"user_id": r.user_id, "history": list(r.history)} for r in requests]
    return json.dumps({"instances": instances, "k": SHOWN}).encode()


def shown(response: bytes) -> list[list[int]]:
    """The items of each answer, best first."""
    return [[int(item) for item in p["items"]] for p in json.loads(response)["predictions"]]


def ranks(requests: Sequence[Request], answers: Sequence[Sequence[int]]) -> Iterator[int | None]:
    """The place of the consumed item in what was shown, from 0; None when it was not shown."""
    for request, answer in zip(requests, answers, strict=True):
        yield answer.index(request.item_id) if request.item_id in answer else None


@dataclass(slots=True)
class Score:
    """Hits and discounted gain over all requests so far; one relevant item a request, so NDCG is 1/log2(rank + 2)."""

    requests: int = 0
    hits: int = 0
    gain: float = 0.0

    def add(self, places: Iterator[int | None]) -> None:
        for place in places:
            self.requests += 1
            if place is not None:
                self.hits += 1
                self.gain += 1 / math.log2(place + 2)

    @property
    def hit_rate(self) -> float:
        return self.hits / self.requests if self.requests else 0.0

    @property
    def ndcg(self) -> float:
        return self.gain / self.requests if self.requests else 0.0


def predictions(requests: Sequence[Request], answers: Sequence[Sequence[int]]) -> bytes:
    """The log of what was served, as a parquet file."""
    table = pa.table(
        {
            "request_id": pa.array([r.id for r in requests], pa.string()),
            "items": pa.array([list(a) for a in answers], pa.list_(pa.int64())),
        }
    )
    return parquet(table)


def batch(quarter: Quarter, requests: Sequence[Request]) -> bytes:
    """The quarter's interactions, with the id of the request before each where they were asked, as a parquet file."""
    ids = pa.array([r.id for r in requests]) if requests else pa.nulls(quarter.rows.num_rows, pa.string())
    return parquet(quarter.rows.append_column("request_id", ids))


def parquet(table: Any) -> bytes:
    """The table as a file."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
