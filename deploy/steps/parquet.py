"""What the steps know of the parquet files they are given: their footers, and one schema for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from steps.errors import DataError

MOMENT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its name for error messages, its open bytes and its parsed footer."""

    name: str
    file: pq.ParquetFile

    @property
    def rows(self) -> int:
        return int(self.file.metadata.num_rows)

    @property
    def schema(self) -> pa.Schema:
        return self.file.schema_arrow


def open_part(name: str, source: BinaryIO) -> Part:
    """Reads the footer only. Raises DataError for anything that is not a whole parquet file."""
    try:
        return Part(name, pq.ParquetFile(source))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{name} is not a readable parquet file: {str(error).splitlines()[0]}") from error


def check_columns(part: Part, required: Sequence[str], timestamp: str) -> None:
    """Raises DataError unless every required column is there and the timestamp column holds points in time."""
    missing = [column for column in (*required, timestamp) if column not in part.schema.names]
    if missing:
        raise DataError(f"{part.name} lacks the column {missing[0]!r}; it has {', '.join(part.schema.names)}.")
    kind = part.schema.field(timestamp).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise DataError(f"{part.name}: the column {timestamp!r} is {kind}, not a timestamp.")


def common_schema(parts: Sequence[Part], required: Sequence[str], timestamp: str) -> pa.Schema:
    """One schema for all parts: the union of their columns, each as wide as the widest.

    A column that only some parts have is null in the others. Where two parts disagree beyond widening (text here,
    numbers there) a required column raises DataError, and any other column is left out: training ignores those anyway.
    """
    fields = {timestamp: pa.field(timestamp, MOMENT)}
    conflicting: set[str] = set()
    for part in parts:
        for field in part.schema:
            if field.name == timestamp or field.name in conflicting:
                continue
            try:
                fields[field.name] = _wider(fields.get(field.name), field)
            except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
                if field.name in required:
                    known = fields[field.name].type
                    raise DataError(
                        f"{part.name}: the column {field.name!r} is {field.type} but {known} in earlier objects."
                    ) from error
                conflicting.add(field.name)
                del fields[field.name]
    # Required columns first, in the order they are asked for: the file is easier to look at.
    order = dict.fromkeys([*required, timestamp, *fields])
    return pa.schema([fields[name] for name in order])


def _wider(known: pa.Field | None, field: pa.Field) -> pa.Field:
    plain = pa.field(field.name, _plain(field.type))
    if known is None:
        return plain
    return pa.unify_schemas([pa.schema([known]), pa.schema([plain])], promote_options="permissive").field(0)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Dictionary-encoded and plain text are the same column."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def conform(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """The table in the common schema; naive timestamps are taken as UTC. Raises DataError naming the column."""
    columns = [_column(table, field, name) for field in schema]
    return pa.table(columns, schema=schema)


def _column(table: pa.Table, field: pa.Field, name: str) -> pa.ChunkedArray:
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
    column = table.column(field.name)
    try:
        # 'safe' would refuse a nanosecond timestamp with nanoseconds in it; microseconds are what is kept.
        return column.cast(field.type, safe=not pa.types.is_timestamp(field.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{name}: the column {field.name!r} cannot be read as {field.type}.") from error
