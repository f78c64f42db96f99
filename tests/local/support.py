"""What the tests of the embedded AWS share: clients, requests, waiting."""

import asyncio
import io
import json
import tarfile
import time
import urllib.request
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3

from retrainer.local.aws import LocalAws

PROGRAMS = Path(__file__).parent / "programs"
IMAGES = {"server": ["python", str(PROGRAMS / "serve.py")], "probe": ["python", str(PROGRAMS / "probe.py")]}
ROLE = "arn:aws:iam::000000000000:role/sagemaker"
BUCKET = "models-and-data"


class Clients:
    """boto3 clients of one embedded AWS."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")

        def client(name: str) -> Any:
            return session.client(name, endpoint_url=aws.endpoint_url)  # type: ignore[call-overload]

        self.s3, self.sqs, self.events = client("s3"), client("sqs"), client("events")
        self.sagemaker, self.runtime = client("sagemaker"), client("sagemaker-runtime")
        self.states, self.cloudwatch, self.awslambda = client("stepfunctions"), client("cloudwatch"), client("lambda")

    def put(self, key: str, body: bytes = b"") -> str:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def get(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def unpacked(self, uri: str) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(self.get(uri))) as tar:
            return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]

    def queue_of(self, name: str, pattern: dict[str, Any]) -> str:
        """A queue that gets the events of a pattern."""
        url: str = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        self.events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
        return url

    def next_event(self, url: str) -> dict[str, Any]:
        def receive() -> Any:
            return self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2).get("Messages")

        message = until(receive)[0]
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        body: dict[str, Any] = json.loads(message["Body"])
        return body

    def ended_training(self, name: str, *, seconds: float = 60) -> dict[str, Any]:
        def ended() -> Any:
            job = self.sagemaker.describe_training_job(TrainingJobName=name)
            return job if job["TrainingJobStatus"] in {"Completed", "Failed", "Stopped"} else None

        job: dict[str, Any] = until(ended, seconds)
        return job

    def ended_execution(self, arn: str, *, seconds: float = 60) -> dict[str, Any]:
        def ended() -> Any:
            execution = self.states.describe_execution(executionArn=arn)
            return execution if execution["status"] != "RUNNING" else None

        execution: dict[str, Any] = until(ended, seconds)
        return execution

    def machine(self, name: str, states: dict[str, Any], **fields: Any) -> str:
        """A state machine of these states; the first is where it starts."""
        definition = {"StartAt": next(iter(states)), "States": states, **fields}
        created = self.states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)
        arn: str = created["stateMachineArn"]
        return arn

    def fault(self, **spot_interrupt: Any) -> None:
        body = json.dumps({"spot_interrupt": spot_interrupt}).encode()
        urllib.request.urlopen(f"{self.aws.endpoint_url}/_retrainer/faults", data=body).close()  # noqa: S310


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{condition.__name__} did not become true in {seconds:g} s")


def training(name: str, **changes: Any) -> dict[str, Any]:
    """A valid CreateTrainingJob request of the probe; hyperparameters under `do`."""
    hyperparameters = {"do": "report", **changes.pop("hyperparameters", {})}
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": "registry.example/probe:1",
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "train:loss", "Regex": "train_loss=([0-9.]+);"}],
        },
        "HyperParameters": hyperparameters,
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def channel(name: str, uri: str) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}


def run_apart(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine on a loop of its own, in a thread, so that the test runner's loop is left alone."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, coroutine).result()


def archive(**files: str) -> bytes:
    """A model.tar.gz of these files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
