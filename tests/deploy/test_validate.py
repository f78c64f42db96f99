"""Validate says no before anything is paid for, and names the object, the column or the name it is about."""

import re

import pyarrow as pa
import pytest

from steps.errors import DataError, InputError, ManifestError
from steps.names import check_names
from steps.objects import Uri, read_document
from steps.validate import check_format, check_manifest, check_timeouts, validate
from tests.deploy.aws_clients import client
from tests.deploy.batches import batch, parquet, put, request

WHOLE = parquet(batch(0, 50))


def test_good_data_is_counted_and_pinned_for_preprocessing(bucket: str, model: str) -> None:
    objects = put(bucket, model, [WHOLE, parquet(batch(50, 30))])
    execution, given = request(bucket, model, objects)
    assert validate(given, execution) == {
        "rows": 80,
        "bytes": len(WHOLE) + len(parquet(batch(50, 30))),
        "champion_generation": 0,
    }
    plan = read_document(client("s3"), Uri(bucket, f"executions/{execution}/preprocess.json"))
    assert plan is not None
    assert [found["rows"] for found in plan.body["objects"]] == [50, 30]
    assert plan.body["champion_model_data_url"] is None


def test_an_altered_manifest_is_refused(bucket: str, model: str) -> None:
    execution, given = request(bucket, model, put(bucket, model, [WHOLE]))
    key = f"executions/{execution}/manifest.json"
    client("s3").put_object(Bucket=bucket, Key=key, Body=b"{}")
    with pytest.raises(ManifestError, match=r"manifest\.json has sha256 44136fa3"):
        validate(given, execution)


def test_a_missing_manifest_is_refused(bucket: str, model: str) -> None:
    execution, given = request(bucket, model, put(bucket, model, [WHOLE]))
    client("s3").delete_object(Bucket=bucket, Key=f"executions/{execution}/manifest.json")
    with pytest.raises(ManifestError, match="does not exist"):
        validate(given, execution)


def test_a_manifest_of_another_place_is_refused(bucket: str, model: str) -> None:
    execution, given = request(bucket, model, put(bucket, model, [WHOLE]))
    given["manifest"]["uri"] = f"s3://elsewhere/executions/{execution}/manifest.json"
    with pytest.raises(ManifestError, match="is not at"):
        validate(given, execution)


def test_a_manifest_of_another_generation_is_refused() -> None:
    with pytest.raises(ManifestError, match="is for generation 1, not 2"):
        check_manifest({"model": "m", "generation": 1, "objects": [{}]}, {"model": "m", "generation": 2})


@pytest.mark.parametrize("uri", ["s3://foreign/data/m/0.parquet", "https://example.com/x", "s3://{bucket}/reports/x"])
def test_an_object_outside_the_buckets_data_is_refused(bucket: str, model: str, uri: str) -> None:
    execution, given = request(bucket, model, [{"uri": uri.format(bucket=bucket)}])
    with pytest.raises(ManifestError, match="is not under"):
        validate(given, execution)


def test_an_empty_manifest_is_refused(bucket: str, model: str) -> None:
    execution, given = request(bucket, model, [])
    with pytest.raises(ManifestError, match="lists no objects"):
        validate(given, execution)


def test_an_object_that_is_not_there_is_named(bucket: str, model: str) -> None:
    uri = f"s3://{bucket}/data/{model}/gone.parquet"
    execution, given = request(bucket, model, [{"uri": uri}])
    with pytest.raises(DataError, match=re.escape(f"{uri} does not exist.")):
        validate(given, execution)


def test_an_object_that_was_replaced_is_named(bucket: str, model: str) -> None:
    objects = put(bucket, model, [WHOLE])
    execution, given = request(bucket, model, objects)
    put(bucket, model, [parquet(batch(0, 51))])
    with pytest.raises(DataError, match=r"0\.parquet has changed since the manifest"):
        validate(given, execution)


def test_a_truncated_parquet_is_named(bucket: str, model: str) -> None:
    execution, given = request(bucket, model, put(bucket, model, [WHOLE, WHOLE[:-40]]))
    with pytest.raises(DataError, match=r"1\.parquet is not a readable parquet file"):
        validate(given, execution)


def test_a_missing_column_is_named_with_the_columns_that_are_there(bucket: str, model: str) -> None:
    body = parquet(batch(0, 5).drop_columns(["item_id"]))
    execution, given = request(bucket, model, put(bucket, model, [body]))
    with pytest.raises(DataError, match=r"lacks the column 'item_id'; it has user_id, timestamp\."):
        validate(given, execution)


def test_a_timestamp_column_of_text_is_named(bucket: str, model: str) -> None:
    table = batch(0, 2).drop_columns(["timestamp"]).append_column("timestamp", pa.array(["yesterday", "today"]))
    execution, given = request(bucket, model, put(bucket, model, [parquet(table)]))
    with pytest.raises(DataError, match="the column 'timestamp' is string, not a timestamp"):
        validate(given, execution)


def test_batches_without_rows_are_no_data(bucket: str, model: str) -> None:
    execution, given = request(bucket, model, put(bucket, model, [parquet(batch(0, 0))]))
    with pytest.raises(DataError, match="hold no rows"):
        validate(given, execution)


def test_a_job_that_may_wait_for_less_than_it_may_run_is_refused() -> None:
    with pytest.raises(InputError, match="wait_seconds is 60, less than training_seconds, 3600"):
        check_timeouts({"training_seconds": 3600, "wait_seconds": 60})


def test_batches_that_are_not_parquet_are_refused_before_anything_is_read() -> None:
    check_format("parquet")
    with pytest.raises(InputError, match=r"data\.format is csv, and this state machine trains on parquet only"):
        check_format("csv")


@pytest.mark.parametrize(
    ("execution", "model", "generation", "candidates", "about"),
    [
        ("m-g1-0123abcd", "M", 1, ["a"], "model name 'M'"),
        ("m-g1-0123abcd", "m" * 25, 1, ["a"], "model name"),
        ("m-g2-0123abcd", "m", 1, ["a"], "execution name 'm-g2-0123abcd' is not m-g1-"),
        ("x-g1-0123abcd", "m", 1, ["a"], "execution name"),
        ("m-g1-0123abcd", "m", 1, [], "names no candidate"),
        ("m-g1-0123abcd", "m", 1, ["thirteen-long"], "candidate name 'thirteen-long'"),
        ("m-g1-0123abcd", "m", 1, ["a", "a"], "a candidate twice"),
    ],
)
def test_names_that_could_not_be_job_names_are_refused(
    execution: str, model: str, generation: int, candidates: list[str], about: str
) -> None:
    with pytest.raises(InputError, match=re.escape(about)):
        check_names(execution, model, generation, candidates)
