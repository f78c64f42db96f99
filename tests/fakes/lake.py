"""S3 in memory, as the evidence worker reads batches from it and keeps profiles in it."""

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from retrainer.adapters.datasets import formats
from retrainer.adapters.datasets.formats import Asked, Format, Rows, UnusableError, Want
from retrainer.core.window import Batch, Refusal


class Lake:
    """Batches and stored objects by key; `read` tells the key and columns of each batch read, in order."""

    def __init__(self) -> None:
        self.batches: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.read_: list[tuple[str, tuple[str, ...]]] = []
        self.is_readonly = False

    @property
    def keys_read(self) -> list[str]:
        return [key for key, _ in self.read_]

    def put(self, key: str, columns: Mapping[str, Any] | bytes, version: str = "1") -> Batch:
        """Bytes, or columns as parquet."""
        if isinstance(columns, bytes):
            self.batches[key] = columns
        else:
            target = io.BytesIO()
            pq.write_table(pa.table(dict(columns)), target)
            self.batches[key] = target.getvalue()
        return Batch(bucket="lake", key=key, version=version, size_bytes=len(self.batches[key]))

    def read(
        self,
        batch: Batch,
        wants: Collection[Want],
        *,
        required: Collection[str] = (),
        remembered: bool = False,
        written_as: Format = "parquet",
    ) -> Rows | Refusal:
        del remembered
        try:
            file, size_bytes = self._opened(batch, wants)
            return formats.read(file, size_bytes, written_as, Asked(wants, required))
        except UnusableError as error:
            return Refusal(bucket=batch.bucket, key=batch.key, version=batch.version, why=str(error))

    def stream(
        self, batch: Batch, asked: Asked, written_as: Format, *, groups_max: int | None = None
    ) -> Iterator[Rows]:
        file, _ = self._opened(batch, asked.wants)
        with formats.refusing(file, written_as):
            yield from formats.stream(file, written_as, asked, groups_max=groups_max)

    def resolved(self, batch: Batch) -> Batch:
        return batch if batch.version else replace(batch, version=str(hash(self.batches[batch.key])))

    def load(self, bucket: str, key: str) -> bytes | None:
        return self.objects.get(key)

    def save(self, bucket: str, key: str, body: bytes) -> None:
        if not self.is_readonly:
            self.objects[key] = body

    def store_page(self, bucket: str, key: str, text: str, content_type: str = "text/html; charset=utf-8") -> None:
        self.objects[key] = text.encode()

    def _opened(self, batch: Batch, wants: Collection[Want]) -> tuple[io.RawIOBase, int]:
        self.read_.append((batch.key, tuple(sorted(name for name, _ in wants))))
        if batch.key not in self.batches:
            raise UnusableError("it is no longer in S3")
        body = self.batches[batch.key]
        return cast(io.RawIOBase, io.BytesIO(body)), len(body)
