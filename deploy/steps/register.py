"""Register: the challenger becomes a model package that waits for approval, with its whole descent written on it."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from steps import clients, names
from steps.champion import is_missing
from steps.objects import code_of

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

CONTENT_TYPE = "application/json"


def package(event: Mapping[str, Any], image: str) -> dict[str, Any]:
    """The CreateModelPackage request."""
    request, evaluation = event["request"], event["evaluation"]
    # An execution that began before models had reports of their own has the whole evaluation for one.
    whole = names.within(request["bucket"], event["execution"], "evaluation/evaluation.json")
    report = evaluation.get("quality_uri", str(whole))
    return {
        "ModelPackageGroupName": request["model"],
        "ModelPackageDescription": f"{request['model']} generation {request['generation']}: {evaluation['candidate']}",
        "ModelApprovalStatus": "PendingManualApproval",
        "InferenceSpecification": {
            "Containers": [{"Image": image, "ModelDataUrl": evaluation["model_data_url"]}],
            "SupportedContentTypes": [CONTENT_TYPE],
            "SupportedResponseMIMETypes": [CONTENT_TYPE],
            "SupportedRealtimeInferenceInstanceTypes": [request["serving_instance_type"]],
        },
        "ModelMetrics": {"ModelQuality": {"Statistics": {"ContentType": CONTENT_TYPE, "S3Uri": report}}},
        "CustomerMetadataProperties": {
            "generation": str(request["generation"]),
            "decision_id": request["decision_id"],
            "execution": event["execution"],
            "candidate": evaluation["candidate"],
            "training_job": evaluation["job"],
            "manifest": request["manifest"]["uri"],
            "manifest_sha256": request["manifest"]["sha256"],
            "metric": request["gate"]["metric"],
            "value": f"{evaluation['challenger']:.6f}",
        }
        | ({"refit": str(evaluation["refit"]).lower()} if evaluation.get("refit") is not None else {}),
    }


def register(sagemaker: "SageMakerClient", wanted: dict[str, Any]) -> str:
    """The package's ARN; an attempt that was carried out and not heard of is found again, not repeated."""
    group = wanted["ModelPackageGroupName"]
    _ensure_group(sagemaker, group)
    execution = wanted["CustomerMetadataProperties"]["execution"]
    return _registered(sagemaker, group, execution) or sagemaker.create_model_package(**wanted)["ModelPackageArn"]


def _ensure_group(sagemaker: "SageMakerClient", group: str) -> None:
    try:
        sagemaker.describe_model_package_group(ModelPackageGroupName=group)
    except ClientError as error:
        if not (is_missing(error) or code_of(error) == "ValidationException"):
            raise
        try:
            sagemaker.create_model_package_group(
                ModelPackageGroupName=group,
                ModelPackageGroupDescription=f"Every challenger of {group}, made by retrainer",
            )
        except ClientError as conflict:
            if "already exists" not in str(conflict):
                raise


def _registered(sagemaker: "SageMakerClient", group: str, execution: str) -> str | None:
    """Only the newest few can be ours: an execution registers once, and a model's executions hardly overlap."""
    newest = sagemaker.list_model_packages(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=5
    )
    for summary in newest["ModelPackageSummaryList"]:
        arn = summary["ModelPackageArn"]
        found = sagemaker.describe_model_package(ModelPackageName=arn)
        if found.get("CustomerMetadataProperties", {}).get("execution") == execution:
            return arn
    return None


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    arn = register(clients.sagemaker(), package(event, os.environ["TRAINER_IMAGE"]))
    return {"model_package_arn": arn}
