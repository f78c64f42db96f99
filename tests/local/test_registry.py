"""The model registry of the local SageMaker."""

import pytest
from botocore.exceptions import ClientError

from tests.local.support import BUCKET, Clients

pytestmark = pytest.mark.system
SPECIFICATION = {
    "Containers": [{"Image": "registry.example/server:1", "ModelDataUrl": f"s3://{BUCKET}/m.tar.gz"}],
    "SupportedContentTypes": ["application/json"],
    "SupportedResponseMIMETypes": ["application/json"],
}


def register(clients: Clients, group: str, **fields: object) -> str:
    created = clients.sagemaker.create_model_package(
        ModelPackageGroupName=group, InferenceSpecification=SPECIFICATION, **fields
    )
    arn: str = created["ModelPackageArn"]
    return arn


def test_packages_of_a_group_are_numbered_and_keep_what_was_said_of_them(clients: Clients) -> None:
    clients.sagemaker.create_model_package_group(ModelPackageGroupName="numbered", Tags=[{"Key": "k", "Value": "v"}])
    metrics = {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://b/e.json"}}}
    first = register(clients, "numbered", CustomerMetadataProperties={"generation": "1"}, ModelMetrics=metrics)
    second = register(clients, "numbered", ModelApprovalStatus="Approved")
    assert first.endswith("model-package/numbered/1")
    assert second.endswith("model-package/numbered/2")
    package = clients.sagemaker.describe_model_package(ModelPackageName=first)
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert package["ModelPackageVersion"] == 1
    assert package["CustomerMetadataProperties"] == {"generation": "1"}
    assert package["ModelMetrics"] == metrics
    assert package["InferenceSpecification"] == SPECIFICATION
    approved = clients.sagemaker.list_model_packages(ModelPackageGroupName="numbered", ModelApprovalStatus="Approved")
    assert [summary["ModelPackageArn"] for summary in approved["ModelPackageSummaryList"]] == [second]
    latest = clients.sagemaker.list_model_packages(ModelPackageGroupName="numbered", MaxResults=1)
    assert latest["ModelPackageSummaryList"][0]["ModelPackageArn"] == second
    group = clients.sagemaker.describe_model_package_group(ModelPackageGroupName="numbered")
    tags = clients.sagemaker.list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"]
    assert tags == [{"Key": "k", "Value": "v"}]


def test_an_approval_is_announced_on_the_event_bus(clients: Clients) -> None:
    clients.sagemaker.create_model_package_group(ModelPackageGroupName="announced")
    arn = register(clients, "announced")
    url = clients.queue_of(
        "approvals", {"source": ["aws.sagemaker"], "detail": {"ModelPackageGroupName": ["announced"]}}
    )
    clients.sagemaker.update_model_package(
        ModelPackageArn=arn,
        ModelApprovalStatus="Approved",
        ApprovalDescription="good",
        CustomerMetadataProperties={"by": "Ada"},
    )
    event = clients.next_event(url)
    assert event["detail-type"] == "SageMaker Model Package State Change"
    assert event["resources"] == [arn]
    assert event["detail"]["ModelApprovalStatus"] == "Approved"
    package = clients.sagemaker.describe_model_package(ModelPackageName=arn)
    assert (package["ApprovalDescription"], package["CustomerMetadataProperties"]) == ("good", {"by": "Ada"})


def test_what_is_not_in_the_registry_is_not_found(clients: Clients) -> None:
    with pytest.raises(ClientError, match="does not exist"):
        register(clients, "no-such-group")
    with pytest.raises(ClientError, match="does not exist"):
        clients.sagemaker.describe_model_package(ModelPackageName="no-such-package")


def test_a_group_with_packages_cannot_be_deleted(clients: Clients) -> None:
    clients.sagemaker.create_model_package_group(ModelPackageGroupName="full")
    arn = register(clients, "full")
    with pytest.raises(clients.sagemaker.exceptions.ConflictException):
        clients.sagemaker.delete_model_package_group(ModelPackageGroupName="full")
    clients.sagemaker.delete_model_package(ModelPackageName=arn)
    clients.sagemaker.delete_model_package_group(ModelPackageGroupName="full")
    with pytest.raises(ClientError, match="does not exist"):
        clients.sagemaker.describe_model_package_group(ModelPackageGroupName="full")
