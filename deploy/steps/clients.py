"""AWS clients, made once a process. Region, credentials and endpoint come from the environment alone."""

from functools import cache
from typing import TYPE_CHECKING, Protocol

import boto3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient


class Topics(Protocol):
    """The one call of SNS that is used; its stubs would be a dependency for a single method."""

    def publish(self, *, TopicArn: str, Subject: str, Message: str) -> object: ...  # noqa: N803


@cache
def s3() -> "S3Client":
    return boto3.client("s3")


@cache
def sagemaker() -> "SageMakerClient":
    return boto3.client("sagemaker")


@cache
def sns() -> Topics:
    client: Topics = boto3.client("sns")
    return client
