from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer import data
from trainer.contract import DataError, Paths


def write(file: Path, **columns: object) -> None:
    pq.write_table(pa.table(columns), file)


def test_a_truncated_file_is_named(job: Callable[..., Paths]) -> None:
    file = job("one").channel("train") / "train.parquet"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"train\.parquet: not a readable parquet file"):
        data.read(file.parent)


def test_a_missing_column_is_named_with_what_to_give(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", user_id=[1], item_id=[2])
    with pytest.raises(DataError, match=r"train\.parquet: column 'timestamp' is missing.*timestamp\[us, tz=UTC\]"):
        data.read(tmp_path)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", user_id=["a"], item_id=[2], timestamp=pa.array([1], pa.timestamp("us", tz="UTC")))
    with pytest.raises(DataError, match=r"column 'user_id' is string, give int64"):
        data.read(tmp_path)


def test_nulls_are_refused(tmp_path: Path) -> None:
    write(
        tmp_path / "t.parquet", user_id=[1, None], item_id=[2, 2], timestamp=pa.array([1, 2], pa.timestamp("us", "UTC"))
    )
    with pytest.raises(DataError, match="column 'user_id' has 1 nulls"):
        data.read(tmp_path)


def test_no_file_and_no_rows_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.parquet file"):
        data.read(tmp_path)
    empty = pa.array([], pa.int64())
    write(tmp_path / "e.parquet", user_id=empty, item_id=empty, timestamp=pa.array([], pa.timestamp("us", "UTC")))
    with pytest.raises(DataError, match=r"e\.parquet: no rows"):
        data.read(tmp_path)


def test_further_columns_and_several_files_are_fine_and_rows_come_in_time_order(tmp_path: Path) -> None:
    for name, moments in (("a", [30, 10]), ("b", [20])):
        count = len(moments)
        write(
            tmp_path / f"{name}.parquet",
            user_id=[1] * count,
            item_id=moments,
            timestamp=pa.array(moments, pa.timestamp("us", "UTC")),
            note=["x"] * count,
        )
    assert data.read(tmp_path).item_N.tolist() == [10, 20, 30]


def test_a_holdout_channel_is_learned_from_too_and_may_not_be_empty(job: Callable[..., Paths]) -> None:
    paths = job("one")
    before = len(data.read(*paths.learned))
    holdout = paths.channel("holdout")
    holdout.mkdir()
    with pytest.raises(DataError, match=r"holdout: no \.parquet file found; put the interactions there"):
        data.read(*paths.learned)
    write(holdout / "h.parquet", user_id=[1], item_id=[2], timestamp=pa.array([0], pa.timestamp("us", "UTC")))
    found = data.read(*paths.learned)
    assert (len(found), int(found.time_N[0])) == (before + 1, 0)


def test_ties_do_not_follow_the_item_id() -> None:
    item_N = np.arange(100)
    ordered = data.in_order(np.zeros(100, np.int64), item_N, np.zeros(100, np.int64)).item_N
    assert sorted(ordered.tolist()) == item_N.tolist()
    assert abs(np.corrcoef(ordered, item_N)[0, 1]) < 0.3


def test_an_unknown_item_has_no_index() -> None:
    assert data.index_of(np.array([2, 5, 9]), np.array([5, 1, 9, 10])).tolist() == [1, -1, 2, -1]
    assert data.index_of(np.array([], dtype=np.int64), np.array([5])).tolist() == [-1]
