"""One embedded AWS for all tests that do not kill it."""

from collections.abc import Iterator

import pytest

from retrainer.local.aws import LocalAws
from tests.local.support import BUCKET, IMAGES, Clients


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    state = tmp_path_factory.mktemp("aws")
    with LocalAws(state, images=IMAGES, stop_grace_seconds=1.0, endpoint_start_seconds=15.0) as aws:
        clients = Clients(aws)
        clients.s3.create_bucket(Bucket=BUCKET)
        yield clients
