"""Profiles by the state machine, deployed from the template onto the embedded AWS: the worker's own, to the byte."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

import package
from retrainer.adapters.datasets import Datasets
from retrainer.adapters.datasets.profiles import Profiles, Watch
from retrainer.core.window import Batch
from retrainer.drift import keys
from retrainer.drift.grid import Spec
from retrainer.local.aws import LocalAws
from retrainer.local.provision import provision
from steps import clients, profile
from steps.errors import ManifestError
from steps.objects import Uri, canonical
from tests.deploy import fake_image
from tests.deploy.aws_clients import client
from tests.deploy.batches import batch, parquet
from tests.deploy.definition import TEMPLATE, source

COLUMNS: Spec = {"user_id": "numerical", "item_id": "categorical"}
WATCH = Watch(spec=COLUMNS, timestamp="timestamp", written_as="parquet")


@pytest.fixture(scope="module")
def outputs(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    built = package.assemble(tmp_path_factory.mktemp("build"))
    parameters = {"BucketName": "profiled", "TrainerImage": fake_image.IMAGE}
    code = {source()["Globals"]["Function"]["CodeUri"]: [built / "steps", built / "retrainer"]}
    return provision(aws.endpoint_url, TEMPLATE, parameters, stack="profiling", code=code)


def put(bucket: str, model: str, *bodies: bytes) -> list[Batch]:
    """The batches, as S3's events name them to the daemon."""
    found = []
    for number, body in enumerate(bodies):
        key = f"data/{model}/{number}.parquet"
        etag = client("s3").put_object(Bucket=bucket, Key=key, Body=body)["ETag"].strip('"')
        found.append(Batch(bucket=bucket, key=key, version=etag, size_bytes=len(body)))
    return found


def store_manifest(bucket: str, model: str, objects: list[Batch], **changes: Any) -> str:
    named = [{"bucket": b.bucket, "key": b.key, "version": b.version, "size_bytes": b.size_bytes} for b in objects]
    manifest = {
        "version": 1,
        "profiles": f"profiles/{model}/",
        "format": "parquet",
        "timestamp": "timestamp",
        "required": [],
        "columns": list(COLUMNS.items()),
        "grid": named[:1],
        "statistics": [],
        "objects": named,
        **changes,
    }
    key = f"profiles/{model}/runs/{model}/manifest.json"
    client("s3").put_object(Bucket=bucket, Key=key, Body=canonical(manifest))
    return key


def run(outputs: dict[str, str], name: str, manifest: str) -> dict[str, Any]:
    """An execution to its end, which is good; what it put out."""
    found = end(outputs, name, manifest)
    assert found["status"] == "SUCCEEDED", (found.get("error"), found.get("cause"))
    return dict(json.loads(found["output"]))


def end(outputs: dict[str, str], name: str, manifest: str) -> dict[str, Any]:
    states = client("stepfunctions")
    given = json.dumps({"bucket": outputs["BucketName"], "manifest": manifest})
    arn = states.start_execution(stateMachineArn=outputs["ProfileStateMachineArn"], name=name, input=given)
    deadline = time.monotonic() + 90
    while (found := states.describe_execution(executionArn=arn["executionArn"]))["status"] == "RUNNING":
        assert time.monotonic() < deadline, states.get_execution_history(executionArn=arn["executionArn"])
        time.sleep(0.1)
    return dict(found)


def bodies_under(bucket: str, prefix: str) -> dict[str, bytes]:
    """The grids and profiles there, by what follows the prefix; less what only an execution keeps."""
    listed = client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    names = [o["Key"] for o in listed if "/runs/" not in o["Key"] and not o["Key"].endswith("/grid")]
    return {name.removeprefix(prefix): _body(bucket, name) for name in names}


def test_the_profiles_are_those_that_the_worker_would_have_stored(outputs: dict[str, str], model: str) -> None:
    bucket = outputs["BucketName"]
    batches = put(bucket, model, *(parquet(batch(500 * n, 500)) for n in range(3)))
    assert run(outputs, model, store_manifest(bucket, model, batches))["missing"] == 3
    watch = replace(WATCH, bucket=bucket, prefix="profiles/by-the-worker/")
    worker = Profiles(Datasets())
    grid = worker.grid(batches[:1], watch)
    worker.window(batches, grid, watch)
    found = bodies_under(bucket, f"profiles/{model}/")
    assert found == bodies_under(bucket, "profiles/by-the-worker/")
    assert len(found) == 4


def test_the_worker_that_measures_afterwards_reads_no_rows(
    outputs: dict[str, str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = outputs["BucketName"]
    batches = put(bucket, model, *(parquet(batch(500 * n, 500)) for n in range(2)))
    run(outputs, model, store_manifest(bucket, model, batches))
    monkeypatch.delattr(Datasets, "stream")
    watch = replace(WATCH, bucket=bucket, prefix=f"profiles/{model}/")
    worker = Profiles(Datasets())
    assert worker.window(batches, worker.grid(batches[:1], watch), watch).rows == 1000


def test_an_object_named_by_its_key_alone_has_the_profile_that_the_worker_looks_for(
    outputs: dict[str, str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = outputs["BucketName"]
    fixed = [replace(b, version="", size_bytes=0) for b in put(bucket, model, parquet(batch(0, 500)))]
    assert run(outputs, f"{model}-1", store_manifest(bucket, model, fixed))["missing"] == 1
    assert run(outputs, f"{model}-2", store_manifest(bucket, model, fixed))["missing"] == 0
    monkeypatch.delattr(Datasets, "stream")
    watch = replace(WATCH, bucket=bucket, prefix=f"profiles/{model}/")
    _, window = Profiles(Datasets()).against(fixed, fixed, watch)
    assert (window.rows, window.unread) == (500, ())


def test_under_another_policy_an_object_is_profiled_again(outputs: dict[str, str], model: str) -> None:
    bucket = outputs["BucketName"]
    batches = put(bucket, model, parquet(batch(0, 500)))
    assert run(outputs, f"{model}-1", store_manifest(bucket, model, batches))["missing"] == 1
    assert run(outputs, f"{model}-2", store_manifest(bucket, model, batches, required=["user_id"]))["missing"] == 1
    assert run(outputs, f"{model}-3", store_manifest(bucket, model, batches))["missing"] == 0


def test_what_is_profiled_already_is_not_profiled_again(outputs: dict[str, str], model: str) -> None:
    bucket = outputs["BucketName"]
    batches = put(bucket, model, *(parquet(batch(500 * n, 500)) for n in range(3)))
    manifest = store_manifest(bucket, model, batches[:2])
    assert run(outputs, f"{model}-1", manifest)["missing"] == 2
    assert run(outputs, f"{model}-2", manifest)["missing"] == 0
    manifest = store_manifest(bucket, model, batches, grid=json.loads(_body(bucket, manifest))["grid"])
    assert run(outputs, f"{model}-3", manifest)["missing"] == 1
    assert len(bodies_under(bucket, f"profiles/{model}/")) == 4


def test_an_object_that_cannot_be_used_has_no_profile_and_the_others_have(outputs: dict[str, str], model: str) -> None:
    bucket, whole = outputs["BucketName"], parquet(batch(0, 500))
    batches = put(bucket, model, whole, b"PAR1 and then nothing of use", whole[: len(whole) // 2], parquet(batch(0, 0)))
    overwritten = Batch(bucket=bucket, key=batches[0].key, version="0" * 32, size_bytes=9)
    gone = Batch(bucket=bucket, key=f"data/{model}/gone.parquet", version="0" * 32, size_bytes=9)
    run(outputs, model, store_manifest(bucket, model, [*batches, overwritten, gone]))
    found = bodies_under(bucket, f"profiles/{model}/")
    usable = keys.profile_key("", "", (bucket, batches[0].key, batches[0].version), WATCH.demand)
    assert [f"/{name.rpartition('/')[2]}" for name in found if "/" in name] == [usable]


def test_where_no_grid_can_be_chosen_nothing_is_profiled_and_the_worker_says_why(
    outputs: dict[str, str], model: str
) -> None:
    batches = put(outputs["BucketName"], model, b"nothing of use")
    assert run(outputs, model, store_manifest(outputs["BucketName"], model, batches))["missing"] == 0


def test_a_manifest_of_another_version_fails_the_execution(outputs: dict[str, str], model: str) -> None:
    ended = end(outputs, model, store_manifest(outputs["BucketName"], model, [], version=2))
    assert (ended["status"], ended["error"]) == ("FAILED", "ManifestError")
    assert "is no manifest of version 1" in ended["cause"]


def test_an_object_that_cannot_be_counted_for_lack_of_its_plan_fails_and_is_not_passed_over(bucket: str) -> None:
    with pytest.raises(ManifestError, match=r"plan\.json is gone\.$"):
        profile.count(
            clients.s3(), Uri(bucket, "profiles/m/plan.json"), Batch(bucket=bucket, key="k", version="v", size_bytes=1)
        )


def _body(bucket: str, key: str) -> bytes:
    return bytes(client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
