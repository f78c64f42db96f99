"""JSON lines: every line is one object; a name that is missing is null."""

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from retrainer.adapters.datasets.csv_file import typed
from retrainer.adapters.datasets.rows import (
    COLUMNS_MAX,
    Asked,
    Rows,
    UnusableError,
    canonical_rows,
    check_columns,
    check_rows,
)

LINE_BYTES_MAX = 1 << 20
BLOCK_BYTES = 4 << 20


def stream(
    found: Iterable[Mapping[str, Any]], asked: Asked, rows_max: int, chunk_rows: int, *, texts: bool = False
) -> Iterator[Rows]:
    """Objects as rows, chunk by chunk; whether a column is there is known at the end.

    `texts`: a number may be written as a text, as it is where the objects were CSV.
    """
    names = asked.names
    values: dict[str, list[Any]] = {name: [] for name in names}
    held: dict[str, None] = {}
    count = filled = 0
    for row in found:
        if not row.keys() <= held.keys():
            held.update(dict.fromkeys(row))
        count += 1
        if len(held) > COLUMNS_MAX or count > rows_max:
            break
        for name in names:
            values[name].append(row.get(name))
        filled += 1
        if filled == chunk_rows:
            yield _rows(values, filled, asked, texts)
            values, filled = {name: [] for name in names}, 0
    if count:
        check_columns(list(held), asked)
    check_rows(count, rows_max)
    if filled:
        yield _rows(values, filled, asked, texts)


def objects(source: io.RawIOBase) -> Iterator[dict[str, Any]]:
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


def _rows(values: Mapping[str, list[Any]], count: int, asked: Asked, texts: bool) -> Rows:
    lists = {name for name, kind in asked.wants if kind in ("list", "vector")}
    held = {name: _array(name, column, name in lists) for name, column in values.items()}
    raw = {want: held[want[0]] for want in asked.wants}
    if texts:
        raw = {want: typed(column, want) if pa.types.is_string(column.type) else column for want, column in raw.items()}
    return canonical_rows(count, raw, held[asked.timestamp] if asked.timestamp else None)


def _array(name: str, values: list[Any], is_list: bool) -> pa.ChunkedArray:
    """Of one type where the values are; texts and numbers mixed are texts."""
    try:
        found = pa.chunked_array([pa.array(values, from_pandas=True)])
        nothing = is_list and pa.types.is_null(found.type)
        return found.cast(pa.list_(pa.float64())) if nothing else found
    except UnicodeEncodeError as error:
        raise UnusableError(f"column {name!r} holds text that is not Unicode: {error.reason}", name) from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        if any(isinstance(value, list | dict) for value in values):
            raise UnusableError(f"column {name!r} holds values of different kinds", name) from error
    return pa.chunked_array([pa.array([_written(v) for v in values], pa.string())])


def _written(value: Any) -> str | None:
    """As `values.canonical` writes a number among numbers."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else str(int(value)) if value.is_integer() else str(value)
    return None if value is None else json.dumps(value) if isinstance(value, bool) else str(value)
