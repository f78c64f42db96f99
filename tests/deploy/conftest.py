"""One embedded AWS for all tests of the steps: real S3 and SageMaker protocols on a loopback port."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrainer.local.aws import LocalAws
from steps import clients
from tests.deploy import fake_image
from tests.deploy.aws_clients import client

HERE = Path(__file__).parent
NAMES = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the embedded AWS here starts a real process."""
    for item in items:
        if item.path.parent == HERE and "aws" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """The environment of this process points to it while the tests run, as a Lambda function's would to AWS."""
    images = {"fake": fake_image.command()}
    with (
        LocalAws(tmp_path_factory.mktemp("aws"), images=images) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in running.env.items():
            patch.setenv(name, value)
        caches = (clients.s3, clients.sagemaker, clients.sns)
        for cached in caches:
            cached.cache_clear()
        yield running
        for cached in caches:
            cached.cache_clear()


@pytest.fixture
def bucket(aws: LocalAws) -> str:
    name = f"bucket-{next(NAMES)}"
    client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def model() -> str:
    """A name of its own, so that tests share the endpoint service and no endpoint."""
    return f"model{next(NAMES)}"
