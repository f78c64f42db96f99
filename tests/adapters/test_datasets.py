"""Columns of batches out of a real S3: what can be read is, what cannot is refused with its reason."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import numpy as np
import pytest

from retrainer.adapters.datasets import TAIL_BYTES, Datasets, Rows
from retrainer.adapters.datasets.profiles import Profiles, Watch
from retrainer.core.window import Batch, Refusal
from retrainer.drift import values
from retrainer.drift.grid import Grid
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


WATCH = Watch(spec={"amount": "numerical", "item": "categorical"}, bucket=BUCKET, prefix="profiles/m/", timestamp="at")


def hour(i: int) -> dict[str, Any]:
    rng = np.random.default_rng(i)
    return {"at": np.arange(500), "amount": rng.normal(size=500), "item": rng.integers(0, 4, 500)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, datasets: Datasets) -> list[str]:
    """Every key that is got from S3, in order, by whatever client comes after this."""
    keys: list[str] = []
    ours = boto3.client

    def client(*args: Any, **also: Any) -> Any:
        made = ours(*args, **also)
        made.meta.events.register("before-parameter-build.s3.GetObject", lambda params, **_: keys.append(params["Key"]))
        return made

    monkeypatch.setattr(boto3, "client", client)
    return keys


def test_sliding_windows_get_each_batch_once_and_not_again_after_a_restart(s3: S3, asked: list[str]) -> None:
    hours = [s3.put(f"data/slide/{i}.parquet", hour(i)) for i in range(8)]
    first = Profiles(Datasets())
    grid = first.grid(hours[:2], WATCH)
    asked.clear()
    windows = [first.window(hours[i : i + 3], grid, WATCH) for i in range(6)]
    assert [key for key in asked if key.startswith("data/")] == [batch.key for batch in hours]
    asked.clear()
    restarted = Profiles(Datasets())
    again = [restarted.window(hours[i : i + 3], restarted.grid(hours[:2], WATCH), WATCH) for i in range(6)]
    assert not [key for key in asked if key.startswith("data/")]
    assert len(asked) == 1 + len(hours)
    assert [w.rows for w in again] == [w.rows for w in windows] == [1_500] * 6


def test_a_batch_that_was_cut_or_overwritten_is_no_profile(s3: S3, datasets: Datasets) -> None:
    good = s3.put("data/m/p.parquet", hour(0))
    profiles = Profiles(datasets)
    grid = profiles.grid([good], WATCH)
    cut = s3.put("data/m/cut.parquet", s3_server.parquet(hour(1))[:-9])
    gone = replace(good, key="data/m/never.parquet")
    old = replace(good, version="0" * 32)
    found = profiles.window([good, cut, gone, old], grid, WATCH)
    assert found.rows == 500
    assert [refusal.why.partition(":")[0] for refusal in found.refused] == [
        "it cannot be read as parquet",
        "it is no longer in S3",
        "it has been overwritten since it arrived",
    ]


def test_where_nothing_may_be_written_the_evidence_is_the_same(s3: S3, datasets: Datasets) -> None:
    batch = s3.put("data/m/w.parquet", hour(0))
    nowhere = replace(WATCH, bucket="no-such-bucket")
    profiles = Profiles(datasets)
    assert profiles.window([batch], profiles.grid([batch], nowhere), nowhere).rows == 500


def test_profiles_of_an_s3_that_is_away_are_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, datasets: Datasets
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{emulator.free_port()}")
    batch = Batch(bucket=BUCKET, key="data/m/a.parquet", version="1", size_bytes=1)
    with pytest.raises(TransientError, match=r"s3://lake/data/m/a.parquet"):
        Profiles(Datasets()).window([batch], Grid({}, {}), WATCH)


def test_a_batch_named_by_its_key_alone_has_the_version_that_it_has_now(s3: S3, datasets: Datasets) -> None:
    batch = s3.put("data/m/fixed.parquet", hour(0))
    assert datasets.resolved(replace(batch, version="")) == batch
    gone = Batch(bucket=BUCKET, key="data/m/nothing", version="", size_bytes=0)
    assert datasets.resolved(gone) == gone
