"""The past of one model as batches in order: from a folder of files, from one file cut by time, or from S3."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError

from retrainer.adapters.datasets import Format
from retrainer.adapters.datasets.remembered import Remembered
from retrainer.core.policy import Data
from retrainer.ports import ConfigError, TransientError

FORMATS: tuple[Format, ...] = ("parquet", "csv", "jsonl")
MEMORY_BYTES = 1 << 30
"""Of tables kept; what goes beyond is read again when it is asked for."""

_UNITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
"""Whole numbers below the bound are so many of the unit since 1970: seconds reach to the year 5138."""

Load = Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryBatch:
    """One batch: `at` is its newest row's moment, `label_at` when it arrives with its labels.

    `version` is the md5 of its bytes, which is S3's ETag of an object put in one part: the same content, the same name.
    `load` gives the bytes, in the format that the key ends with.
    """

    index: int
    key: str
    version: str
    size_bytes: int
    rows: int
    at: datetime
    label_at: datetime
    load: Load


class History:
    """Batches in the order in which they came; `source` is what the person named."""

    def __init__(self, source: str, batches: Sequence[HistoryBatch], key_column: str | None = None) -> None:
        self.source = source
        self.batches = tuple(batches)
        self._key_column = key_column
        self._tables: Remembered[int, pa.Table] = Remembered(MEMORY_BYTES, lambda table: int(table.nbytes))

    def __len__(self) -> int:
        return len(self.batches)

    def table(self, index: int) -> pa.Table:
        """The batch's rows; where the history has no column of keys to join predictions by, one is made."""
        if (known := self._tables.get(index)) is not None:
            return known
        batch = self.batches[index]
        table = _table(batch.key, batch.load())
        if self._key_column and self._key_column not in table.column_names:
            keys = pa.array([f"{batch.key}#{row}" for row in range(table.num_rows)])
            table = table.append_column(self._key_column, keys)
        return self._tables.put(index, table)

    def body(self, index: int) -> tuple[bytes, Format]:
        """The batch as whoever measures it reads it, and its format: as it lies there unless keys were made for it."""
        batch = self.batches[index]
        body = batch.load()
        if self._key_column and self._key_column not in _table(batch.key, body).column_names:
            return _written(self.table(index)), "parquet"
        return body, _format(batch.key) or "parquet"

    def delayed(self, delay: timedelta) -> "History":
        """The same batches, whose labels arrive so much later than they were served."""
        return History(self.source, [replace(b, label_at=b.at + delay) for b in self.batches], self._key_column)

    def first(self, count: int) -> "History":
        """The oldest `count` batches of it."""
        return History(self.source, self.batches[:count], self._key_column)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file or an object, as it lies there."""

    name: str
    changed_at: datetime
    read: Callable[[], bytes]


def open_history(source: str, data: Data, *, batch: timedelta | None = None) -> History:
    """The history at a path or at s3://bucket/prefix. `batch` cuts all rows by time; a single file is cut by days.

    Raises ConfigError where there is nothing to read or it cannot be read, TransientError where S3 is away.
    """
    found = list(_objects(source) if source.startswith("s3://") else _files(Path(source)))
    if not found:
        raise ConfigError(f"{source}: no .parquet, .csv or .jsonl file is there; name a folder or prefix that has some")
    key = data.predictions.key if data.predictions else None
    if batch or len(found) == 1:
        tables = [_table(f.name, f.read()) for f in found]
        return History(source, _cut(source, tables, data, batch or timedelta(days=1)), key)
    return History(source, _each(found, data), key)


def _files(path: Path) -> Iterator[_Found]:
    if not path.exists():
        raise ConfigError(f"{path} does not exist; name a file, a folder of files, or s3://bucket/prefix")
    if path.is_file() and not _format(path.name):
        raise ConfigError(f"{path} is no .parquet, .csv or .jsonl file; write the history as one of them")
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and _format(p.name)):
        changed_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        yield _Found(file.name if path.is_file() else file.relative_to(path).as_posix(), changed_at, file.read_bytes)


def _objects(source: str) -> Iterator[_Found]:
    """By the client and the settings that the evidence worker has (AWS_ENDPOINT_URL, credentials)."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3")

    def reading(key: str) -> Callable[[], bytes]:
        return lambda: s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for listed in page.get("Contents", ()):
                if _format(listed["Key"]) and listed["Size"]:
                    name = listed["Key"].removeprefix(prefix).lstrip("/") or listed["Key"].rpartition("/")[2]
                    yield _Found(name, listed["LastModified"], reading(listed["Key"]))
    except ClientError as error:
        raise ConfigError(f"{source} cannot be listed: {error}; check the bucket, and AWS_ENDPOINT_URL") from error
    except BotoCoreError as error:
        raise TransientError(f"{source} cannot be listed: {error}") from error


def _format(name: str) -> Format | None:
    ending = name.rpartition(".")[2]
    return next((known for known in FORMATS if ending == known), None)


def _table(name: str, data: bytes) -> pa.Table:
    source = pa.BufferReader(data)
    try:
        if name.endswith(".csv"):
            return pyarrow.csv.read_csv(source)
        if name.endswith(".jsonl"):
            return pyarrow.json.read_json(source)
        return pq.read_table(source)
    except (pa.ArrowException, OSError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{name} cannot be read: {said:.200}; mend it or leave it out of the history") from error


def _each(found: Sequence[_Found], data: Data) -> list[HistoryBatch]:
    """A batch a file. One that is older than the one before it arrives together with that."""
    batches: list[HistoryBatch] = []
    for file in found:
        body = file.read()
        table = _table(file.name, body)
        if not table.num_rows:
            continue
        at = _newest(file.name, table, data.timestamp) if data.timestamp in table.column_names else file.changed_at
        at = max(at, batches[-1].at) if batches else at
        batches.append(
            HistoryBatch(
                index=len(batches),
                key=data.prefix + file.name,
                version=_md5(body),
                size_bytes=len(body),
                rows=table.num_rows,
                at=at,
                label_at=at,
                load=file.read,
            )
        )
    if batches and batches[0].at == batches[-1].at:
        why = f"all of its batches are of one moment, {batches[0].at:%Y-%m-%d %H:%M:%S} UTC"
        raise ConfigError(f"{found[0].name} and the others: {why}; write a column {data.timestamp!r} into them")
    return batches


def _cut(source: str, tables: Sequence[pa.Table], data: Data, every: timedelta) -> list[HistoryBatch]:
    """All rows in order of time, a batch for each `every` since 1970 that has any."""
    table = pa.concat_tables(tables, promote_options="permissive")
    if data.timestamp not in table.column_names:
        held = ", ".join(table.column_names[:12])
        said = f"{source} has no column {data.timestamp!r} to be cut by; it has {held}"
        raise ConfigError(f"{said}; name the policy's data.timestamp so, or give a folder with a file a batch")
    moments = microseconds(source, table.column(data.timestamp))
    order = np.argsort(moments, kind="stable")
    table, moments = table.take(pa.array(order)).combine_chunks(), moments[order]
    pieces = moments // int(every / timedelta(microseconds=1))
    starts = np.flatnonzero(np.r_[True, pieces[1:] != pieces[:-1]]) if len(pieces) else np.zeros(0, np.int64)
    batches = []
    for index, (start, stop) in enumerate(zip(starts, [*starts[1:], len(pieces)], strict=True)):
        piece = table.slice(int(start), int(stop - start))
        at = _moment(int(moments[stop - 1]))
        begins = _moment(int(pieces[start]) * int(every / timedelta(microseconds=1)))
        body = _written(piece)
        batches.append(
            HistoryBatch(
                index=index,
                key=f"{data.prefix}{begins:%Y-%m-%dT%H-%M-%S}.parquet",
                version=_md5(body),
                size_bytes=len(body),
                rows=piece.num_rows,
                at=at,
                label_at=at,
                load=_kept(piece),
            )
        )
    return batches


def _kept(piece: pa.Table) -> Load:
    return lambda: _written(piece)


def _written(piece: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(piece, target)
    return target.getvalue()


def _newest(name: str, table: pa.Table, timestamp: str) -> datetime:
    return _moment(int(microseconds(name, table.column(timestamp)).max()))


def _moment(microseconds_since_1970: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds_since_1970)


def microseconds(name: str, column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The moments as microseconds since 1970: timestamps, dates, ISO texts, or numbers by their size. UTC if not said.

    Raises ConfigError, also for a null.
    """
    if column.null_count:
        raise ConfigError(f"{name}: {column.null_count} rows have no timestamp; fill it in or leave the rows out")
    try:
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            largest = float(pc.max(pc.abs(column)).as_py() or 0)
            unit = next((u for bound, u in _UNITS if largest < bound), "ns")
            column = column.cast(pa.int64(), safe=False).cast(pa.timestamp(unit))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pa.chunked_array([_parsed(column)])
        moments: np.ndarray[tuple[int], np.dtype[np.int64]] = (
            column.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64()).to_numpy()
        )
    except (pa.ArrowException, ValueError) as error:
        raise ConfigError(f"{name}: {error!s:.150}; write timestamps as 2026-01-05T12:00:00Z") from error
    return moments


def _parsed(column: pa.ChunkedArray) -> pa.Array:
    moments = [datetime.fromisoformat(text) for text in column.to_pylist()]
    aware = [m if m.tzinfo else m.replace(tzinfo=UTC) for m in moments]
    return pa.array(aware, type=pa.timestamp("us", tz="UTC"))


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
