"""Columns of batches out of a real S3: what can be read is, what cannot is refused with its reason."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retrainer.adapters.datasets import TAIL_BYTES, Datasets, Rows
from retrainer.core.window import Batch, Refusal
from retrainer.drift import values
from retrainer.ports import PermanentError, TransientError
from tests.adapters import emulator, s3_server
from tests.adapters.s3_server import BUCKET, S3

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server.running() as server:
        yield server


@pytest.fixture
def datasets(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Datasets:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return Datasets()


def refused(answer: Rows | Refusal) -> str:
    assert isinstance(answer, Refusal)
    return answer.why


def read(answer: Rows | Refusal) -> Rows:
    assert isinstance(answer, Rows), answer
    return answer


def test_only_the_columns_wanted_are_returned(s3: S3, datasets: Datasets) -> None:
    batch = s3.put("data/m/a.parquet", {"user": [1, None], "item": ["x", "y"], "blob": [b"0", b"1"]})
    rows = read(datasets.read(batch, [("user", "text"), ("user", "number")], required=["blob"]))
    assert rows.count == 2
    assert values.texts(rows.columns["user", "text"]).tolist() == ["1", None]
    assert np.array_equal(values.numbers(rows.columns["user", "number"]), [1.0, np.nan], equal_nan=True)


def test_a_batch_larger_than_the_first_request_is_read_in_ranges(s3: S3, datasets: Datasets) -> None:
    noise = np.random.default_rng(0).normal(size=(3, 100_000))
    batch = s3.put("data/m/large.parquet", {"a": noise[0], "b": noise[1], "c": noise[2]})
    assert batch.size_bytes > 2 * TAIL_BYTES
    rows = read(datasets.read(batch, [("a", "number")]))
    assert np.array_equal(values.numbers(rows.columns["a", "number"]), noise[0])


def test_csv_and_json_lines_larger_than_the_first_request_are_read_whole(s3: S3, datasets: Datasets) -> None:
    rows = range(150_000)
    written = {
        "csv": "a,b\n" + "\n".join(f"{i},name {i % 7}" for i in rows),
        "jsonl": "\n".join(f'{{"a":{i},"b":"name {i % 7}"}}' for i in rows),
    }
    for name, text in written.items():
        batch = s3.put(f"data/m/large.{name}", text.encode())
        assert batch.size_bytes > TAIL_BYTES
        found = read(datasets.read(batch, [("a", "number"), ("b", "text")], written_as=name))  # type: ignore[arg-type]
        assert np.array_equal(values.numbers(found.columns["a", "number"]), np.arange(150_000))
        assert values.texts(found.columns["b", "text"])[-1] == f"name {149_999 % 7}"


def test_a_batch_in_another_format_than_declared_is_refused(s3: S3, datasets: Datasets) -> None:
    parquet = s3.put("data/m/a.parquet", {"a": [1.0]})
    csv = s3.put("data/m/a.csv", b"a\n1\n")
    assert refused(datasets.read(csv, [("a", "number")])).startswith("it cannot be read as parquet: ")
    assert refused(datasets.read(parquet, [("a", "number")], written_as="csv")).startswith("it cannot be read as csv: ")
    assert refused(datasets.read(parquet, [("a", "number")], written_as="jsonl")).startswith("line 1 is not JSON: ")


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"item": [1]}, "it has no column 'rating'; it has item"),
        ({"other": [1]}, "it has no columns 'item', 'rating'; it has other"),
        ({"rating": ["good"], "item": [1]}, "column 'rating' holds string, not numbers"),
        ({"rating": [1.0], "item": [[1]]}, "column 'item' holds list<element: int64>, not texts or numbers"),
        ({"rating": np.array([], float), "item": np.array([], int)}, "it has no rows"),
        (b"", "it is empty, 0 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(s3: S3, datasets: Datasets, columns: Any, why: str) -> None:
    batch = s3.put("data/m/bad.parquet", columns)
    assert refused(datasets.read(batch, [("rating", "number"), ("item", "text")])) == why


@pytest.mark.parametrize("cut", [3, 200, -1])
def test_a_truncated_file_is_refused_wherever_it_was_cut(s3: S3, datasets: Datasets, cut: int) -> None:
    batch = s3.put("data/m/cut.parquet", s3_server.parquet({"rating": [1.0] * 1000})[:cut])
    assert refused(datasets.read(batch, [("rating", "number")])).startswith("it cannot be read as parquet: ")


def test_a_page_damaged_in_the_middle_is_refused(s3: S3, datasets: Datasets) -> None:
    whole = s3_server.parquet({"rating": np.random.default_rng(0).normal(size=5000)})
    damaged = whole[:4] + b"\xff" * 60 + whole[64:]
    batch = s3.put("data/m/damaged.parquet", damaged)
    assert refused(datasets.read(batch, [("rating", "number")])).startswith("it cannot be read as parquet: ")


def test_a_deleted_batch_and_an_overwritten_one_are_refused(s3: S3, datasets: Datasets) -> None:
    batch = s3.put("data/m/b.parquet", {"rating": [1.0]})
    s3.put("data/m/b.parquet", {"rating": [2.0]})
    assert refused(datasets.read(batch, [("rating", "number")])) == "it has been overwritten since it arrived"
    by_sequencer = replace(batch, version="0055AED6DCD90281E5", size_bytes=7)
    assert "bytes, not 7" in refused(datasets.read(by_sequencer, [("rating", "number")]))
    s3.client.delete_object(Bucket=BUCKET, Key=batch.key)
    assert refused(datasets.read(batch, [("rating", "number")])) == "it is no longer in S3"


def test_a_batch_is_remembered_only_where_that_is_allowed_and_up_to_a_bound(s3: S3, datasets: Datasets) -> None:
    batch = s3.put("data/m/c.parquet", {"rating": [1.0]})
    read(datasets.read(batch, [("rating", "number")]))
    s3.client.delete_object(Bucket=BUCKET, Key=batch.key)
    assert read(datasets.read(batch, [("rating", "number")], remembered=True)).count == 1
    assert refused(datasets.read(batch, [("rating", "number")])) == "it is no longer in S3"
    forgetful = Datasets(cache_bytes=4)
    again = s3.put("data/m/c.parquet", {"rating": [1.0]})
    read(forgetful.read(again, [("rating", "number")]))
    s3.client.delete_object(Bucket=BUCKET, Key=batch.key)
    assert refused(forgetful.read(again, [("rating", "number")], remembered=True)) == "it is no longer in S3"


def test_an_unknown_bucket_is_nobodys_data(datasets: Datasets) -> None:
    batch = Batch(bucket="nowhere", key="data/m/a.parquet", version="1", size_bytes=1)
    with pytest.raises(PermanentError, match=r"s3://nowhere/data/m/a.parquet.*NoSuchBucket"):
        datasets.read(batch, [("rating", "number")])


def test_s3_being_away_is_tried_again(monkeypatch: pytest.MonkeyPatch, datasets: Datasets) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{emulator.free_port()}")
    batch = Batch(bucket=BUCKET, key="data/m/a.parquet", version="1", size_bytes=1)
    with pytest.raises(TransientError, match=r"s3://lake/data/m/a.parquet"):
        Datasets().read(batch, [("rating", "number")])
