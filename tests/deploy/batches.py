"""Small batches of labelled rows, and an execution's request about them, in a real bucket."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from steps.objects import canonical
from tests.deploy.aws_clients import client

START = datetime(2026, 1, 1, tzinfo=UTC)


def batch(first: int, rows: int) -> pa.Table:
    """Row n happens n minutes after START; its user is n."""
    numbers = range(first, first + rows)
    return pa.table(
        {
            "user_id": pa.array(numbers, pa.int64()),
            "item_id": pa.array([n % 7 for n in numbers], pa.int64()),
            "timestamp": pa.array([START + timedelta(minutes=n) for n in numbers], pa.timestamp("us", tz="UTC")),
        }
    )


def parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def put(bucket: str, model: str, bodies: Sequence[bytes]) -> list[dict[str, Any]]:
    """Store the batches; what a manifest lists of them."""
    listed = []
    for number, body in enumerate(bodies):
        key = f"data/{model}/{number}.parquet"
        etag = client("s3").put_object(Bucket=bucket, Key=key, Body=body)["ETag"].strip('"')
        listed.append({"uri": f"s3://{bucket}/{key}", "etag": etag, "rows": None})
    return listed


def request(
    bucket: str, model: str, objects: Sequence[Mapping[str, Any]], generation: int = 1, **changes: Any
) -> tuple[str, dict[str, Any]]:
    """An execution's name and input, its manifest stored."""
    execution = f"{model}-g{generation}-0123abcd"
    manifest = canonical({"model": model, "generation": generation, "objects": list(objects), "rows": 0})
    key = f"executions/{execution}/manifest.json"
    client("s3").put_object(Bucket=bucket, Key=key, Body=manifest)
    given: dict[str, Any] = {
        "decision_id": f"{model}-17",
        "model": model,
        "generation": generation,
        "bucket": bucket,
        "manifest": {"uri": f"s3://{bucket}/{key}", "sha256": hashlib.sha256(manifest).hexdigest()},
        "data": {
            "format": "parquet",
            "required_columns": ["user_id", "item_id", "timestamp"],
            "timestamp": "timestamp",
            "holdout_share": 0.1,
            "rows": 0,
        },
        "candidates": [
            {"name": "good", "spot": True, "instance_type": "ml.m5.large", "hyperparameters": {"score": "0.2"}}
        ],
        "processing_instance_type": "ml.m5.large",
        "serving_instance_type": "ml.m5.large",
        "timeouts": {"training_seconds": 60, "wait_seconds": 120},
        "gate": {"metric": "ndcg_at_10", "min_gain": 0.0, "baselines": ["popularity"]},
        "approval": "auto",
        "rollout": {"canary_percent": 10, "bake_seconds": 300, "alarms": []},
        "notify": ["promoted", "refused", "rejected", "superseded", "failed"],
        "poll_seconds": 1,
    }
    return execution, given | changes
