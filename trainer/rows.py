"""Labelled rows: parquet tables in time order with one column of labels as text.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer.contract import BadRequestError, DataError
from trainer.data import parquet_files, readable

Labels = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """``label_N`` are the texts of the column ``label``; rows without one are left out, and ``dropped`` counts them."""

    table: pa.Table
    label: str
    label_N: Labels
    dropped: int

    def __len__(self) -> int:
        return len(self.label_N)

    def rows(self, chosen: slice) -> Rows:
        start, stop, _step = chosen.indices(len(self))
        part = self.table.slice(start, max(0, stop - start))
        return Rows(table=part, label=self.label, label_N=self.label_N[start:stop], dropped=0)

    def split(self, share: float) -> tuple[Rows, Rows]:
        """Earlier and later rows, the later ``share`` of them to validate; the earlier part is never empty."""
        cut = max(1, len(self) - int(len(self) * share))
        return self.rows(slice(0, cut)), self.rows(slice(cut, None))

    def window(self) -> tuple[int, int]:
        """First and last moment in microseconds since 1970; zeros where no column holds moments."""
        column = moments(self.table.schema)
        if column is None or not len(self):
            return 0, 0
        found = pc.min_max(self.table[column].cast(pa.timestamp("us"), safe=False).cast(pa.int64())).as_py()
        ends = [found[end] for end in ("min", "max")]
        first, last = (0 if end is None else int(end) for end in ends)
        return first, last


def read(*folders: Path, label: str, columns: Sequence[str] | None = None) -> Rows:
    """Every ``*.parquet`` under the folders, all columns or those named and the one of moments, in time order."""
    files = [file for folder in folders for file in parquet_files(folder, "the labelled rows")]
    tables = [_read_file(file, label, columns) for file in files]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        where = ", ".join(map(str, folders))
        raise DataError(f"{where}: the files do not have the same columns: {error}") from error
    return labelled(_in_time_order(table), label)


def labelled(table: pa.Table, label: str) -> Rows:
    """Numbers become the text of the number (1.0 is "1", as a column with gaps may have become floats)."""
    column = table[label]
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        texts = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"column '{label}' is {column.type}; give a label that is text or a number: {error}") from error
    known = pc.is_valid(texts)
    kept = table if texts.null_count == 0 else table.filter(known)
    if kept.num_rows == 0:
        raise DataError(f"no row has a label in column '{label}'; give at least one labelled row")
    label_N = np.array(texts.drop_null().to_pylist(), dtype=object)
    return Rows(table=kept, label=label, label_N=label_N, dropped=texts.null_count)


def moments(schema: pa.Schema) -> str | None:
    """The column that orders the rows: ``timestamp``, else the first that holds points in time."""
    found = [one.name for one in schema if pa.types.is_timestamp(one.type) or pa.types.is_date(one.type)]
    return "timestamp" if "timestamp" in found else next(iter(found), None)


def index_of(classes: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.int64]:
    """The place of each wanted class, -1 where it is not there."""
    place = {name: at for at, name in enumerate(classes)}
    return np.array([place.get(name, -1) for name in wanted], dtype=np.int64)


def table_of(instances: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """A request's instances as a table of ``schema``; a column that is left out is null, one not named is ignored."""
    names = ", ".join(f"{one.name} ({one.type})" for one in schema)
    for number, instance in enumerate(instances):
        if not any(name in instance for name in schema.names):
            raise BadRequestError(f"instances[{number}] has none of the columns; give {names}")
    arrays = []
    for one in schema:
        try:
            arrays.append(pa.array([instance.get(one.name) for instance in instances], one.type))
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
            raise BadRequestError(f"'{one.name}' must be {one.type} in every instance: {error}; give {names}") from None
    return pa.table(arrays, schema=schema)


def _read_file(file: Path, label: str, columns: Sequence[str] | None) -> pa.Table:
    with readable(file):
        schema = pq.read_schema(file)
        if label not in schema.names:
            raise DataError(
                f"{file}: column '{label}' is missing, which holds the labels; it has {', '.join(schema.names)}"
            )
        moment = moments(schema)
        named = None if columns is None else list(dict.fromkeys([*columns, *([moment] if moment else [])]))
        return pq.read_table(file, columns=named)


def _in_time_order(table: pa.Table) -> pa.Table:
    """Rows of one moment stay in the order of the files; rows that are in order, as preprocessing writes them, stay."""
    column = moments(table.schema)
    if column is None or table.num_rows < 2:
        return table
    moment_N = table[column].cast(pa.timestamp("us"), safe=False).to_numpy().astype(np.int64)
    if np.all(moment_N[1:] >= moment_N[:-1]):
        return table
    return table.take(pa.array(np.argsort(moment_N, kind="stable")))
