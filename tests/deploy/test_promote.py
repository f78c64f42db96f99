"""Promote against real endpoints: from the fence to serving, to rolling back, and through a crash in between."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from retrainer.local.aws import LocalAws
from steps import champion, promote
from steps.errors import EndpointBusyError
from tests.deploy import fake_image
from tests.deploy.aws_clients import client
from tests.deploy.batches import request

ROLE = "arn:aws:iam::000000000000:role/sagemaker"
ENVIRONMENT = {
    "TRAINER_IMAGE": fake_image.IMAGE,
    "SAGEMAKER_ROLE_ARN": ROLE,
    "SERVING_INSTANCE_COUNT": "1",
    "ROLLBACK_ALARMS": "",
}


def event(bucket: str, model: str, generation: int, score: str, judged_against: int = 0) -> dict[str, Any]:
    execution, given = request(bucket, model, [], generation)
    key = f"executions/{execution}/models/job/output/model.tar.gz"
    client("s3").put_object(Bucket=bucket, Key=key, Body=fake_image.archive(score))
    return {
        "request": given,
        "execution": execution,
        "model_package_arn": f"arn:aws:sagemaker:us-east-1:000000000000:model-package/{model}/{generation}",
        "model_data_url": f"s3://{bucket}/{key}",
        "judged_against": judged_against,
    }


def settled(model: str) -> dict[str, Any]:
    """The endpoint once it is neither being created nor updated."""
    sagemaker = client("sagemaker")
    return eventually(
        lambda: dict(sagemaker.describe_endpoint(EndpointName=model)),
        lambda found: not found["EndpointStatus"].endswith("ing"),
    )


def eventually(look: Callable[[], dict[str, Any]], fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while not fits(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_a_model_serves_before_it_is_crowned(bucket: str, model: str) -> None:
    given = event(bucket, model, 1, "0.2")
    begun = promote.begin(given, ENVIRONMENT)
    assert not begun["superseded"]
    assert champion.read(client("s3"), bucket, model) is None
    assert settled(model)["EndpointConfigName"] == begun["endpoint_config"] == given["execution"]
    assert promote.crown(given) == {"superseded": False, "reason": None}
    crowned = champion.read(client("s3"), bucket, model)
    assert crowned is not None
    assert crowned.model_data_url == given["model_data_url"]


def test_beginning_again_changes_nothing(bucket: str, model: str) -> None:
    given = event(bucket, model, 1, "0.2")
    first = promote.begin(given, ENVIRONMENT)
    settled(model)
    assert promote.begin(given, ENVIRONMENT) == first
    assert settled(model)["EndpointStatus"] == "InService"


def test_a_model_that_does_not_come_up_leaves_endpoint_and_pointer_where_they_were(bucket: str, model: str) -> None:
    good, broken = event(bucket, model, 1, "0.2"), event(bucket, model, 2, "broken", judged_against=1)
    promote.begin(good, ENVIRONMENT)
    settled(model)
    promote.crown(good)
    assert not promote.begin(broken, ENVIRONMENT)["superseded"]
    found = settled(model)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", good["execution"])
    crowned = champion.read(client("s3"), bucket, model)
    assert crowned is not None
    assert crowned.generation == 1


def test_a_crash_between_serving_and_crowning_is_made_good_by_the_next_execution(bucket: str, model: str) -> None:
    given = event(bucket, model, 1, "0.2")
    promote.begin(given, ENVIRONMENT)
    settled(model)
    found = champion.resolve(client("s3"), client("sagemaker"), bucket, model)
    assert found is not None
    assert found.generation == 1
    assert champion.read(client("s3"), bucket, model) == found


def test_a_fence_whose_model_does_not_serve_makes_no_champion(bucket: str, model: str) -> None:
    given = event(bucket, model, 1, "broken")
    promote.begin(given, ENVIRONMENT)
    assert settled(model)["EndpointStatus"] == "Failed"
    assert champion.resolve(client("s3"), client("sagemaker"), bucket, model) is None


def test_a_dead_endpoint_is_deleted_and_made_anew(bucket: str, model: str) -> None:
    promote.begin(event(bucket, model, 1, "broken"), ENVIRONMENT)
    settled(model)
    given = event(bucket, model, 2, "0.2")
    with pytest.raises(EndpointBusyError, match=f"The endpoint {model} was Failed and is being deleted"):
        promote.begin(given, ENVIRONMENT)
    eventually(lambda: {"config": _begun(given)}, lambda found: found["config"] == given["execution"])
    assert settled(model)["EndpointStatus"] == "InService"


def test_a_late_execution_touches_no_endpoint(bucket: str, model: str, aws: LocalAws) -> None:
    newer = event(bucket, model, 2, "0.2")
    assert champion.close_fence(client("s3"), bucket, promote._challenger(newer), 0) is None
    found = promote.begin(event(bucket, model, 1, "0.2"), ENVIRONMENT)
    assert found["superseded"]
    assert found["reason"] == "Generation 2 took the fence before generation 1."
    assert champion.serving_config(client("sagemaker"), model) is None


def test_one_instance_is_replaced_at_once_and_several_by_a_canary_of_at_most_half() -> None:
    assert _routing(1, [])["Type"] == "ALL_AT_ONCE"
    for count in (2, 3, 10, 50):
        canary = _routing(count, [])
        assert canary["Type"] == "CANARY"
        assert 1 <= canary["CanarySize"]["Value"] <= count / 2


def test_alarms_roll_back_and_are_given_time_to_fire() -> None:
    how = promote.deployment(1, ["errors"], 10, 600)
    assert how["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "errors"}]}
    assert how["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] == 600
    assert "AutoRollbackConfiguration" not in promote.deployment(1, [], 10, 600)


def _routing(count: int, alarms: list[str]) -> dict[str, Any]:
    return dict(promote.deployment(count, alarms, 10, 300)["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"])


def _begun(given: dict[str, Any]) -> str | None:
    try:
        return str(promote.begin(given, ENVIRONMENT)["endpoint_config"])
    except EndpointBusyError:
        return None
