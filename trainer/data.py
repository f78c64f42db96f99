"""Interactions: from parquet to sorted arrays, and from arrays to one sequence a user.

Shapes: N interactions, U users, I items of a catalogue, T one user's interactions.
Order is time, then user, then a hash of the item. MovieLens users rate a page of films within one second; breaking
those ties by the item's id would let a model learn the order of the file instead of the taste of the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer.contract import DataError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

COLUMNS = {"user_id": pa.int64(), "item_id": pa.int64(), "timestamp": pa.timestamp("us", tz="UTC")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """Rows in time order; ``time_N`` in microseconds since 1970."""

    user_N: IntArray
    item_N: IntArray
    time_N: IntArray

    def __len__(self) -> int:
        return len(self.user_N)

    def rows(self, chosen: slice) -> Interactions:
        return Interactions(user_N=self.user_N[chosen], item_N=self.item_N[chosen], time_N=self.time_N[chosen])


def read(*folders: Path) -> Interactions:
    """Every ``*.parquet`` under the folders as one table; raises DataError with the file and what to give instead."""
    files = [file for folder in folders for file in parquet_files(folder, "the interactions")]
    tables = [_read_file(file) for file in files]
    table = pa.concat_tables(tables)
    if table.num_rows == 0:
        raise DataError(f"{files[0]}: no rows; give at least one interaction (columns {', '.join(COLUMNS)})")
    user_N, item_N, time_N = (
        pc.cast(table[name], pa.int64()).to_numpy().astype(np.int64, copy=False) for name in COLUMNS
    )
    return in_order(user_N, item_N, time_N)


def parquet_files(folder: Path, what: str) -> list[Path]:
    """Those under a folder, one at least; raises DataError, which asks for ``what``."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(f"{folder}: no .parquet file found; put {what} there, e.g. {folder.name}.parquet")
    return files


def in_order(user_N: IntArray, item_N: IntArray, time_N: IntArray) -> Interactions:
    order_N = order_of(user_N, item_N, time_N)
    return Interactions(user_N=user_N[order_N], item_N=item_N[order_N], time_N=time_N[order_N])


def order_of(user_N: IntArray, item_N: IntArray, time_N: IntArray) -> IntArray:
    return np.lexsort((_mix(item_N), user_N, time_N))


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """What Arrow and the disk say of a file inside, as a DataError that names it."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: not a readable parquet file (truncated?): {error}") from error


def _read_file(file: Path) -> pa.Table:
    with readable(file):
        schema = pq.read_schema(file)
        for name in COLUMNS:
            if name not in schema.names:
                raise DataError(
                    f"{file}: column '{name}' is missing; it has {', '.join(schema.names)}; "
                    f"give {', '.join(f'{key} ({kind})' for key, kind in COLUMNS.items())}"
                )
        table = pq.read_table(file, columns=list(COLUMNS))
    for name, kind in COLUMNS.items():
        if table[name].null_count:
            raise DataError(f"{file}: column '{name}' has {table[name].null_count} nulls; drop or fill those rows")
        try:
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"{file}: column '{name}' is {table[name].type}, give {kind}: {error}") from error
    return table


def _mix(value_N: IntArray) -> npt.NDArray[np.uint64]:
    """A fixed scrambling of 64-bit integers (the finaliser of splitmix64, Steele et al. 2014)."""
    mixed_N = value_N.astype(np.uint64)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed_N ^ (mixed_N >> np.uint64(31))


def catalogue(interactions: Interactions) -> IntArray:
    """The item ids of the interactions, ascending: a model's index of an item is its place here."""
    return np.unique(interactions.item_N)


def catalogue_of(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[IntArray, FloatArray]:
    """A stored model's ``item_I`` and ``popularity_I``; raises ValueError where they are no catalogue."""
    item_I, popularity_I = arrays["item_I"], arrays["popularity_I"]
    # Not by np.diff: ids that are hashes lie further apart than an int64 can say.
    if item_I.dtype != np.int64 or item_I.ndim != 1 or not np.all(item_I[1:] > item_I[:-1]):
        raise ValueError("item_I must be ascending int64")
    if popularity_I.dtype != np.float32 or popularity_I.shape != item_I.shape:
        raise ValueError("popularity_I must be float32, of the length of item_I")
    return item_I, popularity_I


def index_of(item_I: IntArray, item_N: IntArray) -> IntArray:
    """The place of each item in the ascending ``item_I``, -1 where it is not there."""
    if len(item_I) == 0:
        return np.full(len(item_N), -1, dtype=np.int64)
    place_N = np.minimum(np.searchsorted(item_I, item_N), len(item_I) - 1)
    return np.where(item_I[place_N] == item_N, place_N, -1)


def sequences(interactions: Interactions) -> Iterator[tuple[int, IntArray]]:
    """``(user, positions_T)`` for every user ascending; positions point into ``interactions``, oldest first."""
    order_N = np.argsort(interactions.user_N, kind="stable")
    users_N = interactions.user_N[order_N]
    starts_U = np.flatnonzero(np.r_[True, users_N[1:] != users_N[:-1]]) if len(users_N) else np.zeros(0, np.int64)
    for start, stop in zip(starts_U, np.r_[starts_U[1:], len(users_N)], strict=True):
        yield int(users_N[start]), order_N[start:stop]


def validation_split(train: Interactions, share: float) -> tuple[Interactions, Interactions]:
    """Earlier and later rows; all rows of one moment stay together, and the earlier part is never empty."""
    cut = len(train) - int(len(train) * share)
    cut = int(np.searchsorted(train.time_N, train.time_N[cut])) if cut < len(train) else cut
    cut = cut if cut > 0 else len(train)
    return train.rows(slice(0, cut)), train.rows(slice(cut, None))
