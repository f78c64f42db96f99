"""Endpoints of the local SageMaker: real serving processes behind InvokeEndpoint."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.support import BUCKET, ROLE, Clients, archive, is_alive, until

pytestmark = pytest.mark.system


def configure(clients: Clients, name: str, **files: str) -> None:
    """A model and an endpoint configuration of the same name, whose model directory has these files."""
    url = clients.put(f"serving/{name}/model.tar.gz", archive(name=name, **files))
    clients.sagemaker.create_model(
        ModelName=name,
        PrimaryContainer={"Image": "registry.example/server:1", "ModelDataUrl": url},
        ExecutionRoleArn=ROLE,
    )
    variant = {"VariantName": "all", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    clients.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def settled(clients: Clients, name: str) -> dict[str, Any]:
    def endpoint() -> Any:
        found = clients.sagemaker.describe_endpoint(EndpointName=name)
        return found if found["EndpointStatus"] in {"InService", "Failed"} else None

    found: dict[str, Any] = until(endpoint)
    return found


def ask(clients: Clients, name: str, body: bytes = b'{"k": 1}') -> dict[str, Any]:
    answer = clients.runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="application/json")
    assert answer["InvokedProductionVariant"] == "all"
    found: dict[str, Any] = json.loads(answer["Body"].read())
    return found


def test_an_update_switches_when_the_new_container_is_healthy(clients: Clients) -> None:
    configure(clients, "v1")
    configure(clients, "v2")
    clients.sagemaker.create_endpoint(EndpointName="shop", EndpointConfigName="v1")
    assert settled(clients, "shop")["EndpointConfigName"] == "v1"
    before = ask(clients, "shop")
    assert (before["model"], before["request"]) == ("v1", {"k": 1})
    clients.sagemaker.update_endpoint(EndpointName="shop", EndpointConfigName="v2")
    assert ask(clients, "shop")["model"] in {"v1", "v2"}
    endpoint = settled(clients, "shop")
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "v2")
    assert ask(clients, "shop")["model"] == "v2"
    until(lambda: not is_alive(before["pid"]))
    clients.sagemaker.delete_endpoint(EndpointName="shop")
    until(lambda: not clients.sagemaker.list_endpoints(NameContains="shop")["Endpoints"])
    with pytest.raises(ClientError, match="not found"):
        ask(clients, "shop")


def test_a_new_container_that_dies_rolls_the_update_back(clients: Clients) -> None:
    configure(clients, "good")
    configure(clients, "broken", dead="")
    clients.sagemaker.create_endpoint(EndpointName="steady", EndpointConfigName="good")
    settled(clients, "steady")
    clients.sagemaker.update_endpoint(EndpointName="steady", EndpointConfigName="broken")
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        clients.sagemaker.update_endpoint(EndpointName="steady", EndpointConfigName="good")
    endpoint = settled(clients, "steady")
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "good")
    assert endpoint["FailureReason"] == "The serving container ended with exit code 5: no weights"
    assert ask(clients, "steady")["model"] == "good"


def test_an_endpoint_without_model_data_fails(clients: Clients) -> None:
    configure(clients, "lost")
    clients.s3.delete_object(Bucket=BUCKET, Key="serving/lost/model.tar.gz")
    clients.sagemaker.create_endpoint(EndpointName="lost", EndpointConfigName="lost")
    endpoint = settled(clients, "lost")
    assert endpoint["EndpointStatus"] == "Failed"
    assert endpoint["FailureReason"].startswith("Failed to download model data")


def test_a_container_that_dies_in_service_is_started_again(clients: Clients) -> None:
    configure(clients, "mortal")
    clients.sagemaker.create_endpoint(EndpointName="mortal", EndpointConfigName="mortal")
    settled(clients, "mortal")
    first = ask(clients, "mortal")["pid"]
    with pytest.raises(ClientError):
        ask(clients, "mortal", b"die")

    def answers_again() -> bool:
        try:
            return bool(ask(clients, "mortal")["pid"] != first)
        except ClientError:
            return False

    until(answers_again)


def test_an_error_of_the_container_is_a_model_error(clients: Clients) -> None:
    configure(clients, "strict")
    clients.sagemaker.create_endpoint(EndpointName="strict", EndpointConfigName="strict")
    settled(clients, "strict")
    with pytest.raises(clients.runtime.exceptions.ModelError) as refused:
        ask(clients, "strict", b"not json")
    assert refused.value.response["OriginalStatusCode"] == 415


def test_what_an_endpoint_is_made_of_must_exist(clients: Clients) -> None:
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        clients.sagemaker.create_endpoint(EndpointName="x", EndpointConfigName="missing")
    with pytest.raises(ClientError, match="Could not find endpoint "):
        clients.sagemaker.describe_endpoint(EndpointName="missing")
    variant = {"VariantName": "all", "ModelName": "missing"}
    with pytest.raises(ClientError, match="Could not find model "):
        clients.sagemaker.create_endpoint_config(EndpointConfigName="x", ProductionVariants=[variant])
