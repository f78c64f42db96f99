"""A SAM template becomes a working stack in the embedded AWS."""

import json
from pathlib import Path

import pytest

from retrainer.local.provision import ProvisionError, provision
from tests.local.support import Clients

pytestmark = pytest.mark.system
TEMPLATE = Path(__file__).parent / "stack" / "template.yaml"


def deploy(clients: Clients, stack: str, **parameters: str) -> dict[str, str]:
    return provision(clients.aws.endpoint_url, TEMPLATE, {"BucketName": f"{stack}-data", **parameters}, stack=stack)


def greet(clients: Clients, outputs: dict[str, str], name: str) -> dict[str, object]:
    text = json.dumps({"name": name})
    started = clients.states.start_execution(stateMachineArn=outputs["StateMachineArn"], input=text)
    execution = clients.ended_execution(started["executionArn"])
    assert execution["status"] == "SUCCEEDED", execution
    found: dict[str, object] = json.loads(execution["output"])
    return found


def test_a_stack_works_and_is_updated_in_place(clients: Clients) -> None:
    outputs = deploy(clients, "greeter")
    clients.s3.put_object(Bucket="greeter-data", Key="data/rows", Body=b"1")
    assert clients.next_event(outputs["QueueUrl"])["detail"]["object"]["key"] == "data/rows"
    assert greet(clients, outputs, "Ada") == {"said": "hello Ada", "keys": ["data/rows"]}
    caught = greet(clients, outputs, "")["caught"]
    assert isinstance(caught, dict)
    assert caught["Error"] == "NamelessError"
    assert deploy(clients, "greeter") == outputs
    assert deploy(clients, "greeter", Greeting="good day") == outputs
    assert greet(clients, outputs, "Ada")["said"] == "good day Ada"


def test_an_alarm_reaches_the_queue_through_the_event_bus(clients: Clients) -> None:
    outputs = deploy(clients, "alarmed")
    clients.cloudwatch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="for the test")
    event = clients.next_event(outputs["QueueUrl"])
    assert event["detail-type"] == "CloudWatch Alarm State Change"
    assert event["resources"][0].endswith(":alarm:errors")
    assert event["detail"]["alarmName"] == "errors"
    assert event["detail"]["state"]["value"] == "ALARM"
    assert event["detail"]["previousState"]["value"] != "ALARM"


def test_a_file_that_the_template_refers_to_must_exist(clients: Clients, tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(TEMPLATE.read_text())
    with pytest.raises(ProvisionError, match=r"Function refers to .*code, which does not exist"):
        provision(clients.aws.endpoint_url, template, {"BucketName": "b-data"}, stack="broken")


def test_a_conditional_write_is_refused_when_the_condition_fails(clients: Clients) -> None:
    """The fence of a promotion rests on this."""
    deploy(clients, "fenced")
    put = {"Bucket": "fenced-data", "Key": "champion.json"}
    etag = clients.s3.put_object(**put, Body=b"1", IfNoneMatch="*")["ETag"]
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
        with pytest.raises(clients.s3.exceptions.ClientError) as refused:
            clients.s3.put_object(**put, Body=b"2", **condition)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    clients.s3.put_object(**put, Body=b"2", IfMatch=etag)
