"""Reads columns of parquet batches from S3. What cannot be used is refused; S3 being away is no batch's fault."""

import io
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from retrainer.core.window import Batch, Refusal
from retrainer.drift.values import Kind, WrongTypeError, canonical
from retrainer.ports import PermanentError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

Want = tuple[str, Kind]
"""A column, and how it is read."""

TAIL_BYTES = 1 << 20
"""The first request asks for the object's end, where parquet has its index: a batch up to this size takes one request,
and of a larger one only the columns wanted are fetched."""

_ETAG = re.compile(r"^[0-9a-f]{32}(-\d+)?$")
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
_FORBIDDEN = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The columns of one batch that were asked for, in canonical form."""

    count: int
    columns: Mapping[Want, pa.ChunkedArray]


class Datasets:
    """S3 as a reader of batches sees it. `cache_bytes` bounds what is remembered of batches already read."""

    def __init__(self, *, cache_bytes: int = 256 << 20) -> None:
        config = Config(retries={"mode": "standard", "max_attempts": 2}, connect_timeout=5, read_timeout=60)
        self._s3: S3Client = boto3.client("s3", config=config)
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[tuple[str, str], Rows] = OrderedDict()

    def read(
        self, batch: Batch, wants: Collection[Want], *, required: Collection[str] = (), remembered: bool = False
    ) -> Rows | Refusal:
        """The columns wanted, or why the batch cannot be used. `required` columns must be there, and are not read.

        `remembered` allows an answer from an earlier call. Raises TransientError or PermanentError.
        """
        name = (batch.uri, batch.version)
        known = self._cache.get(name)
        if remembered and known and set(wants) <= known.columns.keys():
            self._cache.move_to_end(name)
            return known
        rows = self._read(batch, wants, required)
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

    def _read(self, batch: Batch, wants: Collection[Want], required: Collection[str]) -> Rows | str:
        source: _S3File | None = None
        try:
            source = _S3File(self._s3, batch)
            if changed := _changed(batch, source):
                return changed
            return _columns(pq.ParquetFile(pa.PythonFile(source, mode="r"), pre_buffer=True), wants, required)
        except (ClientError, BotoCoreError) as error:
            return _refused(error, batch)
        except (pa.ArrowException, OSError) as error:
            if source and source.error:
                return _refused(source.error, batch)
            return f"it cannot be read as parquet: {_first_line(error)}"

    def _remember(self, name: tuple[str, str], rows: Rows) -> None:
        self._cache[name] = rows
        self._cache.move_to_end(name)
        while self._cache and sum(map(_size, self._cache.values())) > self._cache_bytes:
            self._cache.popitem(last=False)


class _S3File(io.RawIOBase):
    """One version of an object as a file to be read anywhere; `error` is what S3 answered to a read that failed."""

    def __init__(self, s3: "S3Client", batch: Batch) -> None:
        super().__init__()
        self._s3, self._bucket, self._key, self._at = s3, batch.bucket, batch.key, 0
        self.error: ClientError | BotoCoreError | None = None
        answer = s3.get_object(Bucket=batch.bucket, Key=batch.key, Range=f"bytes=-{TAIL_BYTES}")
        self.etag = answer["ETag"]
        self._tail = answer["Body"].read()
        total = answer.get("ContentRange", "").rpartition("/")[2]
        self.size = int(total) if total.isdigit() else len(self._tail)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self._at + size, self.size)
        data = self._range(self._at, end) if self._at < end else b""
        self._at += len(data)
        return data

    def _range(self, start: int, end: int) -> bytes:
        tail_at = self.size - len(self._tail)
        if start >= tail_at:
            return self._tail[start - tail_at : end - tail_at]
        wanted = f"bytes={start}-{end - 1}"
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._key, Range=wanted, IfMatch=self.etag)
            return answer["Body"].read()
        except (ClientError, BotoCoreError) as error:
            self.error = error
            raise OSError(str(error)) from error


def _columns(file: pq.ParquetFile, wants: Collection[Want], required: Collection[str]) -> Rows | str:
    held = file.schema_arrow.names
    missing = sorted({*required, *(name for name, _ in wants)} - set(held))
    if missing:
        which = "column " + repr(missing[0]) if len(missing) == 1 else "columns " + ", ".join(map(repr, missing))
        return f"it has no {which}; it has {_some(held)}"
    if not file.metadata.num_rows:
        return "it has no rows"
    table = file.read(columns=sorted({name for name, _ in wants}), use_threads=False)
    columns: dict[Want, pa.ChunkedArray] = {}
    for name, kind in wants:
        try:
            columns[name, kind] = canonical(table.column(name), kind)
        except WrongTypeError as error:
            return f"column {name!r} {error}"
    return Rows(count=table.num_rows, columns=columns)


def _changed(batch: Batch, found: _S3File) -> str:
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


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
