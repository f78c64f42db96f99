"""Parquet, whole or chunk by chunk, only the columns asked for.

A row group may hold a whole table of a hundred million rows. Small ones are fetched together, a few requests for all
their columns, and let go of before the next are; of a large one each column is fetched and decoded piece by piece.
"""

import io
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from retrainer.adapters.datasets.rows import (
    ROWS_MAX,
    STREAM_ROWS_MAX,
    Asked,
    Rows,
    check_columns,
    check_rows,
)

FETCH_BYTES = 64 << 20
"""A row group is fetched whole up to this many bytes of the columns wanted."""

TOGETHER_BYTES = 32 << 20
"""Row groups are fetched together up to this many: pyarrow's largest request."""

PIECE_BYTES = (1 << 17, 4 << 20)
"""The least and the most that is fetched of a column at a time where its row group is larger than that."""


def read(source: io.RawIOBase, asked: Asked) -> Rows:
    """The columns of all rows."""
    file = _opened(source, asked, ROWS_MAX)
    names = asked.names
    table = file.read(columns=names, use_threads=False)
    return asked.rows(table.num_rows, {name: table.column(name) for name in names})


def stream(source: io.RawIOBase, asked: Asked, groups_max: int | None = None) -> Iterator[Rows]:
    """Chunk by chunk; of a file with more row groups than `groups_max`, that many, evenly spread."""
    first = _opened(source, asked, STREAM_ROWS_MAX)
    names, texts = asked.names, _texts(first, asked)
    least, most = PIECE_BYTES
    piece_bytes = max(least, min(most, FETCH_BYTES // max(len(names), 1)))
    opened = partial(pq.ParquetFile, metadata=first.metadata, read_dictionary=texts)
    small = opened(pa.PythonFile(source, mode="r"), pre_buffer=True)
    large = opened(pa.PythonFile(source, mode="r"), pre_buffer=False, buffer_size=piece_bytes)
    for together, size_bytes in _together(first, names, _spread(first.metadata.num_row_groups, groups_max)):
        file = small if size_bytes <= FETCH_BYTES else large
        for batch in file.iter_batches(asked.chunk_rows, row_groups=together, columns=names, use_threads=False):
            yield asked.rows(batch.num_rows, {name: pa.chunked_array([batch.column(name)]) for name in names})


def _opened(source: io.RawIOBase, asked: Asked, rows_max: int) -> pq.ParquetFile:
    file = pq.ParquetFile(pa.PythonFile(source, mode="r"), pre_buffer=True)
    check_columns(file.schema_arrow.names, asked)
    check_rows(file.metadata.num_rows, rows_max)
    return file


def _texts(file: pq.ParquetFile, asked: Asked) -> list[str]:
    """Columns of text that are wanted as text: these are read as the dictionaries that they are written as."""
    wanted = {name for name, kind in asked.wants if kind == "text"}
    return [field.name for field in file.schema_arrow if field.name in wanted and _is_text(field.type)]


def _is_text(held: pa.DataType) -> bool:
    return bool(pa.types.is_string(held) or pa.types.is_large_string(held))


def _spread(count: int, most: int | None) -> Sequence[int]:
    return range(count) if most is None or count <= most else [i * count // most for i in range(most)]


def _together(file: pq.ParquetFile, names: Sequence[str], groups: Sequence[int]) -> Iterator[tuple[list[int], int]]:
    """Row groups to be fetched together, and how many bytes of the columns named these have."""
    roots = set(names)
    schema = file.metadata.schema
    leaves = [i for i in range(len(schema)) if schema.column(i).path.split(".")[0] in roots]
    held: list[int] = []
    held_bytes = 0
    for group in groups:
        found = file.metadata.row_group(group)
        size_bytes = sum(found.column(i).total_compressed_size for i in leaves)
        if held and held_bytes + size_bytes > TOGETHER_BYTES:
            yield held, held_bytes
            held, held_bytes = [], 0
        held.append(group)
        held_bytes += size_bytes
    if held:
        yield held, held_bytes
