"""A history is read from files, from one file cut by time, or from S3, in the order in which it came."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from retrainer.backtest.history import History, microseconds, open_history
from retrainer.ports import ConfigError
from tests.backtest import stream

DATA = stream.policy().data


def test_a_folder_is_a_batch_a_file_in_the_order_of_names(tmp_path: Path) -> None:
    history = open_history(str(stream.write(tmp_path / "h", days=3, count=50)), DATA)
    assert [b.key for b in history.batches] == [f"data/stream/2025-01-0{n}.parquet" for n in (1, 2, 3)]
    assert [b.rows for b in history.batches] == [50, 50, 50]
    newest = stream.START + timedelta(days=2, seconds=86_400 * 49 / 50)
    assert history.batches[2].at == history.batches[2].label_at == newest


def test_labels_are_late_by_the_delay(tmp_path: Path) -> None:
    history = open_history(str(stream.write(tmp_path / "h", days=3)), DATA).delayed(timedelta(days=3))
    assert all(b.label_at - b.at == timedelta(days=3) for b in history.batches)


def test_csv_and_jsonl_hold_the_same_as_parquet(tmp_path: Path) -> None:
    table = stream.rows(0, turned=False, count=5)
    pa.csv.write_csv(table, tmp_path / "1.csv")
    lines = [str(row).replace("'", '"') for row in _plain(stream.rows(1, turned=False, count=5))]
    (tmp_path / "2.jsonl").write_text("\n".join(lines).replace("True", "true").replace("False", "false"))
    history = open_history(str(tmp_path), DATA)
    assert [b.rows for b in history.batches] == [5, 5]
    assert history.batches[1].at > history.batches[0].at
    assert history.table(0).column("x").to_pylist() == pytest.approx(table.column("x").to_pylist())


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    return [{**row, "at": row["at"].isoformat()} for row in table.to_pylist()]


def test_one_file_is_cut_by_the_timestamp(tmp_path: Path) -> None:
    tables = [stream.rows(day, turned=False, count=40) for day in (2, 0, 1)]
    pq.write_table(pa.concat_tables(tables), tmp_path / "all.parquet")
    by_day = open_history(str(tmp_path / "all.parquet"), DATA)
    assert [b.key for b in by_day.batches] == [f"data/stream/2025-01-0{n}T00-00-00.parquet" for n in (1, 2, 3)]
    assert [b.rows for b in by_day.batches] == [40, 40, 40]
    by_half = open_history(str(tmp_path / "all.parquet"), DATA, batch=timedelta(hours=12))
    assert [b.rows for b in by_half.batches] == [20] * 6


def test_a_folder_can_be_cut_into_other_batches(tmp_path: Path) -> None:
    history = open_history(str(stream.write(tmp_path / "h", days=4, count=10)), DATA, batch=timedelta(days=2))
    assert sum(b.rows for b in history.batches) == 40
    assert len(history) < 4


def test_without_a_timestamp_a_file_is_of_when_it_was_written(tmp_path: Path) -> None:
    for day in (1, 2):
        pq.write_table(stream.rows(day, turned=False, count=9).drop_columns("at"), tmp_path / f"{day}.parquet")
        os.utime(tmp_path / f"{day}.parquet", (1_700_000_000 + 86_400 * day,) * 2)
    history = open_history(str(tmp_path), DATA)
    assert [b.at.timestamp() for b in history.batches] == [1_700_086_400, 1_700_172_800]


def test_keys_are_made_where_the_history_has_none(tmp_path: Path) -> None:
    for day in (1, 2):
        pq.write_table(stream.rows(day, turned=False, count=3).drop_columns("id"), tmp_path / f"{day}.parquet")
    keys = open_history(str(tmp_path), DATA).table(0).column("id").to_pylist()
    assert keys == [f"data/stream/1.parquet#{n}" for n in range(3)]


def test_the_same_content_has_the_same_version(tmp_path: Path) -> None:
    one, two = (stream.write(tmp_path / name, days=2) for name in ("a", "b"))
    versions = [[b.version for b in open_history(str(f), DATA).batches] for f in (one, two)]
    assert versions[0] == versions[1]
    assert versions[0][0] != versions[0][1]


@pytest.mark.parametrize(
    ("moments", "first"),
    [
        (pa.array([0, 60]), datetime(1970, 1, 1, tzinfo=UTC)),
        (pa.array([1_700_000_000]), datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (pa.array([1_700_000_000_000]), datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (pa.array([datetime(2025, 1, 1)]), datetime(2025, 1, 1, tzinfo=UTC)),  # noqa: DTZ001 - what is not said is UTC
        (pa.array(["2025-01-01T02:00:00+02:00"]), datetime(2025, 1, 1, tzinfo=UTC)),
        (pa.array([datetime(2025, 1, 1).date()]), datetime(2025, 1, 1, tzinfo=UTC)),  # noqa: DTZ001
    ],
)
def test_moments_are_read_however_they_are_written(moments: pa.Array, first: datetime) -> None:
    assert microseconds("it", pa.chunked_array([moments]))[0] == first.timestamp() * 1e6


def test_what_cannot_be_read_is_told_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; name a file"):
        open_history(str(tmp_path / "none"), DATA)
    with pytest.raises(ConfigError, match=r"no \.parquet, \.csv or \.jsonl file"):
        open_history(str(tmp_path), DATA)
    (tmp_path / "1.parquet").write_bytes(b"no parquet")
    (tmp_path / "2.parquet").write_bytes(b"neither")
    with pytest.raises(ConfigError, match=r"1\.parquet cannot be read"):
        open_history(str(tmp_path), DATA)
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "3.parquet")
    with pytest.raises(ConfigError, match="no column 'at' to be cut by"):
        open_history(str(tmp_path / "3.parquet"), DATA)


def test_tables_are_read_again_rather_than_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrainer.backtest.history.MEMORY_BYTES", 1)
    history: History = open_history(str(stream.write(tmp_path / "h", days=3)), DATA)
    first = history.table(0)
    assert history.table(1).num_rows
    assert history.table(0).equals(first)
