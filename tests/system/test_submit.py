"""`retrainer submit`: one training job by SageMaker's own SDK, which is told where AWS is by AWS_ENDPOINT_URL alone."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from retrainer.local.aws import LocalAws
from tests.system import data

pytestmark = pytest.mark.system

BUCKET = "trials"


class Trials:
    """An embedded AWS with a bucket of interactions, and somebody who submits jobs to it."""

    def __init__(self, aws: LocalAws) -> None:
        self._environment = {**os.environ, **aws.env}
        session = boto3.Session("test", "test", region_name=aws.env["AWS_REGION"])
        self.s3: Any = session.client("s3", endpoint_url=aws.endpoint_url)
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_object(Bucket=BUCKET, Key="rows/0.parquet", Body=data.batch(0))

    def submit(self, *options: str) -> "subprocess.CompletedProcess[str]":
        command = [
            *(sys.executable, "-m", "retrainer", "submit", "--image", "registry.example/trainer:1"),
            *("--role", "arn:aws:iam::000000000000:role/sagemaker", "--channel", f"train=s3://{BUCKET}/rows/"),
            *("--output", f"s3://{BUCKET}/models", *options),
        ]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with LocalAws(tmp_path_factory.mktemp("aws")) as aws:
        yield Trials(aws)


def test_a_submitted_job_trains_and_says_where_its_model_lies(trials: Trials, tmp_path: Path) -> None:
    done = trials.submit("model=ease")
    assert done.returncode == 0, done.stderr
    told = re.search(rf"Completed, s3://{BUCKET}/(\S+/output/model.tar.gz)$", done.stdout, re.MULTILINE)
    assert told, done.stdout
    packed = trials.s3.get_object(Bucket=BUCKET, Key=told[1])["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest
        assert json.load(manifest)["data"]["channels"]["train"]["uri"] == f"s3://{BUCKET}/rows/"


def test_a_job_that_fails_ends_the_command_with_1_and_its_reason(trials: Trials) -> None:
    done = trials.submit("--on-demand", "model=nonsense")
    assert done.returncode == 1
    assert "hyperparameter 'model' is 'nonsense'; give one of sasrec, ease" in done.stdout
