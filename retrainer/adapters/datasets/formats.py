"""The columns of a batch as parquet, CSV or JSON lines: what cannot be read is refused in a sentence.

CSV has a header, commas and UTF-8; a value in quotes may hold a line's end; what is empty is null. In JSON lines every
line is one object; a name that is missing is null. Whoever writes a batch may be wrong or hostile, so there is an end
to everything: columns, rows, lines and, for the two formats that must be read whole, bytes.
"""

import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from retrainer.drift.values import Kind, WrongTypeError, canonical

Format = Literal["parquet", "csv", "jsonl"]
Want = tuple[str, Kind]
"""A column, and how it is read."""

COLUMNS_MAX = 10_000
ROWS_MAX = 100_000_000
TEXT_BYTES_MAX = 512 << 20
LINE_BYTES_MAX = 1 << 20
BLOCK_BYTES = 4 << 20

_NO_NUMBER = pa.array(["NA", "N/A", "NULL", "null", "None", "NaN", "nan", "#N/A"])
"""What writers put for a number they do not have; of a text these are values, and Namibia is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The columns of one batch that were asked for, in canonical form."""

    count: int
    columns: Mapping[Want, pa.ChunkedArray]


class UnusableError(ValueError):
    """The batch cannot be used; the message is the reason."""


def read(
    file: io.RawIOBase, size_bytes: int, written_as: Format, wants: Collection[Want], required: Collection[str]
) -> Rows:
    """The columns wanted. Raises UnusableError, or what pyarrow or the file raises."""
    if written_as == "parquet":
        return _parquet(file, wants, required)
    if size_bytes > TEXT_BYTES_MAX:
        raise UnusableError(
            f"it has {size_bytes >> 20} MiB, and {written_as} is read up to {TEXT_BYTES_MAX >> 20}; "
            "write smaller batches, or parquet"
        )
    return _csv(file, wants, required) if written_as == "csv" else _jsonl(file, wants, required)


def _parquet(source: io.RawIOBase, wants: Collection[Want], required: Collection[str]) -> Rows:
    file = pq.ParquetFile(pa.PythonFile(source, mode="r"), pre_buffer=True)
    _check(file.schema_arrow.names, wants, required)
    _check_rows(file.metadata.num_rows)
    table = file.read(columns=_names(wants), use_threads=False)
    return _rows(table.num_rows, {want: table.column(want[0]) for want in wants})


def _csv(source: io.RawIOBase, wants: Collection[Want], required: Collection[str]) -> Rows:
    head = source.read(LINE_BYTES_MAX).partition(b"\n")[0]
    if head.count(b",") >= COLUMNS_MAX:
        raise UnusableError(f"it has more than {COLUMNS_MAX} columns")
    source.seek(0)
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    options = pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    with pa.csv.open_csv(pa.PythonFile(source, mode="r"), options, parse) as opened:
        held = opened.schema.names
    _check(held, wants, required)
    names = _names(wants) or held[:1]
    convert = pa.csv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    source.seek(0)
    blocks, count = [], 0
    with pa.csv.open_csv(pa.PythonFile(source, mode="r"), options, parse, convert) as opened:
        for block in opened:
            blocks.append(block)
            count += block.num_rows
            _check_rows(count)
    _check_rows(count)
    table = pa.Table.from_batches(blocks)
    return _rows(count, {want: _typed(table.column(want[0]), want) for want in wants})


def _typed(texts: pa.ChunkedArray, want: Want) -> pa.ChunkedArray:
    """A column of texts as what is wanted: a whole number is the same text with and without a point."""
    name, kind = want
    if kind == "text":
        return pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0+$", r"\1")
    if kind == "list":
        raise UnusableError(f"column {name!r} is csv, which has no lists; write parquet or jsonl")
    trimmed = pc.utf8_trim_whitespace(texts)
    try:
        return pc.if_else(pc.is_in(trimmed, value_set=_NO_NUMBER), None, trimmed).cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise UnusableError(f"column {name!r} does not hold numbers: {str(error).splitlines()[0][:200]}") from error


def _jsonl(source: io.RawIOBase, wants: Collection[Want], required: Collection[str]) -> Rows:
    wanted = _names(wants)
    values: dict[str, list[Any]] = {name: [] for name in wanted}
    held: dict[str, None] = {}
    count = 0
    for row in _objects(source):
        held.update(dict.fromkeys(row))
        count += 1
        if len(held) > COLUMNS_MAX or count > ROWS_MAX:
            break
        for name in wanted:
            values[name].append(row.get(name))
    if count:
        _check(list(held), wants, required)
    _check_rows(count)
    return _rows(count, {(name, kind): _array(name, values[name]) for name, kind in wants})


def _objects(source: io.RawIOBase) -> Iterator[dict[str, Any]]:
    """The lines, one after the other, none longer than may be; empty ones are passed over."""
    buffered = io.BufferedReader(source, BLOCK_BYTES)
    number = 0
    while line := buffered.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise UnusableError(f"line {number} is longer than {LINE_BYTES_MAX >> 20} MiB")
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UnusableError(f"line {number} is not JSON: {str(error)[:200]}") from error
        if not isinstance(row, dict):
            raise UnusableError(f"line {number} is not a JSON object")
        yield row


def _array(name: str, values: list[Any]) -> pa.ChunkedArray:
    """Of one type where the values are; texts and numbers mixed are texts."""
    try:
        return pa.chunked_array([pa.array(values, from_pandas=True)])
    except UnicodeEncodeError as error:
        raise UnusableError(f"column {name!r} holds text that is not Unicode: {error.reason}") from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        if any(isinstance(value, list | dict) for value in values):
            raise UnusableError(f"column {name!r} holds values of different kinds") from error
    return pa.chunked_array([pa.array([_written(v) for v in values], pa.string())])


def _written(value: Any) -> str | None:
    """As `values.canonical` writes a number among numbers."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else str(int(value)) if value.is_integer() else str(value)
    return None if value is None else json.dumps(value) if isinstance(value, bool) else str(value)


def _check(held: list[str], wants: Collection[Want], required: Collection[str]) -> None:
    if len(held) > COLUMNS_MAX:
        raise UnusableError(f"it has more than {COLUMNS_MAX} columns")
    needed = {*required, *(name for name, _ in wants)}
    if missing := sorted(needed - set(held)):
        which = "column " + repr(missing[0]) if len(missing) == 1 else "columns " + ", ".join(map(repr, missing))
        raise UnusableError(f"it has no {which}; it has {_some(held)}")
    if twice := sorted(name for name in needed if held.count(name) > 1):
        raise UnusableError(f"it has more than one column {twice[0]!r}")


def _check_rows(count: int) -> None:
    if not count:
        raise UnusableError("it has no rows")
    if count > ROWS_MAX:
        raise UnusableError(f"it has more than {ROWS_MAX} rows")


def _names(wants: Collection[Want]) -> list[str]:
    return sorted({name for name, _ in wants})


def _rows(count: int, raw: Mapping[Want, pa.ChunkedArray]) -> Rows:
    columns: dict[Want, pa.ChunkedArray] = {}
    for (name, kind), column in raw.items():
        try:
            columns[name, kind] = canonical(column, kind)
        except WrongTypeError as error:
            raise UnusableError(f"column {name!r} {error}") from error
    return Rows(count=count, columns=columns)


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
