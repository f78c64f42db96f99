"""CSV: a header, commas, UTF-8; a value in quotes may hold a line's end; what is empty is null."""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from retrainer.adapters.datasets.rows import (
    COLUMNS_MAX,
    Asked,
    Rows,
    UnusableError,
    Want,
    canonical_rows,
    check_columns,
    check_rows,
)

LINE_BYTES_MAX = 1 << 20
BLOCK_BYTES = 4 << 20

_NO_NUMBER = pa.array(["NA", "N/A", "NULL", "null", "None", "NaN", "nan", "#N/A"])
"""What writers put for a number they do not have; of a text these are values, and Namibia is one."""


def stream(source: io.RawIOBase, asked: Asked, rows_max: int) -> Iterator[Rows]:
    """Block by block."""
    head = source.read(LINE_BYTES_MAX).partition(b"\n")[0]
    if head.count(b",") >= COLUMNS_MAX:
        raise UnusableError(f"it has more than {COLUMNS_MAX} columns")
    source.seek(0)
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    options = pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    with pa.csv.open_csv(pa.PythonFile(source, mode="r"), options, parse) as opened:
        held = opened.schema.names
    check_columns(held, asked)
    names = asked.names or held[:1]
    convert = pa.csv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    source.seek(0)
    count = 0
    with pa.csv.open_csv(pa.PythonFile(source, mode="r"), options, parse, convert) as opened:
        for block in opened:
            count += block.num_rows
            if block.num_rows:
                check_rows(count, rows_max)
                yield _rows(block, asked)
    check_rows(count, rows_max)


def _rows(block: pa.RecordBatch, asked: Asked) -> Rows:
    raw = {want: typed(pa.chunked_array([block.column(want[0])]), want) for want in asked.wants}
    times = pa.chunked_array([block.column(asked.timestamp)]) if asked.timestamp else None
    return canonical_rows(block.num_rows, raw, times)


def typed(texts: pa.ChunkedArray, want: Want) -> pa.ChunkedArray:
    """A column of texts as what is wanted: a whole number is the same text with and without a point."""
    name, kind = want
    if kind == "text":
        return pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0+$", r"\1")
    if kind != "number":
        what = "lists" if kind == "list" else f"{kind}s"
        raise UnusableError(f"column {name!r} is csv, which has no {what}; write parquet or jsonl", name)
    trimmed = pc.utf8_trim_whitespace(texts)
    try:
        return pc.if_else(pc.is_in(trimmed, value_set=_NO_NUMBER), None, trimmed).cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise UnusableError(
            f"column {name!r} does not hold numbers: {str(error).splitlines()[0][:200]}", name
        ) from error
