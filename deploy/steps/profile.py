"""Profiles of batches that are too large for the daemon's own worker, computed by the worker's code, object by object.

    choose_grid    the manifest -> the grid, stored unless it is, and a list of the objects without a profile on it
    count_object   one object of the list -> its profile, stored

What an object cannot be used for is no failure here: it gets no profile, so the worker reads it, and refuses it with
the reason. What has a profile already, from an earlier execution or from the worker, is not read again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from retrainer.adapters.datasets import formats
from retrainer.adapters.datasets.formats import Asked, Format, Rows, UnusableError
from retrainer.adapters.datasets.profiles import Profiles, Unread, Watch
from retrainer.adapters.datasets.s3_file import S3File, check_unchanged
from retrainer.core.window import Batch
from retrainer.drift import keys, stored
from steps import clients
from steps.errors import ManifestError
from steps.objects import CONFLICT, MISSING, Uri, canonical, code_of, read_document

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

VERSION = 1
"""Of the manifest; the daemon and its stack are deployed apart."""

NO_FAULT_OF_OURS = MISSING | CONFLICT | {"NoSuchVersion", "416", "InvalidRange"} - {"NoSuchBucket"}
"""S3's answers for an object that is gone, was overwritten while it was read, or is empty."""


class Objects:
    """Implements datasets.profiles.Source; what S3 refuses otherwise is raised, and the state machine tries again."""

    def __init__(self, s3: "S3Client") -> None:
        self._s3 = s3

    def stream(
        self, batch: Batch, asked: Asked, written_as: Format, *, groups_max: int | None = None
    ) -> Iterator[Rows]:
        try:
            file = S3File(self._s3, batch)
            check_unchanged(batch, file)
            with formats.refusing(file, written_as):
                yield from formats.stream(file, written_as, asked, groups_max=groups_max)
        except ClientError as error:
            if code_of(error) in NO_FAULT_OF_OURS:
                raise UnusableError(f"S3 says {code_of(error)}") from error
            raise

    def resolved(self, batch: Batch) -> Batch:
        """Named as the worker will name it; mostly the daemon has looked it up already."""
        if batch.version:
            return batch
        try:
            seen = self._s3.head_object(Bucket=batch.bucket, Key=batch.key)
        except ClientError as error:
            if code_of(error) in MISSING:
                return batch
            raise
        return replace(batch, version=seen["ETag"].strip('"'), size_bytes=seen["ContentLength"])

    def load(self, bucket: str, key: str) -> bytes | None:
        try:
            return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise

    def save(self, bucket: str, key: str, body: bytes) -> None:
        self._s3.put_object(Bucket=bucket, Key=key, Body=body)


def choose(s3: "S3Client", manifest: Uri) -> dict[str, Any]:
    """Where the list of objects is, and the plan that each of them is counted by, both written beside the manifest."""
    document = read_document(s3, manifest)
    if document is None or document.body.get("version") != VERSION:
        raise ManifestError(f"{manifest} is no manifest of version {VERSION}.")
    asked = document.body
    folder, watch = manifest.key.rpartition("/")[0], _watch(asked, manifest.bucket)
    source = Objects(s3)
    grid, _ = Profiles(source).against(_batches(asked["grid"]), _batches(asked["statistics"]), watch)
    counted = _listed(s3, manifest.bucket, f"{watch.prefix}{grid.id}/")
    # A grid without columns is of objects that cannot be read; the worker says why.
    batches = map(source.resolved, _batches(asked["objects"]) if grid.columns else [])
    missing = [b for b in batches if keys.profile_key(watch.prefix, grid.id, b.identity, watch.demand) not in counted]
    at = f"{watch.prefix}{grid.id}/grid"
    if at not in counted:
        s3.put_object(Bucket=manifest.bucket, Key=at, Body=stored.dump(grid))
    written = {"plan": f"{folder}/plan.json", "items": f"{folder}/items.json"}
    plan = {name: asked[name] for name in ("profiles", "format", "timestamp", "required", "columns")} | {"grid": at}
    s3.put_object(Bucket=manifest.bucket, Key=written["plan"], Body=canonical(plan))
    items = [{"bucket": b.bucket, "key": b.key, "version": b.version, "size_bytes": b.size_bytes} for b in missing]
    s3.put_object(Bucket=manifest.bucket, Key=written["items"], Body=json.dumps(items).encode())
    return {**written, "missing": len(missing)}


def count(s3: "S3Client", plan: Uri, batch: Batch) -> str:
    """Store the object's profile; returns why it has none, nothing where it has one."""
    document = read_document(s3, plan)
    if document is None:
        raise ManifestError(f"{plan} is gone.")
    source = Objects(s3)
    body = source.load(plan.bucket, document.body["grid"])
    if body is None:
        raise ManifestError(f"The grid of {plan} is gone.")
    found = Profiles(source).batch(batch, stored.load_grid(body), _watch(document.body, plan.bucket))
    return found.refusal.why if isinstance(found, Unread) else ""


def choose_grid(event: dict[str, Any], _context: object) -> dict[str, Any]:
    return choose(clients.s3(), Uri(event["bucket"], event["manifest"]))


def count_object(event: dict[str, Any], _context: object) -> dict[str, Any]:
    return {"refused": count(clients.s3(), Uri(event["bucket"], event["plan"]), Batch(**event["object"]))}


def _watch(asked: Mapping[str, Any], bucket: str) -> Watch:
    return Watch(
        spec=dict(asked["columns"]),
        bucket=bucket,
        prefix=asked["profiles"],
        required=tuple(asked["required"]),
        timestamp=asked["timestamp"],
        written_as=asked["format"],
    )


def _batches(named: list[dict[str, Any]]) -> list[Batch]:
    return [Batch(**batch) for batch in named]


def _listed(s3: "S3Client", bucket: str, prefix: str) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {found["Key"] for page in pages for found in page.get("Contents", ())}
