"""Preprocess: the manifest's objects become one training file and one holdout file, split by time.

The same function is a Lambda function when the data is small and, as `python -m steps.preprocess`, a processing job
of the trainer image when it is large. It holds the timestamps (8 bytes a row) and one slice of rows in memory, never
everything: the rows are sorted slice by slice, and batches that arrive in time order are read about once.
"""

import argparse
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from steps import clients, names
from steps.errors import DataError
from steps.objects import ObjectFile, parse_uri, read_document, write_document
from steps.parquet import MOMENT, Part, check_columns, common_schema, conform, open_part

SLICE_ROWS = 1_000_000
BUFFER_BYTES = 8 * 1024 * 1024
Moments = npt.NDArray[np.int64]
"""Microseconds since 1970, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What became of the rows; `dropped_rows` had no value in a required column."""

    train_rows: int
    holdout_rows: int
    dropped_rows: int


@dataclass(frozen=True, slots=True)
class Group:
    """A row group and the closed interval of time its usable rows lie in."""

    part: Part
    index: int
    moments: Moments

    def overlaps(self, first: int, last: int) -> bool:
        return len(self.moments) > 0 and int(self.moments.min()) <= last and int(self.moments.max()) >= first


def split_by_time(
    parts: Sequence[Part],
    required: Sequence[str],
    timestamp: str,
    holdout_share: float,
    folder: Path,
    slice_rows: int = SLICE_ROWS,
) -> Split:
    """Write folder/train.parquet and folder/holdout.parquet, each sorted by time.

    The holdout is the newest `holdout_share` of the rows; rows of one moment stay together, on the holdout's side.
    Rows that lack a required value are left out. Raises DataError when either side would be empty.
    """
    for part in parts:
        check_columns(part, required, timestamp)
    schema = common_schema(parts, required, timestamp)
    needed = list(dict.fromkeys([*required, timestamp]))
    groups = [
        Group(part, index, _moments(part, index, needed, timestamp))
        for part in parts
        for index in range(part.file.metadata.num_row_groups)
    ]
    ordered = np.sort(np.concatenate([group.moments for group in groups] or [np.empty(0, np.int64)]))
    cut = _cut(ordered, holdout_share)
    sides = {"train": ordered[ordered < cut], "holdout": ordered[ordered >= cut]}
    for name, wanted in sides.items():
        with pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd") as writer:
            for first, last in _slices(wanted, slice_rows):
                near = [group for group in groups if group.overlaps(first, last)]
                writer.write_table(_slice(near, schema, needed, timestamp, first, last))
    return Split(
        train_rows=len(sides["train"]),
        holdout_rows=len(sides["holdout"]),
        dropped_rows=sum(part.rows for part in parts) - len(ordered),
    )


def _moments(part: Part, index: int, needed: Sequence[str], timestamp: str) -> Moments:
    chunks = [
        _microseconds(_complete(batch, needed).column(timestamp), part.name) for batch in _batches(part, index, needed)
    ]
    return np.concatenate([*chunks, np.empty(0, np.int64)])


def _batches(part: Part, index: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    """A row group in bites. Raises DataError where the footer was fine and the pages are not."""
    try:
        for batch in part.file.iter_batches(row_groups=[index], columns=list(columns)):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{part.name} cannot be read to its end: {str(error).splitlines()[0]}") from error


def _complete(table: pa.Table, needed: Sequence[str]) -> pa.Table:
    return table.select(needed).drop_null()


def _microseconds(column: pa.ChunkedArray, name: str) -> Moments:
    try:
        return cast(Moments, column.cast(MOMENT, safe=False).cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid as error:
        raise DataError(f"{name}: the timestamps cannot be read as moments.") from error


def _cut(ordered: Moments, holdout_share: float) -> int:
    """The first moment of the holdout."""
    if len(ordered) == 0:
        raise DataError("No row has a value in every required column.")
    cut = int(ordered[min(len(ordered) - 1, int(len(ordered) * (1 - holdout_share)))])
    if ordered[0] >= cut:
        raise DataError(
            f"The {len(ordered)} rows cannot be split by time: no row is older than the newest {holdout_share:.0%}."
        )
    return cut


def _slices(ordered: Moments, rows: int) -> Iterator[tuple[int, int]]:
    """Closed intervals of time that hold about `rows` rows each; equal moments are never parted."""
    position = 0
    while position < len(ordered):
        last = int(ordered[min(position + rows, len(ordered)) - 1])
        yield int(ordered[position]), last
        position = int(np.searchsorted(ordered, last, side="right"))


def _slice(
    groups: Sequence[Group], schema: pa.Schema, needed: Sequence[str], timestamp: str, first: int, last: int
) -> pa.Table:
    """The rows of the closed interval, sorted by time; rows of one moment keep the manifest's order."""
    low, high = (pa.scalar(moment, pa.int64()).cast(MOMENT) for moment in (first, last))
    found = [schema.empty_table()]
    for group in groups:
        columns = [name for name in schema.names if name in group.part.schema.names]
        for batch in _batches(group.part, group.index, columns):
            table = conform(batch, schema, group.part.name)
            moments = table.column(timestamp)
            inside = pc.and_(pc.greater_equal(moments, low), pc.less_equal(moments, high))
            for name in needed:
                inside = pc.and_(inside, pc.is_valid(table.column(name)))
            found.append(table.filter(inside))
    return pa.concat_tables(found).sort_by(timestamp)


def preprocess(bucket: str, execution: str) -> dict[str, int]:
    """Read the objects that Validate pinned, write train, holdout and champion beside them."""
    s3 = clients.s3()
    uri = names.within(bucket, execution, "preprocess.json")
    plan = read_document(s3, uri)
    if plan is None:
        raise DataError(f"{uri} does not exist; Validate writes it.")
    parts = [_open(listed) for listed in plan.body["objects"]]
    with tempfile.TemporaryDirectory() as folder:
        split = split_by_time(
            parts,
            plan.body["required_columns"],
            plan.body["timestamp"],
            plan.body["holdout_share"],
            Path(folder),
        )
        for name in ("train", "holdout"):
            target = names.within(bucket, execution, f"{name}/{name}.parquet")
            s3.upload_file(str(Path(folder, f"{name}.parquet")), target.bucket, target.key)
    _place_champion(bucket, execution, plan.body["champion_model_data_url"])
    return {
        "train_rows": split.train_rows,
        "holdout_rows": split.holdout_rows,
        "dropped_rows": split.dropped_rows,
    }


def _open(listed: Mapping[str, Any]) -> Part:
    source = ObjectFile(clients.s3(), parse_uri(listed["uri"]), listed["etag"])
    return open_part(listed["uri"], cast(BinaryIO, io.BufferedReader(source, BUFFER_BYTES)))


def _place_champion(bucket: str, execution: str, model_data_url: str | None) -> None:
    """The champion's archive, or none.json: a channel whose prefix is empty would fail the training job."""
    if model_data_url is None:
        write_document(clients.s3(), names.within(bucket, execution, "champion/none.json"), {})
        return
    source, target = parse_uri(model_data_url), names.within(bucket, execution, "champion/model.tar.gz")
    clients.s3().copy({"Bucket": source.bucket, "Key": source.key}, target.bucket, target.key)


def handler(event: dict[str, Any], _context: object) -> dict[str, int]:
    return preprocess(event["bucket"], event["execution"])


def main() -> None:
    """The processing job's entry point: `python -m steps.preprocess --bucket B --execution E`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--execution", required=True)
    given = parser.parse_args()
    preprocess(given.bucket, given.execution)


if __name__ == "__main__":
    main()
