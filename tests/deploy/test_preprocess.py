"""Preprocess: every row ends up in exactly one file, sorted by time, nothing of the future in training."""

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrainer.local.aws import LocalAws
from steps.errors import DataError
from steps.objects import ObjectFile, Uri
from steps.parquet import Part, open_part
from steps.preprocess import Split, preprocess, split_by_time
from steps.validate import validate
from tests.deploy.aws_clients import client
from tests.deploy.batches import START, batch, parquet, put, request

REQUIRED = ["user_id", "item_id", "timestamp"]


def split(tables: list[pa.Table], folder: Path, share: float = 0.1, slice_rows: int = 1000) -> Split:
    return split_by_time([_part(n, t) for n, t in enumerate(tables)], REQUIRED, "timestamp", share, folder, slice_rows)


def read(folder: Path, name: str) -> pa.Table:
    return pq.read_table(folder / f"{name}.parquet")


def test_the_newest_share_is_the_holdout(tmp_path: Path) -> None:
    assert split([batch(0, 90), batch(90, 10)], tmp_path) == Split(train_rows=90, holdout_rows=10, dropped_rows=0)
    assert read(tmp_path, "train")["user_id"].to_pylist() == list(range(90))
    assert read(tmp_path, "holdout")["user_id"].to_pylist() == list(range(90, 100))


@pytest.mark.parametrize("slice_rows", [1, 7, 64, 10_000])
def test_rows_are_sorted_whatever_the_order_of_batches_and_the_size_of_slices(tmp_path: Path, slice_rows: int) -> None:
    rng = np.random.default_rng(7)
    shuffled = batch(0, 300).take(pa.array(rng.permutation(300)))
    split([shuffled.slice(200), shuffled.slice(0, 120), shuffled.slice(120, 80)], tmp_path, 0.25, slice_rows)
    both = [*read(tmp_path, "train")["user_id"].to_pylist(), *read(tmp_path, "holdout")["user_id"].to_pylist()]
    assert both == list(range(300))
    assert read(tmp_path, "holdout").num_rows == 75


def test_rows_of_one_moment_are_never_parted_and_keep_their_order(tmp_path: Path) -> None:
    moments = [0] * 5 + [1] * 5
    table = batch(0, 10).set_column(2, "timestamp", _minutes(moments))
    assert split([table], tmp_path, 0.1, slice_rows=2) == Split(train_rows=5, holdout_rows=5, dropped_rows=0)
    assert read(tmp_path, "holdout")["user_id"].to_pylist() == [5, 6, 7, 8, 9]


def test_rows_that_lack_a_required_value_are_left_out_and_counted(tmp_path: Path) -> None:
    table = batch(0, 20).set_column(1, "item_id", pa.array([None, *range(19)], pa.int64()))
    assert split([table], tmp_path).dropped_rows == 1
    assert read(tmp_path, "train")["user_id"].to_pylist()[0] == 1


def test_batches_may_differ_in_order_width_and_further_columns(tmp_path: Path) -> None:
    narrow = batch(0, 10).set_column(0, "user_id", pa.array(range(10), pa.int32()))
    wide = (
        batch(10, 10)
        .append_column("rating", pa.array([0.5] * 10))
        .select(["rating", "timestamp", "item_id", "user_id"])
    )
    split([narrow, wide], tmp_path)
    train = read(tmp_path, "train")
    assert train.schema.names == ["user_id", "item_id", "timestamp", "rating"]
    assert train.schema.field("user_id").type == pa.int64()
    assert train["rating"].to_pylist() == [None] * 10 + [0.5] * 8


def test_a_further_column_whose_types_cannot_be_reconciled_is_left_out(tmp_path: Path) -> None:
    text = batch(0, 10).append_column("note", pa.array(["a"] * 10))
    number = batch(10, 10).append_column("note", pa.array([1] * 10))
    split([text, number, text], tmp_path)
    assert "note" not in read(tmp_path, "train").schema.names


def test_a_required_column_whose_types_cannot_be_reconciled_is_named(tmp_path: Path) -> None:
    text = batch(10, 10).set_column(1, "item_id", pa.array(["x"] * 10))
    with pytest.raises(DataError, match="part 1: the column 'item_id' is string but int64 in earlier objects"):
        split([batch(0, 10), text], tmp_path)


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("ns", tz="UTC"), pa.timestamp("ms", tz="Asia/Tokyo")])
def test_timestamps_of_any_unit_and_zone_become_utc_microseconds(tmp_path: Path, kind: pa.DataType) -> None:
    table = batch(0, 20)
    split([table.set_column(2, "timestamp", table["timestamp"].cast(kind))], tmp_path)
    assert read(tmp_path, "train")["timestamp"].to_pylist()[0] == START
    assert read(tmp_path, "train").schema.field("timestamp").type == pa.timestamp("us", tz="UTC")


def test_rows_of_a_single_moment_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be split by time"):
        split([batch(0, 5).set_column(2, "timestamp", _minutes([3] * 5))], tmp_path)


def test_no_usable_row_is_an_error(tmp_path: Path) -> None:
    empty = batch(0, 3).set_column(1, "item_id", pa.nulls(3, pa.int64()))
    with pytest.raises(DataError, match="No row has a value in every required column"):
        split([empty], tmp_path)


def test_pages_that_are_damaged_behind_a_good_footer_are_named(tmp_path: Path) -> None:
    body = bytearray(parquet(batch(0, 5000), compression="zstd"))
    body[4:3000] = bytes(2996)
    with pytest.raises(DataError, match="damaged cannot be read to its end"):
        split_by_time([open_part("damaged", pa.BufferReader(bytes(body)))], REQUIRED, "timestamp", 0.1, tmp_path)


def test_without_a_champion_its_channel_is_not_empty(bucket: str, model: str) -> None:
    execution, _ = _validated(bucket, model)
    assert preprocess(bucket, execution) == {"train_rows": 90, "holdout_rows": 10, "dropped_rows": 0}
    assert _keys(bucket, execution) >= {"train/train.parquet", "holdout/holdout.parquet", "champion/none.json"}


def test_preprocessing_twice_gives_the_same_files(bucket: str, model: str) -> None:
    execution, _ = _validated(bucket, model)
    preprocess(bucket, execution)
    first = _keys(bucket, execution)
    preprocess(bucket, execution)
    assert _keys(bucket, execution) == first


def test_an_object_replaced_after_validation_is_refused(bucket: str, model: str) -> None:
    execution, _ = _validated(bucket, model)
    put(bucket, model, [parquet(batch(0, 99))])
    with pytest.raises(DataError, match="has changed since the manifest was written"):
        preprocess(bucket, execution)


def test_an_object_replaced_in_mid_reading_is_refused(bucket: str) -> None:
    s3 = client("s3")
    s3.put_object(Bucket=bucket, Key="data/x", Body=b"first version")
    file = ObjectFile(s3, Uri(bucket, "data/x"))
    assert file.read(5) == b"first"
    s3.put_object(Bucket=bucket, Key="data/x", Body=b"second version")
    with pytest.raises(DataError, match="changed while it was read"):
        file.read(5)


def test_the_processing_job_runs_the_same_function(aws: LocalAws, bucket: str, model: str) -> None:
    execution, _ = _validated(bucket, model)
    deploy = str(Path(__file__).resolve().parents[2] / "deploy")
    arguments = ["-m", "steps.preprocess", "--bucket", bucket, "--execution", execution]
    subprocess.run([sys.executable, *arguments], env={**aws.env, "PYTHONPATH": deploy}, check=True)
    assert "train/train.parquet" in _keys(bucket, execution)


def _validated(bucket: str, model: str) -> tuple[str, dict[str, object]]:
    execution, given = request(bucket, model, put(bucket, model, [parquet(batch(0, 100))]))
    return execution, validate(given, execution)


def _keys(bucket: str, execution: str) -> set[str]:
    prefix = f"executions/{execution}/"
    found = client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    return {listed["Key"].removeprefix(prefix) for listed in found}


def _part(number: int, table: pa.Table) -> Part:
    return open_part(f"part {number}", pa.BufferReader(parquet(table, row_group_size=50)))


def _minutes(numbers: list[int]) -> pa.Array:
    moments: list[datetime] = [START + timedelta(minutes=n) for n in numbers]
    return pa.array(moments, pa.timestamp("us", tz="UTC"))
