"""Validate: before anything is paid for, is everything there that training will need?

Checks the names, the manifest's hash and content, and every object's existence, version and columns (footers only);
finds the champion; and writes `preprocess.json`, the pinned list of objects that preprocessing reads.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from steps import champion, clients, names
from steps.errors import DataError, InputError, ManifestError
from steps.objects import MISSING, ObjectFile, Uri, code_of, parse_uri, write_document
from steps.parquet import check_columns, open_part

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READERS = 16
"""Footers read at once; each is two round trips and a few KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An object of the manifest as it was found: from here on it is read at this ETag or not at all."""

    uri: str
    etag: str
    rows: int
    size_bytes: int


def validate(request: Mapping[str, Any], execution: str) -> dict[str, Any]:
    """Raises InputError, ManifestError or DataError; else what the later states need to know."""
    s3 = clients.s3()
    model, bucket, data = request["model"], request["bucket"], request["data"]
    names.check_names(execution, model, request["generation"], [c["name"] for c in request["candidates"]])
    check_timeouts(request["timeouts"])
    check_format(data.get("format", "parquet"))
    manifest = read_manifest(s3, request["manifest"], names.within(bucket, execution, "manifest.json"))
    objects = check_manifest(manifest, request)
    listed = inspect(s3, objects, data["required_columns"], data["timestamp"])
    rows = sum(found.rows for found in listed)
    if rows == 0:
        raise DataError(f"The {len(listed)} objects of the manifest hold no rows.")
    known = champion.resolve(s3, clients.sagemaker(), bucket, model)
    write_document(
        s3,
        names.within(bucket, execution, "preprocess.json"),
        {
            "objects": [asdict(found) for found in listed],
            "required_columns": list(data["required_columns"]),
            "timestamp": data["timestamp"],
            "holdout_share": data["holdout_share"],
            "champion_model_data_url": None if known is None else known.model_data_url,
        },
    )
    return {
        "rows": rows,
        "bytes": sum(found.size_bytes for found in listed),
        "champion_generation": 0 if known is None else known.generation,
    }


def check_timeouts(timeouts: Mapping[str, int]) -> None:
    """CreateTrainingJob refuses a spot job that may wait for less than it may run."""
    training, wait = timeouts["training_seconds"], timeouts["wait_seconds"]
    if not 0 < training <= wait:
        raise InputError(f"wait_seconds is {wait}, less than training_seconds, {training}; it includes the training.")


def check_format(written_as: str) -> None:
    """The daemon measures CSV and JSON lines too; these steps and the trainer read parquet only."""
    if written_as != "parquet":
        raise InputError(
            f"data.format is {written_as}, and this state machine trains on parquet only; write the batches as "
            "parquet, or name a state machine in action.state_machine that reads them."
        )


def read_manifest(s3: "S3Client", given: Mapping[str, str], expected: Uri) -> dict[str, Any]:
    """Raises ManifestError unless it lies at its place and its bytes are the ones the decision was made with."""
    if given["uri"] != str(expected):
        raise ManifestError(f"The manifest {given['uri']} is not at {expected}.")
    try:
        body = s3.get_object(Bucket=expected.bucket, Key=expected.key)["Body"].read()
    except s3.exceptions.ClientError as error:
        if code_of(error) in MISSING:
            raise ManifestError(f"The manifest {expected} does not exist.") from error
        raise
    found = hashlib.sha256(body).hexdigest()
    if found != given["sha256"]:
        raise ManifestError(f"The manifest {expected} has sha256 {found}, not {given['sha256']}.")
    try:
        manifest = json.loads(body)
    except ValueError as error:
        raise ManifestError(f"The manifest {expected} is not JSON.") from error
    if not isinstance(manifest, dict):
        raise ManifestError(f"The manifest {expected} is not a JSON object.")
    return manifest


def check_manifest(manifest: Mapping[str, Any], request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The manifest's objects; raises ManifestError when it is about something else, or lists what it may not."""
    for key in ("model", "generation"):
        if manifest.get(key) != request[key]:
            raise ManifestError(f"The manifest is for {key} {manifest.get(key)!r}, not {request[key]!r}.")
    objects = manifest.get("objects") or []
    if not objects:
        raise ManifestError("The manifest lists no objects.")
    for listed in objects:
        if not str(listed.get("uri", "")).startswith(f"s3://{request['bucket']}/data/"):
            raise ManifestError(
                f"The manifest lists {listed.get('uri')!r}, which is not under s3://{request['bucket']}/data/."
            )
    return list(objects)


def inspect(
    s3: "S3Client", objects: Sequence[Mapping[str, Any]], required: Sequence[str], timestamp: str
) -> list[Listed]:
    """Every object's footer, in the manifest's order; the first object that is wrong raises DataError."""

    def look(listed: Mapping[str, Any]) -> Listed:
        uri = parse_uri(listed["uri"])
        source = ObjectFile(s3, uri, listed.get("etag"))
        part = open_part(str(uri), cast(BinaryIO, io.BufferedReader(source, 64 * 1024)))
        check_columns(part, required, timestamp)
        return Listed(uri=str(uri), etag=source.etag, rows=part.rows, size_bytes=source.size)

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(look, objects))


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    return validate(event["request"], event["execution"])
