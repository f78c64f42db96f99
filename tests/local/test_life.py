"""The embedded AWS lives as long as its parent, keeps what it was told, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrainer.local.aws import LocalAws, LocalAwsError
from tests.local.support import BUCKET, IMAGES, ROLE, Clients, archive, is_alive, run_apart, training, until

pytestmark = pytest.mark.system


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[LocalAws]:
    with LocalAws(tmp_path / "aws", images=IMAGES, stop_grace_seconds=1.0) as aws:
        yield aws


def descendants(pid: int) -> set[int]:
    """Every process below this one."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child} | descendants(child)
    return found


def serve(clients: Clients, name: str) -> None:
    url = clients.put(f"{name}.tar.gz", archive(name=name))
    container = {"Image": "registry.example/server:1", "ModelDataUrl": url}
    clients.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "all", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    clients.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    clients.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    in_service(clients, name)


def in_service(clients: Clients, name: str) -> None:
    def answers() -> bool:
        if clients.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] != "InService":
            return False
        try:
            body = clients.runtime.invoke_endpoint(EndpointName=name, Body=b"{}")["Body"].read()
        except clients.runtime.exceptions.ClientError:
            return False
        return bool(json.loads(body)["model"] == name)

    until(answers)


def hang(clients: Clients, name: str) -> str:
    """An execution inside a training job that hangs."""
    request = training("unused", hyperparameters={"do": "hang"})
    del request["TrainingJobName"]
    task = {"Type": "Task", "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync", "End": True}
    machine = clients.machine(
        name, {"Train": {**task, "Parameters": request | {"TrainingJobName.$": "$$.Execution.Name"}}}
    )
    arn: str = clients.states.start_execution(stateMachineArn=machine, name=name)["executionArn"]
    log = clients.aws.log.parent / "logs" / "training" / f"{name}.log"
    until(lambda: log.exists() and "pid=" in log.read_text())
    return arn


def populated(aws: LocalAws) -> tuple[Clients, str, str]:
    """One of everything: an endpoint in service, an execution in a job, a queue fed by S3."""
    clients = Clients(aws)
    clients.s3.create_bucket(Bucket=BUCKET)
    configuration: dict[str, Any] = {"EventBridgeConfiguration": {}}
    clients.s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration=configuration)
    url = clients.queue_of("arrivals", {"source": ["aws.s3"], "detail": {"object": {"key": [{"prefix": "data/"}]}}})
    serve(clients, "served")
    return clients, hang(clients, "working"), url


def test_what_was_acknowledged_survives_a_kill(aws: LocalAws) -> None:
    clients, execution, url = populated(aws)
    url_before = aws.endpoint_url
    below = descendants(aws.pid)
    for number in range(5):
        clients.put(f"data/{number}", b"rows")
    aws_pid = aws.pid
    os.kill(aws_pid, signal.SIGKILL)  # at once: nothing has had time to be saved later
    until(lambda: not any(map(is_alive, below)))
    until(lambda: not aws.is_alive())
    aws.start()
    assert aws.endpoint_url == url_before
    events = [clients.next_event(url)["detail"]["object"]["key"] for _ in range(5)]
    assert sorted(events) == [f"data/{number}" for number in range(5)]
    assert clients.get(f"s3://{BUCKET}/data/0") == b"rows"
    job = clients.sagemaker.describe_training_job(TrainingJobName="working")
    assert job["TrainingJobStatus"] == "Failed"
    assert "restarted while this job was running" in job["FailureReason"]
    ended = clients.states.describe_execution(executionArn=execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "States.ServiceRestart")
    in_service(clients, "served")
    clients.put("data/after", b"the rules are still there")
    assert clients.next_event(url)["detail"]["object"]["key"] == "data/after"


def test_a_stop_leaves_nothing_behind(aws: LocalAws) -> None:
    populated(aws)
    family = descendants(aws.pid) | {aws.pid}
    assert len(family) >= 3
    aws.stop()
    until(lambda: not any(map(is_alive, family)))


def test_the_death_of_the_parent_ends_everything(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, time\n"
        "from retrainer.local.aws import LocalAws\n"
        "aws = LocalAws(pathlib.Path(sys.argv[1])); aws.start()\n"
        "print(aws.pid, aws.endpoint_url, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "aws")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, _ = parent.stdout.readline().split()
        assert is_alive(int(pid))
        parent.kill()
    until(lambda: not is_alive(int(pid)))


def test_one_directory_is_used_by_one_emulator(aws: LocalAws, tmp_path: Path) -> None:
    with pytest.raises(LocalAwsError, match="another local AWS is using"):
        LocalAws(tmp_path / "aws").start()


def test_it_is_an_async_context_manager_too(tmp_path: Path) -> None:
    aws = LocalAws(tmp_path / "aws")

    async def use() -> None:
        async with aws:
            assert aws.is_alive()
            assert aws.env["AWS_ENDPOINT_URL"] == aws.endpoint_url

    run_apart(use())
    assert not aws.is_alive()


def test_a_fault_with_a_mistake_is_refused(aws: LocalAws) -> None:
    clients: Any = Clients(aws)
    with pytest.raises(OSError, match="400"):
        clients.fault(jobs="typo")
