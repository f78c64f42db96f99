"""A function that greets, and looks into the bucket with the SDK's defaults."""

import os
from typing import Any

import boto3
import pyarrow


class NamelessError(Exception):
    pass


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    if not event["name"]:
        raise NamelessError("nobody to greet")
    found = boto3.client("s3").list_objects_v2(Bucket=os.environ["BUCKET"]).get("Contents", [])
    greeting = os.environ["GREETING"]
    return {
        "said": f"{greeting} {event['name']}",
        "keys": [item["Key"] for item in found],
        "arrow": pyarrow.__version__,
    }
