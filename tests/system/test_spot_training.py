"""Managed spot training with the real trainer: the instance is taken, another one goes on from S3, nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest

from retrainer.local.aws import LocalAws
from tests.local.support import BUCKET, Clients, channel, training
from tests.trainer.conftest import cycle, write_parquet
from tests.trainer.test_cnn import rows

pytestmark = pytest.mark.system

FAMILIES = {
    "sasrec": {"model": "sasrec", "epochs": "60", "patience": "99", "dimension": "16", "validation_share": "0.1"},
    "cnn": {"model": "cnn", "epochs": "100", "pixels": "16", "colour": "grey", "width": "4", "batch_rows": "16"},
}
"""Jobs of a few seconds: a checkpoint reaches S3 within one, and the fault waits for that."""


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with LocalAws(tmp_path_factory.mktemp("aws")) as aws:
        clients = Clients(aws)
        clients.s3.create_bucket(Bucket=BUCKET)
        folder = tmp_path_factory.mktemp("data")
        write_parquet(folder / "sasrec.parquet", cycle())
        pq.write_table(rows(200), folder / "cnn.parquet")
        for name in FAMILIES:
            clients.put(f"data/{name}/train.parquet", (folder / f"{name}.parquet").read_bytes())
        yield clients


def train(clients: Clients, family: str, name: str, **more: Any) -> dict[str, Any]:
    request = training(name, InputDataConfig=[channel("train", f"s3://{BUCKET}/data/{family}/")], **more)
    request["HyperParameters"] = FAMILIES[family] | {"interruption_seconds": "1"}
    request["StoppingCondition"] |= {"MaxRuntimeInSeconds": 600}
    clients.sagemaker.create_training_job(**request)
    return clients.ended_training(name, seconds=300)


def manifest_of(clients: Clients, job: dict[str, Any]) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(clients.unpacked(job["ModelArtifacts"]["S3ModelArtifacts"])["manifest.json"])
    return manifest


@pytest.mark.parametrize("family", FAMILIES)
def test_a_job_interrupted_twice_ends_with_the_weights_of_an_undisturbed_one(clients: Clients, family: str) -> None:
    name = f"spot-{family}"
    clients.fault(job=name, after_checkpoint=True, times=2)
    spot = train(
        clients,
        family,
        name,
        EnableManagedSpotTraining=True,
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints/{name}"},
        StoppingCondition={"MaxWaitTimeInSeconds": 600},
    )
    statuses = [transition["Status"] for transition in spot["SecondaryStatusTransitions"]]
    assert spot["TrainingJobStatus"] == "Completed", spot.get("FailureReason")
    assert statuses.count("Interrupted") == statuses.count("Restarting") == 2
    log = (clients.aws.log.parent / "logs" / "training" / f"{name}.log").read_text()
    assert "resumed " in log, "the second interruption may come before the training goes on"
    assert spot["BillableTimeInSeconds"] < spot["TrainingTimeInSeconds"]

    undisturbed = train(clients, family, f"on-demand-{family}")
    assert undisturbed["BillableTimeInSeconds"] == undisturbed["TrainingTimeInSeconds"]
    assert manifest_of(clients, spot)["weights_sha256"] == manifest_of(clients, undisturbed)["weights_sha256"]
