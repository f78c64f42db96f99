"""Training jobs of the local SageMaker keep the container contract and end as SageMaker's do."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.support import BUCKET, Clients, channel, is_alive, training, until

pytestmark = pytest.mark.system


def test_a_completed_job_leaves_its_model_its_output_and_its_metrics(clients: Clients) -> None:
    clients.put("in/train/deep/rows.csv", b"1,2")
    clients.put("in/training-notes.txt", b"same prefix, another name")
    clients.sagemaker.create_training_job(
        **training("complete", InputDataConfig=[channel("train", f"s3://{BUCKET}/in/train/")])
    )
    job = clients.ended_training("complete")
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/models/complete/output/model.tar.gz"
    assert [transition["Status"] for transition in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    (metric,) = job["FinalMetricDataList"]
    assert (metric["MetricName"], metric["Value"]) == ("train:loss", 0.25)
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1
    assert clients.unpacked(f"s3://{BUCKET}/models/complete/output/output.tar.gz") == {"extra.txt": b"extra"}


def test_a_container_finds_its_channels_configuration_and_variables(clients: Clients) -> None:
    clients.put("in2/train/rows.csv", b"1,2")
    request = training("contract", InputDataConfig=[channel("train", f"s3://{BUCKET}/in2/train")])
    request |= {"HyperParameters": {"do": "report", "epochs": "3"}, "Environment": {"COLOUR": "green"}}
    clients.sagemaker.create_training_job(**request)
    clients.ended_training("contract")
    seen = json.loads(clients.unpacked(f"s3://{BUCKET}/models/contract/output/model.tar.gz")["seen.json"])
    variables = seen["environment"]
    assert seen["arguments"] == ["train"]
    assert "input/data/train/rows.csv" in seen["files"]
    assert seen["hyperparameters"] == {"do": "report", "epochs": "3"}
    assert seen["resourceconfig"]["hosts"] == ["algo-1"]
    assert seen["inputdataconfig"]["train"]["TrainingInputMode"] == "File"
    assert variables["SM_CHANNEL_TRAIN"] == variables["SAGEMAKER_BASE_DIR"] + "/input/data/train"
    assert json.loads(variables["SM_HPS"]) == {"do": "report", "epochs": 3}
    assert variables["TRAINING_JOB_NAME"] == "contract"
    assert variables["COLOUR"] == "green"
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["AWS_ACCESS_KEY_ID"] == "test"


def test_an_isolated_container_gets_no_credentials(clients: Clients) -> None:
    clients.sagemaker.create_training_job(**training("isolated", EnableNetworkIsolation=True))
    clients.ended_training("isolated")
    seen = json.loads(clients.unpacked(f"s3://{BUCKET}/models/isolated/output/model.tar.gz")["seen.json"])
    assert {name for name in seen["environment"] if name.startswith("AWS_")} == {"AWS_REGION"}


def test_the_failure_file_becomes_the_failure_reason(clients: Clients) -> None:
    clients.sagemaker.create_training_job(**training("fails", hyperparameters={"do": "fail"}))
    job = clients.ended_training("fails")
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: the loss is not a number!!!")
    assert job["FailureReason"].endswith("exit code: 3")
    assert len(job["FailureReason"]) < 1100


def test_without_a_failure_file_the_last_line_of_the_log_is_the_reason(clients: Clients) -> None:
    clients.sagemaker.create_training_job(**training("exits", hyperparameters={"do": "exit"}))
    assert clients.ended_training("exits")["FailureReason"] == "AlgorithmError: last words, exit code: 4"


def test_a_channel_without_objects_is_a_client_error(clients: Clients) -> None:
    clients.sagemaker.create_training_job(
        **training("empty", InputDataConfig=[channel("train", f"s3://{BUCKET}/nothing/here")])
    )
    job = clients.ended_training("empty")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed: No S3 objects found")


def test_stopping_a_job_that_ignores_sigterm_kills_it(clients: Clients) -> None:
    clients.sagemaker.create_training_job(**training("stops", hyperparameters={"do": "hang"}))
    pid = hanging_pid(clients, "stops")
    clients.sagemaker.stop_training_job(TrainingJobName="stops")
    job = clients.ended_training("stops")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert not is_alive(pid)
    with pytest.raises(ClientError, match="is in status Stopped"):
        clients.sagemaker.stop_training_job(TrainingJobName="stops")


def test_a_job_past_its_maximum_runtime_is_stopped_and_keeps_its_model(clients: Clients) -> None:
    request = training("too-long", hyperparameters={"do": "count", "until": "1000"})
    clients.sagemaker.create_training_job(**request | {"StoppingCondition": {"MaxRuntimeInSeconds": 1}})
    job = clients.ended_training("too-long")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert "started-at-0" in clients.unpacked(job["ModelArtifacts"]["S3ModelArtifacts"])


def test_an_interrupted_spot_job_continues_from_its_checkpoint(clients: Clients) -> None:
    url = clients.queue_of("spot-events", {"source": ["aws.sagemaker"], "detail": {"TrainingJobName": ["spot"]}})
    clients.fault(job="spot", after_checkpoint=True)
    clients.sagemaker.create_training_job(**spot("spot", until=40))
    job = clients.ended_training("spot")
    statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    assert statuses[2:6] == ["Training", "Interrupted", "Restarting", "Downloading"]
    assert job["TrainingJobStatus"] == "Completed"
    assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"]
    (started,) = [name for name in clients.unpacked(job["ModelArtifacts"]["S3ModelArtifacts"]) if "started" in name]
    assert int(started.removeprefix("started-at-")) > 0
    event = clients.next_event(url)
    assert event["detail-type"] == "SageMaker Training Job State Change"
    assert event["detail"]["SecondaryStatus"] == "Starting"


def spot(name: str, *, until: int) -> dict[str, Any]:
    return training(
        name,
        hyperparameters={"do": "count", "until": str(until)},
        EnableManagedSpotTraining=True,
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints/{name}"},
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
    )


def hanging_pid(clients: Clients, name: str) -> int:
    """The process of a job that hangs, from the log it keeps."""
    log = clients.aws.log.parent / "logs" / "training" / f"{name}.log"

    def pid() -> int:
        text = log.read_text() if log.exists() else ""
        return int(text.partition("pid=")[2].partition(";")[0] or 0)

    return int(until(pid))


def test_names_are_used_once(clients: Clients) -> None:
    clients.sagemaker.create_training_job(**training("once"))
    with pytest.raises(clients.sagemaker.exceptions.ResourceInUse):
        clients.sagemaker.create_training_job(**training("once"))
    clients.ended_training("once")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"TrainingJobName": "under_score"}, "regular expression"),
        ({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds"),
        ({"OutputDataConfig": {"S3OutputPath": "/tmp/x"}}, "not an S3 URI"),
        ({"CheckpointConfig": {"S3Uri": "s3://b/c", "LocalPath": "/etc"}}, "not under /opt/ml"),
    ],
)
def test_a_request_with_a_mistake_is_refused(clients: Clients, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ClientError, match=complaint) as refused:
        clients.sagemaker.create_training_job(**training("wrong") | changes)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_an_unknown_job_is_not_found(clients: Clients) -> None:
    with pytest.raises(ClientError, match="Requested resource not found"):
        clients.sagemaker.describe_training_job(TrainingJobName="unknown")


def test_jobs_are_listed_newest_first_in_pages(clients: Clients) -> None:
    for number in range(3):
        clients.sagemaker.create_training_job(**training(f"listed-{number}"))
    pages = clients.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains="listed-", PaginationConfig={"PageSize": 2}
    )
    names = [summary["TrainingJobName"] for page in pages for summary in page["TrainingJobSummaries"]]
    assert names == ["listed-2", "listed-1", "listed-0"]
    for number in range(3):
        clients.ended_training(f"listed-{number}")
