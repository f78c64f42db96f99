"""Reads columns of batches from S3, and keeps what follows from them.

What cannot be used is refused; S3 being away is no batch's fault.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from retrainer.adapters.datasets import formats
from retrainer.adapters.datasets.formats import Asked, Format, Rows, UnusableError, Want
from retrainer.adapters.datasets.remembered import Remembered
from retrainer.adapters.datasets.s3_file import TAIL_BYTES, S3File, check_unchanged
from retrainer.core.window import Batch, Refusal
from retrainer.ports import PermanentError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["TAIL_BYTES", "Asked", "Datasets", "Format", "Rows", "Want"]

KEPT_BYTES_MAX = 256 << 20
"""A larger object is no profile."""

_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
_FORBIDDEN = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"})


class Datasets:
    """S3 as a reader of batches sees it. `cache_bytes` bounds what is remembered of batches already read."""

    def __init__(self, *, cache_bytes: int = 256 << 20) -> None:
        config = Config(retries={"mode": "standard", "max_attempts": 2}, connect_timeout=5, read_timeout=60)
        self._s3: S3Client = boto3.client("s3", config=config)
        self._cache_bytes = cache_bytes
        self._versions: dict[str, str] = {}
        self._cache: Remembered[tuple[str, str], Rows] = Remembered(cache_bytes, _size)

    def read(
        self,
        batch: Batch,
        wants: Collection[Want],
        *,
        required: Collection[str] = (),
        remembered: bool = False,
        written_as: Format = "parquet",
    ) -> Rows | Refusal:
        """The columns wanted, or why the batch cannot be used. `required` columns must be there, and are not returned.

        `remembered` allows an answer from an earlier call. Raises TransientError or PermanentError.
        """
        name = (batch.uri, batch.version)
        known = self._cache.get(name)
        if remembered and known and set(wants) <= known.columns.keys():
            return known
        rows = self._read(batch, wants, required, written_as)
        if isinstance(rows, str):
            return Refusal(bucket=batch.bucket, key=batch.key, version=batch.version, why=rows)
        if _size(rows) <= self._cache_bytes:
            self._cache.put(name, rows)
        return rows

    def stream(
        self, batch: Batch, asked: Asked, written_as: Format, *, groups_max: int | None = None
    ) -> Iterator[Rows]:
        """As `formats.stream`. Raises UnusableError, at any chunk, or TransientError or PermanentError."""
        with _refusing(batch):
            file = self._opened(batch)
            with formats.refusing(file, written_as):
                yield from formats.stream(file, written_as, asked, groups_max=groups_max)

    def resolved(self, batch: Batch) -> Batch:
        """The batch with its version; one named by its key alone is looked at once, and is then what it was."""
        if batch.version:
            return batch
        if batch.uri not in self._versions:
            try:
                self._versions[batch.uri] = self._s3.head_object(Bucket=batch.bucket, Key=batch.key)["ETag"].strip('"')
            except (ClientError, BotoCoreError):
                return batch  # the reading of it will say why
        return replace(batch, version=self._versions[batch.uri])

    def load(self, bucket: str, key: str) -> bytes | None:
        """An object whole, None where it cannot be had: whoever asks can do without."""
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            return answer["Body"].read() if answer["ContentLength"] <= KEPT_BYTES_MAX else None
        except (ClientError, BotoCoreError):
            return None

    def save(self, bucket: str, key: str, body: bytes) -> None:
        """Put an object where that is allowed and possible."""
        with suppress(ClientError, BotoCoreError):
            self._s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/octet-stream")

    def store_page(self, bucket: str, key: str, text: str, content_type: str = "text/html; charset=utf-8") -> None:
        """Put a text. Raises TransientError or PermanentError."""
        try:
            self._s3.put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType=content_type)
        except (ClientError, BotoCoreError) as error:
            raise _translated(error, f"s3://{bucket}/{key}") from error

    def _read(self, batch: Batch, wants: Collection[Want], required: Collection[str], written_as: Format) -> Rows | str:
        try:
            with _refusing(batch):
                file = self._opened(batch)
                with formats.refusing(file, written_as):
                    return formats.read(file, file.size, written_as, Asked(wants, required))
        except UnusableError as error:
            return str(error)

    def _opened(self, batch: Batch) -> S3File:
        file = S3File(self._s3, batch)
        check_unchanged(batch, file)
        return file


@contextmanager
def _refusing(batch: Batch) -> Iterator[None]:
    """What S3 answers inside is UnusableError where the object is at fault, and not where S3 is."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise UnusableError(_refused(error, batch)) from error


def _refused(error: ClientError | BotoCoreError, batch: Batch) -> str:
    """The reason, where the object itself is at fault; raises where it is not."""
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    if code in _GONE:
        return "it is no longer in S3"
    if code in ("PreconditionFailed", "412"):
        return "it was overwritten while it was read"
    if code in ("InvalidRange", "416"):
        return "it is empty, 0 bytes"
    raise _translated(error, batch.uri) from error


def _translated(error: ClientError | BotoCoreError, what: str) -> TransientError | PermanentError:
    if isinstance(error, NoCredentialsError):
        return PermanentError(f"{what}: no AWS credentials were found")
    if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in _FORBIDDEN:
        return PermanentError(f"{what}: {error}")
    return TransientError(f"{what}: {error}")


def _size(rows: Rows) -> int:
    return sum(column.nbytes for column in rows.columns.values())
