"""One version of an S3 object as a file that can be read from anywhere."""

import io
import re
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from retrainer.adapters.datasets.rows import UnusableError
from retrainer.core.window import Batch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3.client import S3Client

TAIL_BYTES = 1 << 20
"""The first request asks for the object's end, where parquet has its index: a batch up to this size takes one request,
and of a larger one only the columns wanted are fetched."""

_ETAG = re.compile(r"^[0-9a-f]{32}(-\d+)?$")


class S3File(io.RawIOBase):
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

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

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


def check_unchanged(batch: Batch, found: S3File) -> None:
    """An ETag can be compared; of a sequencer or a version id only the size tells, and a size of 0 is no size."""
    if not found.size:
        raise UnusableError("it is empty, 0 bytes")
    if _ETAG.match(batch.version) and batch.version != found.etag.strip('"'):
        raise UnusableError("it has been overwritten since it arrived")
    if batch.size_bytes and batch.size_bytes != found.size:
        raise UnusableError(f"it has been overwritten since it arrived: {found.size} bytes, not {batch.size_bytes}")
