"""A real S3 on a free loopback port for the tests of whatever reads batches, and batches to be read."""

import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq

from retrainer.core.window import Batch
from tests.adapters import emulator

BUCKET = "lake"


@dataclass(frozen=True)
class S3:
    """The server's client, and the environment that leads another process to it."""

    client: Any
    environment: Mapping[str, str]

    def put(self, key: str, body: bytes | Mapping[str, Any]) -> Batch:
        """Store bytes, or columns as parquet; the batch as its event would name it."""
        data = body if isinstance(body, bytes) else parquet(body)
        etag = self.client.put_object(Bucket=BUCKET, Key=key, Body=data)["ETag"].strip('"')
        return Batch(bucket=BUCKET, key=key, version=etag, size_bytes=len(data))


def parquet(columns: Mapping[str, Any]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), written)
    return written.getvalue()


def environment(endpoint: str) -> dict[str, str]:
    """This process's, but with S3 at `endpoint`."""
    aws = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-central-1"}
    return {**os.environ, **aws, "AWS_ENDPOINT_URL": endpoint}


@contextmanager
def running() -> Iterator[S3]:
    """The server, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder, emulator.running(Path(folder)) as endpoint:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="eu-central-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield S3(client, environment(endpoint))
        client.close()
