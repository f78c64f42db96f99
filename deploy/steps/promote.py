"""Promote: close the fence, then point the endpoint at the new model; and crown it once it was seen serving.

Two actions of one function. `begin` may be repeated at will: every name in it is the execution's, and what is already
there is left alone. `crown` writes the champion pointer. Between them the state machine waits for the endpoint.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from steps import champion, clients
from steps.errors import EndpointBusyError, PromotionError
from steps.objects import code_of

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import DescribeEndpointOutputTypeDef

PATIENCE_SECONDS = 7200
"""How long a change of the endpoint may take before the execution gives up on it."""
ROLLOUT = {"canary_percent": 10, "bake_seconds": 300, "alarms": []}
"""Of an execution that began before policies said it; 300 s is the shortest time in which a 1-minute alarm with 3 of
3 points can fire."""
SETTLED = frozenset({"InService", "OutOfService"})
DEAD = frozenset({"Failed", "UpdateRollbackFailed"})


def begin(event: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Superseded with a reason, or the endpoint is on its way to the execution's own configuration."""
    request, model = event["request"], event["request"]["model"]
    challenger = _challenger(event)
    in_the_way = champion.close_fence(clients.s3(), request["bucket"], challenger, event["judged_against"])
    if in_the_way is None:
        sagemaker, count = clients.sagemaker(), int(environment["SERVING_INSTANCE_COUNT"])
        _create_model(sagemaker, challenger, environment)
        _create_config(sagemaker, challenger, request["serving_instance_type"], count)
        rollout: Mapping[str, Any] = request.get("rollout", ROLLOUT)
        alarms = rollout["alarms"] or [name for name in environment["ROLLBACK_ALARMS"].split(",") if name]
        how = deployment(count, alarms, rollout["canary_percent"], rollout["bake_seconds"])
        turn_endpoint(sagemaker, model, challenger.endpoint_config, how)
    return {
        "superseded": in_the_way is not None,
        "reason": in_the_way,
        "endpoint_config": challenger.endpoint_config,
        "polls_max": math.ceil(PATIENCE_SECONDS / max(1, request["poll_seconds"])),
    }


def crown(event: Mapping[str, Any]) -> dict[str, Any]:
    """The endpoint serves the challenger: say so in the champion pointer."""
    later = champion.crown(clients.s3(), event["request"]["bucket"], _challenger(event))
    return {"superseded": later is not None, "reason": later}


def turn_endpoint(sagemaker: "SageMakerClient", model: str, config: str, how: dict[str, Any] | None) -> None:
    """Create or update; nothing when it already has, or is on its way to, this configuration.

    Raises EndpointBusyError while another change is under way, and PromotionError for our own change that failed.
    """
    endpoint = _describe(sagemaker, model)
    if endpoint is None:
        sagemaker.create_endpoint(EndpointName=model, EndpointConfigName=config)
        return
    status = endpoint["EndpointStatus"]
    if status in DEAD:
        # Neither can be updated any more (SageMaker, DescribeEndpoint: "you can only delete"); it serves nobody.
        sagemaker.delete_endpoint(EndpointName=model)
        raise EndpointBusyError(f"The endpoint {model} was {status} and is being deleted.")
    pending = endpoint.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
    if config in (endpoint.get("EndpointConfigName"), pending):
        return
    if status not in SETTLED:
        raise EndpointBusyError(f"The endpoint {model} is {status}.")
    extra = {} if how is None else {"DeploymentConfig": how}
    sagemaker.update_endpoint(EndpointName=model, EndpointConfigName=config, **extra)  # type: ignore[arg-type]


def deployment(instances: int, alarms: Sequence[str], canary_percent: int, bake_seconds: int) -> dict[str, Any]:
    """Blue/green; a canary where there are two instances or more, as a canary may be at most half of them.

    The bake time lies between the canary and the rest, and again before the old fleet goes.
    AutoRollbackConfiguration needs 1 to 10 alarms; without one SageMaker still rolls back what fails its health check.
    """
    canary = {
        "Type": "CANARY",
        "WaitIntervalInSeconds": bake_seconds,
        "CanarySize": {"Type": "INSTANCE_COUNT", "Value": max(1, instances * canary_percent // 100)},
    }
    at_once = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": bake_seconds if alarms else 0}
    how: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": canary if instances > 1 else at_once,
            "TerminationWaitInSeconds": bake_seconds if alarms else 0,
        }
    }
    if alarms:
        how["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return how


def _challenger(event: Mapping[str, Any]) -> champion.Champion:
    return champion.Champion(
        model=event["request"]["model"],
        generation=event["request"]["generation"],
        model_package_arn=event["model_package_arn"],
        model_data_url=event["model_data_url"],
        endpoint_config=event["execution"],
        execution=event["execution"],
    )


def _create_model(sagemaker: "SageMakerClient", challenger: champion.Champion, environment: Mapping[str, str]) -> None:
    try:
        sagemaker.create_model(
            ModelName=challenger.execution,
            ExecutionRoleArn=environment["SAGEMAKER_ROLE_ARN"],
            EnableNetworkIsolation=True,
            PrimaryContainer={
                "Image": environment["TRAINER_IMAGE"],
                "ModelDataUrl": challenger.model_data_url,
                "Environment": {
                    "RETRAINER_MODEL": challenger.model,
                    "RETRAINER_GENERATION": str(challenger.generation),
                },
            },
            Tags=[{"Key": "retrainer:model-package", "Value": challenger.model_package_arn}],
        )
    except ClientError as error:
        _unless_it_exists(error)


def _create_config(sagemaker: "SageMakerClient", challenger: champion.Champion, instance_type: str, count: int) -> None:
    try:
        sagemaker.create_endpoint_config(
            EndpointConfigName=challenger.endpoint_config,
            ProductionVariants=[
                {  # type: ignore[list-item,misc]
                    "VariantName": "champion",
                    "ModelName": challenger.execution,
                    "InstanceType": instance_type,
                    "InitialInstanceCount": count,
                    "InitialVariantWeight": 1.0,
                }
            ],
        )
    except ClientError as error:
        _unless_it_exists(error)


def _unless_it_exists(error: ClientError) -> None:
    """SageMaker: ValidationException "Cannot create already existing model ..."; same name is same content here."""
    if "already exist" not in str(error):
        raise PromotionError(f"SageMaker refuses the new model: {_said(error)}") from error


def _describe(sagemaker: "SageMakerClient", model: str) -> "DescribeEndpointOutputTypeDef | None":
    try:
        return sagemaker.describe_endpoint(EndpointName=model)
    except ClientError as error:
        if champion.is_missing(error):
            return None
        raise


def _said(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", code_of(error)))


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    return begin(event, os.environ) if event["action"] == "begin" else crown(event)
