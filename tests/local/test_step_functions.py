"""Step Functions of the embedded AWS, where retraining relies on what AWS does."""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.support import Clients, is_alive, training, until

pytestmark = pytest.mark.system
SYNC = "arn:aws:states:::sagemaker:createTrainingJob.sync"


def request(**hyperparameters: str) -> dict[str, Any]:
    """A training job named after its execution."""
    found = training("unused", hyperparameters=hyperparameters)
    del found["TrainingJobName"]
    return found | {"TrainingJobName.$": "$$.Execution.Name"}


def start(clients: Clients, machine: str, name: str, text: str = "{}") -> str:
    arn: str = clients.states.start_execution(stateMachineArn=machine, name=name, input=text)["executionArn"]
    return arn


def pid_of(clients: Clients, job: str) -> int:
    log: Path = clients.aws.log.parent / "logs" / "training" / f"{job}.log"

    def pid() -> int:
        return int(log.read_text().partition("pid=")[2].partition(";")[0] or 0) if log.exists() else 0

    return int(until(pid))


def test_a_sync_task_waits_for_the_job_and_returns_its_description(clients: Clients) -> None:
    selector = {"status.$": "$.TrainingJobStatus", "model.$": "$.ModelArtifacts.S3ModelArtifacts"}
    machine = clients.machine(
        "trains",
        {"Train": {"Type": "Task", "Resource": SYNC, "Parameters": request(), "ResultSelector": selector, "End": True}},
    )
    execution = clients.ended_execution(start(clients, machine, "sync-1"))
    assert execution["status"] == "SUCCEEDED"
    output = json.loads(execution["output"])
    assert output["status"] == "Completed"
    assert clients.get(output["model"])


def test_a_failed_job_fails_the_task_with_its_description(clients: Clients) -> None:
    states = {"Train": {"Type": "Task", "Resource": SYNC, "Parameters": request(do="fail"), "End": True}}
    execution = clients.ended_execution(start(clients, clients.machine("fails", states), "sync-fails"))
    assert (execution["status"], execution["error"]) == ("FAILED", "States.TaskFailed")
    assert json.loads(execution["cause"])["FailureReason"].startswith("AlgorithmError: the loss is not a number")


@pytest.mark.parametrize(
    ("resource", "parameters", "error"),
    [
        ("aws-sdk:sagemaker:describeEndpoint", {"EndpointName": "none"}, "SageMaker.SageMakerException"),
        ("aws-sdk:sagemaker:createModel", {"ModelName": "m", "Nonsense": 1}, "SageMaker.SageMakerException"),
        ("sagemaker:createTrainingJob.sync", {"TrainingJobName": "x"}, "SageMaker.AmazonSageMakerException"),
    ],
)
def test_errors_have_the_names_that_step_functions_gives_them(
    clients: Clients, resource: str, parameters: dict[str, Any], error: str
) -> None:
    name = "errors-" + resource.replace(":", "-").replace(".", "-")
    states = {
        "Call": {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Parameters": parameters, "End": True}
    }
    execution = clients.ended_execution(start(clients, clients.machine(name, states), name))
    assert (execution["status"], execution["error"]) == ("FAILED", error)


def test_a_job_name_that_is_in_use_can_be_caught(clients: Clients) -> None:
    clients.sagemaker.create_training_job(**training("taken"))
    states = {
        "Train": {
            "Type": "Task",
            "Resource": SYNC,
            "Parameters": request(),
            "Catch": [{"ErrorEquals": ["SageMaker.ResourceInUseException"], "Next": "Taken"}],
            "End": True,
        },
        "Taken": {"Type": "Succeed"},
    }
    execution = clients.ended_execution(start(clients, clients.machine("taken", states), "taken"))
    assert execution["status"] == "SUCCEEDED"


def test_stopping_an_execution_kills_its_job(clients: Clients) -> None:
    states = {"Train": {"Type": "Task", "Resource": SYNC, "Parameters": request(do="hang"), "End": True}}
    url = clients.queue_of("aborted", {"source": ["aws.states"], "detail": {"name": ["abort"], "status": ["ABORTED"]}})
    arn = start(clients, clients.machine("hangs", states), "abort")
    pid = pid_of(clients, "abort")
    clients.states.stop_execution(executionArn=arn, cause="enough")
    until(lambda: not is_alive(pid))
    assert clients.ended_training("abort")["TrainingJobStatus"] == "Stopped"
    assert clients.states.describe_execution(executionArn=arn)["status"] == "ABORTED"
    assert clients.next_event(url)["detail"]["executionArn"] == arn


def test_a_task_that_times_out_stops_its_job(clients: Clients) -> None:
    task = {"Type": "Task", "Resource": SYNC, "Parameters": request(do="hang"), "End": True}
    states = {"Train": {**task, "TimeoutSecondsPath": "$.seconds"}}
    execution = clients.ended_execution(start(clients, clients.machine("slow", states), "slow", '{"seconds": 1}'))
    assert (execution["status"], execution["error"]) == ("FAILED", "States.Timeout")
    assert clients.ended_training("slow")["TrainingJobStatus"] == "Stopped"


def test_starting_twice_with_one_name_and_input_is_starting_once(clients: Clients) -> None:
    machine = clients.machine("waits", {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}})
    first = start(clients, machine, "same", '{"a": 1}')
    assert start(clients, machine, "same", '{"a": 1}') == first
    with pytest.raises(clients.states.exceptions.ExecutionAlreadyExists):
        start(clients, machine, "same", '{"a": 2}')
    clients.states.stop_execution(executionArn=first)
    with pytest.raises(clients.states.exceptions.ExecutionAlreadyExists):
        start(clients, machine, "same", '{"a": 1}')


@pytest.mark.parametrize(
    ("name", "text", "code"), [("n" * 81, "{}", "InvalidName"), ("n", "{", "InvalidExecutionInput")]
)
def test_a_wrong_start_is_refused(clients: Clients, name: str, text: str, code: str) -> None:
    machine = clients.machine("passes", {"Pass": {"Type": "Pass", "End": True}})
    with pytest.raises(ClientError) as refused:
        clients.states._make_api_call("StartExecution", {"stateMachineArn": machine, "name": name, "input": text})
    assert refused.value.response["Error"]["Code"] == code


def test_an_execution_longer_than_its_machine_allows_is_timed_out(clients: Clients) -> None:
    states = {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}
    execution = clients.ended_execution(start(clients, clients.machine("limited", states, TimeoutSeconds=1), "limited"))
    assert execution["status"] == "TIMED_OUT"


def asks_for_approval(clients: Clients, name: str, **fields: Any) -> tuple[str, str]:
    """A machine that waits for a task token sent to a queue, and the queue."""
    url: str = clients.sqs.create_queue(QueueName=name)["QueueUrl"]
    body = {"token.$": "$$.Task.Token", "source": "retrainer"}
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": url, "MessageBody": body},
        "End": True,
    }
    return clients.machine(name, {"Ask": {**task, **fields}}), url


def test_an_approval_by_task_token_continues_the_execution(clients: Clients) -> None:
    machine, url = asks_for_approval(clients, "approval", TimeoutSeconds=60)
    arn = start(clients, machine, "approval")
    token = clients.next_event(url)["token"]
    clients.states.send_task_success(taskToken=token, output='{"approved": true}')
    execution = clients.ended_execution(arn)
    assert (execution["status"], execution["output"]) == ("SUCCEEDED", '{"approved": true}')


def test_the_token_of_a_stopped_execution_is_void(clients: Clients) -> None:
    machine, url = asks_for_approval(clients, "withdrawn", TimeoutSeconds=60)
    arn = start(clients, machine, "withdrawn")
    token = clients.next_event(url)["token"]
    clients.states.stop_execution(executionArn=arn)
    with pytest.raises(clients.states.exceptions.TaskDoesNotExist):
        clients.states.send_task_success(taskToken=token, output="{}")


def test_a_token_without_heartbeats_times_out(clients: Clients) -> None:
    machine, _ = asks_for_approval(clients, "silent", TimeoutSeconds=60, HeartbeatSeconds=1)
    execution = clients.ended_execution(start(clients, machine, "silent"))
    assert (execution["status"], execution["error"]) == ("FAILED", "States.HeartbeatTimeout")
