"""S3 objects as the steps need them: JSON documents, conditional writes, and files read by range."""

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from steps.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchBucket"})
CONFLICT = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})


@dataclass(frozen=True, slots=True)
class Uri:
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def parse_uri(text: str) -> Uri:
    """`s3://bucket/key`; raises ValueError for anything else."""
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise ValueError(f"{text!r} is not of the form s3://bucket/key.")
    return Uri(bucket, key)


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object as it was read, with the ETag a conditional write needs."""

    body: dict[str, Any]
    etag: str


def read_document(s3: "S3Client", uri: Uri) -> Document | None:
    """None when there is no such object."""
    try:
        answer = s3.get_object(Bucket=uri.bucket, Key=uri.key)
    except ClientError as error:
        if code_of(error) in MISSING:
            return None
        raise
    return Document(json.loads(answer["Body"].read()), answer["ETag"])


def write_document(s3: "S3Client", uri: Uri, body: dict[str, Any]) -> None:
    s3.put_object(Bucket=uri.bucket, Key=uri.key, Body=canonical(body), ContentType="application/json")


def replace_document(s3: "S3Client", uri: Uri, body: dict[str, Any], seen: Document | None) -> bool:
    """Write only if the object is still the one that was seen (None: still absent); False when it is not."""
    common = {"Bucket": uri.bucket, "Key": uri.key, "ContentType": "application/json"}
    condition = {"IfNoneMatch": "*"} if seen is None else {"IfMatch": seen.etag}
    try:
        s3.put_object(Body=canonical(body), **common, **condition)  # type: ignore[arg-type]
    except ClientError as error:
        # A conditional write to an object that was deleted meanwhile answers 404.
        if code_of(error) in CONFLICT | MISSING:
            return False
        raise
    return True


def canonical(body: dict[str, Any]) -> bytes:
    """The same value is the same bytes: sorted keys, no spaces."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


class ObjectFile(io.RawIOBase):
    """One version of an object as a read-only, seekable file of ranged GETs.

    Parquet keeps its index at the end, so its schema costs two small reads whatever the object weighs. Every read
    is conditional on the ETag: an object that is replaced while it is read raises DataError instead of mixing versions.
    """

    def __init__(self, s3: "S3Client", uri: Uri, etag: str | None = None) -> None:
        super().__init__()
        self._s3, self._uri, self._position = s3, uri, 0
        try:
            head = s3.head_object(Bucket=uri.bucket, Key=uri.key)
        except ClientError as error:
            if code_of(error) in MISSING:
                raise DataError(f"{uri} does not exist.") from error
            raise
        self.etag, self.size = head["ETag"], head["ContentLength"]
        if etag is not None and etag.strip('"') != self.etag.strip('"'):
            raise DataError(f"{uri} has changed since the manifest was written.")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self.size)
        if end <= self._position:
            return 0
        chunk = self._get(self._position, end)
        view[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

    def _get(self, start: int, end: int) -> bytes:
        try:
            answer = self._s3.get_object(
                Bucket=self._uri.bucket,
                Key=self._uri.key,
                Range=f"bytes={start}-{end - 1}",
                IfMatch=self.etag,
            )
        except ClientError as error:
            if code_of(error) in MISSING | CONFLICT:
                raise DataError(f"{self._uri} changed while it was read.") from error
            raise
        return answer["Body"].read()
