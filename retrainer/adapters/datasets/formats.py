"""The columns of a batch as parquet, CSV or JSON lines: what cannot be read is refused in a sentence.

Whoever writes a batch may be wrong or hostile, so there is an end to everything: columns, rows, lines and, for text
that is read whole, bytes.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa

from retrainer.adapters.datasets import capture, csv_file, json_lines, parquet_file
from retrainer.adapters.datasets.rows import (
    ROWS_MAX,
    STREAM_ROWS_MAX,
    Asked,
    Rows,
    UnusableError,
    Want,
)

__all__ = ["Asked", "Format", "Rows", "UnusableError", "Want", "ending", "read", "refusing", "stream"]

Format = Literal["parquet", "csv", "jsonl", "capture"]

TEXT_BYTES_MAX = 512 << 20


def read(file: io.RawIOBase, size_bytes: int, written_as: Format, asked: Asked) -> Rows:
    """The columns wanted of all rows. Raises UnusableError, or what pyarrow or the file raises: see `refusing`."""
    if written_as == "parquet":
        return parquet_file.read(file, asked)
    if size_bytes > TEXT_BYTES_MAX:
        raise UnusableError(
            f"it has {size_bytes >> 20} MiB, and {written_as} is read up to {TEXT_BYTES_MAX >> 20}; "
            "write smaller batches, or parquet"
        )
    if written_as == "csv":
        return _whole(list(csv_file.stream(file, asked, ROWS_MAX)), asked)
    return _whole(list(_objects(file, written_as, asked, ROWS_MAX, ROWS_MAX)), asked)


def stream(file: io.RawIOBase, written_as: Format, asked: Asked, *, groups_max: int | None = None) -> Iterator[Rows]:
    """The columns wanted, and the timestamps as they are written, in chunks of one batch that hold some rows each.

    The memory that it takes does not grow with the batch. Whatever `read` raises may be raised at any chunk, and then
    nothing of the batch can be used. Of parquet with more row groups than `groups_max`, so many evenly spread are read.
    """
    if written_as == "parquet":
        return parquet_file.stream(file, asked, groups_max)
    if written_as == "csv":
        return csv_file.stream(file, asked, STREAM_ROWS_MAX)
    return _objects(file, written_as, asked, STREAM_ROWS_MAX, asked.chunk_rows)


@contextmanager
def refusing(file: io.RawIOBase, written_as: Format) -> Iterator[None]:
    """What pyarrow raises inside is UnusableError, unless reading the file failed: then it is the file's `error`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if cause := getattr(file, "error", None):
            raise cause from error
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnusableError(f"it cannot be read as {written_as}: {first_line[:200]}") from error


def ending(key: str) -> Format:
    """The format that the ending of a key says, and parquet where it says nothing."""
    said = key.rpartition(".")[2]
    return "csv" if said == "csv" else "jsonl" if said == "jsonl" else "parquet"


def _objects(file: io.RawIOBase, written_as: Format, asked: Asked, rows_max: int, chunk_rows: int) -> Iterator[Rows]:
    found = json_lines.objects(file)
    if written_as == "capture":
        return json_lines.stream(_captured(found), asked, rows_max, chunk_rows, texts=True)
    return json_lines.stream(found, asked, rows_max, chunk_rows)


def _captured(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(records, 1):
        try:
            yield from capture.rows(record)
        except capture.CaptureError as error:
            raise UnusableError(f"record {number}: {error}") from error


def _whole(parts: list[Rows], asked: Asked) -> Rows:
    columns = {want: pa.chunked_array([c for part in parts for c in part.columns[want].chunks]) for want in asked.wants}
    return Rows(count=sum(part.count for part in parts), columns=columns)
