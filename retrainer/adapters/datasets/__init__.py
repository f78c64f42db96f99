"""Reads columns of batches from S3. What cannot be used is refused; S3 being away is no batch's fault."""

import re
from collections import OrderedDict
from collections.abc import Collection
from typing import TYPE_CHECKING

import boto3
import pyarrow as pa
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from retrainer.adapters.datasets import formats
from retrainer.adapters.datasets.formats import Format, Rows, UnusableError, Want
from retrainer.adapters.datasets.s3_file import TAIL_BYTES, S3File
from retrainer.core.window import Batch, Refusal
from retrainer.ports import PermanentError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["TAIL_BYTES", "Datasets", "Format", "Rows", "Want"]

_ETAG = re.compile(r"^[0-9a-f]{32}(-\d+)?$")
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
_FORBIDDEN = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"})


class Datasets:
    """S3 as a reader of batches sees it. `cache_bytes` bounds what is remembered of batches already read."""

    def __init__(self, *, cache_bytes: int = 256 << 20) -> None:
        config = Config(retries={"mode": "standard", "max_attempts": 2}, connect_timeout=5, read_timeout=60)
        self._s3: S3Client = boto3.client("s3", config=config)
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[tuple[str, str], Rows] = OrderedDict()

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
            self._cache.move_to_end(name)
            return known
        rows = self._read(batch, wants, required, written_as)
        if isinstance(rows, str):
            return Refusal(bucket=batch.bucket, key=batch.key, version=batch.version, why=rows)
        self._remember(name, rows)
        return rows

    def store_page(self, bucket: str, key: str, html: str) -> None:
        """Put an HTML page. Raises TransientError or PermanentError."""
        try:
            self._s3.put_object(Bucket=bucket, Key=key, Body=html.encode(), ContentType="text/html; charset=utf-8")
        except (ClientError, BotoCoreError) as error:
            raise _translated(error, f"s3://{bucket}/{key}") from error

    def _read(self, batch: Batch, wants: Collection[Want], required: Collection[str], written_as: Format) -> Rows | str:
        source: S3File | None = None
        try:
            source = S3File(self._s3, batch)
            if changed := _changed(batch, source):
                return changed
            return formats.read(source, source.size, written_as, wants, required)
        except UnusableError as error:
            return str(error)
        except (ClientError, BotoCoreError) as error:
            return _refused(error, batch)
        except (pa.ArrowException, OSError) as error:
            if source and source.error:
                return _refused(source.error, batch)
            return f"it cannot be read as {written_as}: {_first_line(error)}"

    def _remember(self, name: tuple[str, str], rows: Rows) -> None:
        self._cache[name] = rows
        self._cache.move_to_end(name)
        while self._cache and sum(map(_size, self._cache.values())) > self._cache_bytes:
            self._cache.popitem(last=False)


def _changed(batch: Batch, found: S3File) -> str:
    """An ETag can be compared; of a sequencer or a version id only the size tells, and a size of 0 is no size."""
    if not found.size:
        return "it is empty, 0 bytes"
    if _ETAG.match(batch.version) and batch.version != found.etag.strip('"'):
        return "it has been overwritten since it arrived"
    if batch.size_bytes and batch.size_bytes != found.size:
        return f"it has been overwritten since it arrived: {found.size} bytes, not {batch.size_bytes}"
    return ""


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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
