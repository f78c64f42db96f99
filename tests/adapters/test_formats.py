"""CSV and JSON lines hold what parquet would, and a file that is broken or hostile is refused in a sentence."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrainer.adapters.datasets import formats
from retrainer.adapters.datasets.formats import Format, Rows, UnusableError, Want
from retrainer.adapters.datasets.rows import Asked
from retrainer.drift import values
from tests.adapters import s3_server

TEXT: Want = ("a", "text")
NUMBER: Want = ("b", "number")
LIST: Want = ("l", "list")


def read(body: bytes, written_as: Format, *wants: Want, required: tuple[str, ...] = ()) -> Rows:
    return formats.read(io.BytesIO(body), len(body), written_as, formats.Asked(wants, required))  # type: ignore[arg-type]


def held(rows: Rows) -> list[list[Any]]:
    spelled: Mapping[str, Callable[[Any], Any]]
    spelled = {"text": values.texts, "number": values.numbers, "list": values.lists}
    return [list(spelled[want[1]](column)) for want, column in rows.columns.items()]


@pytest.mark.parametrize(
    ("written_as", "body"),
    [
        ("parquet", s3_server.parquet({"a": [3.0, None, 1.5], "b": [1, None, 2], "c": [[1], [2], [3]]})),
        ("csv", b"a,b,c\n3.0,1,x\n,,\n1.5,2,z\n"),
        ("csv", b'\xef\xbb\xbf"a","b","c"\r\n3,1.0,"x,y"\r\n"",NaN,"two\nlines"\r\n1.5, 2 ,\r\n'),
        ("jsonl", b'{"a":3,"b":1}\n{"c":{"deep":[1]}}\n\n{"a":1.5,"b":2}'),
        ("jsonl", b'{"a":"3","b":1.0}\n{"a":null,"b":null}\n{"a":1.5,"b":2}\n'),
    ],
)
def test_one_batch_is_the_same_however_it_is_written(written_as: Format, body: bytes) -> None:
    rows = read(body, written_as, TEXT, NUMBER)
    words, numbers = held(rows)
    assert (rows.count, words) == (3, ["3", None, "1.5"])
    assert np.array_equal(numbers, [1.0, np.nan, 2.0], equal_nan=True)


def test_namibia_is_a_country_and_no_number() -> None:
    rows = read(b"a,b\nNA,NA\nnull,1\n", "csv", TEXT, NUMBER, ("b", "text"))
    words, numbers, as_text = held(rows)
    assert words == ["NA", "null"]
    assert np.array_equal(numbers, [np.nan, 1.0], equal_nan=True)
    assert as_text == ["NA", "1"]


def test_lists_are_in_json_lines_and_not_in_csv() -> None:
    assert held(read(b'{"l":[1,2]}\n{"l":null}\n{}\n{"l":[]}', "jsonl", LIST)) == [[["1", "2"], None, None, []]]
    with pytest.raises(UnusableError, match="column 'l' is csv, which has no lists"):
        read(b"l\n[1]\n", "csv", LIST)


@given(st.lists(st.tuples(st.none() | st.text(min_size=1), st.none() | st.floats(allow_nan=False)), min_size=1))
def test_json_lines_give_back_what_was_written(rows: list[tuple[str | None, float | None]]) -> None:
    body = "\n".join(json.dumps({"a": a, "b": b}) for a, b in rows).encode()
    words, numbers = held(read(body, "jsonl", TEXT, NUMBER))
    assert words == [a for a, _ in rows]
    assert np.array_equal(numbers, [np.nan if b is None else b for _, b in rows], equal_nan=True)


def test_only_whole_lines_of_columns_asked_for_are_looked_at() -> None:
    rows = read(b"a,b,c\n1,x,\xc3\xa4\n", "csv", TEXT, required=("c",))
    assert held(rows) == [["1"]]
    assert read(b"a,b\n1,2\n3,4\n", "csv", required=("a",)).count == 2
    assert read(b'{"a":1}\n{"a":2}\n', "jsonl", required=("a",)).count == 2


@pytest.mark.parametrize(
    ("written_as", "body", "why"),
    [
        ("csv", b"a,b\n", "it has no rows"),
        ("csv", b"b\n1\n", "it has no column 'a'; it has b"),
        ("csv", b"c\n1\n", "it has no columns 'a', 'b'; it has c"),
        ("csv", b"a,a,b\n1,2,3\n", "it has more than one column 'a'"),
        ("csv", b"a,b\n1,good\n", "column 'b' does not hold numbers: Failed to parse string: 'good'"),
        ("csv", b"," * 2_000_000, "it has more than 10000 columns"),
        ("jsonl", b"", "it has no rows"),
        ("jsonl", b"\n\n", "it has no rows"),
        ("jsonl", b'{"a":1}', "it has no column 'b'; it has a"),
        ("jsonl", b'{"a":1,"b":2}\n{"a":1,', "line 2 is not JSON: "),
        ("jsonl", b"[1]", "line 1 is not a JSON object"),
        ("jsonl", b"[" * 500_000, "line 1 is not JSON: maximum recursion depth"),
        ("jsonl", b'{"a":1,"b":' + b"9" * 5000 + b"}", "line 1 is not JSON: Exceeds the limit"),
        ("jsonl", b"x" * 2_000_000, "line 1 is longer than 1 MiB"),
        ("jsonl", b'{"a":"\\ud800","b":1}', "column 'a' holds text that is not Unicode"),
        ("jsonl", b'{"a":1,"b":"good"}', "column 'b' holds string, not numbers"),
        ("jsonl", b'{"a":{"x":1},"b":1}', "column 'a' holds struct<x: int64>, not texts or numbers"),
        ("jsonl", b'{"a":[1],"b":1}\n{"a":2,"b":1}', "column 'a' holds values of different kinds"),
        ("jsonl", b"\xff\xfe", "line 1 is not JSON: 'utf-8' codec"),
    ],
)
def test_a_batch_that_cannot_be_used_says_why(written_as: Format, body: bytes, why: str) -> None:
    with pytest.raises(UnusableError) as refused:
        read(body, written_as, TEXT, NUMBER)
    assert str(refused.value).startswith(why)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n\n",
        b"a,b",
        b"a,b\n1,2,3\n",
        b"a,b\n\xff\xfe,1\n",
        b'a,b\n"unclosed,1\n2,3\n',
        b'a,b\n"' + b"x" * 9_000_000 + b'",1\n',
        b"a,b\n1,2\n" + b"x," * 5_000_000,
        b"\x00\x01PAR1\x00" * 100,
    ],
    ids=["nothing", "empty lines", "half a header", "too many values", "no text", "open", "long", "wide", "binary"],
)
def test_csv_that_is_none_is_pyarrows_to_refuse(body: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid):
        read(body, "csv", TEXT, NUMBER)


def test_objects_with_ever_new_names_are_refused_before_they_fill_the_memory() -> None:
    body = b"\n".join(json.dumps({f"{i}-{j}": 1 for j in range(1000)}).encode() for i in range(300))
    with pytest.raises(UnusableError, match="it has more than 10000 columns"):
        read(body, "jsonl", TEXT)


def test_text_too_large_to_be_read_whole_is_not_opened() -> None:
    with pytest.raises(UnusableError, match="it has 1024 MiB, and csv is read up to 512; write smaller"):
        formats.read(io.BytesIO(), 1 << 30, "csv", formats.Asked([TEXT]))  # type: ignore[arg-type]


def test_two_columns_of_one_name_in_parquet_are_refused() -> None:
    twice = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), twice)
    with pytest.raises(UnusableError, match="more than one column 'a'"):
        read(twice.getvalue(), "parquet", TEXT)


def streamed(body: bytes, written_as: Format, *wants: Want, **also: Any) -> list[Rows]:
    asked = formats.Asked(wants, timestamp=also.pop("timestamp", None))
    return list(formats.stream(io.BytesIO(body), written_as, asked, **also))  # type: ignore[arg-type]


def many(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "a": [None if i % 11 == 0 else f"name {i % 7}" for i in range(count)],
        "b": [None if i % 13 == 0 else x for i, x in enumerate(rng.normal(size=count).tolist())],
        "at": [f"2026-01-01T00:00:{i % 60:02}Z" for i in range(count)],
    }


def written(columns: Mapping[str, Any], written_as: Format) -> bytes:
    if written_as == "parquet":
        return s3_server.parquet(columns)
    made = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if written_as == "jsonl":
        return "\n".join(json.dumps(row) for row in made).encode()
    lines = (",".join("" if v is None else str(v) for v in row.values()) for row in made)
    return "\n".join([",".join(columns), *lines]).encode()


@pytest.mark.parametrize("written_as", ["parquet", "csv", "jsonl"])
def test_chunk_by_chunk_a_batch_is_what_it_is_as_a_whole(written_as: Format) -> None:
    body = written(many(150_000), written_as)
    parts = streamed(body, written_as, TEXT, NUMBER, timestamp="at")
    assert len(parts) > 1
    assert max(part.count for part in parts) < 150_000
    words, numbers = held(read(body, written_as, TEXT, NUMBER))
    found = [held(part) for part in parts]
    assert [word for part in found for word in part[0]] == words
    assert np.array_equal(np.concatenate([part[1] for part in found]), numbers, equal_nan=True)
    times = [text for part in parts if part.times is not None for text in part.times.to_pylist()]
    assert len(times) == 150_000
    assert times[61] == "2026-01-01T00:00:01Z"


@pytest.mark.parametrize("written_as", ["parquet", "csv", "jsonl"])
def test_a_column_of_the_wrong_type_is_to_blame_by_name(written_as: Format) -> None:
    with pytest.raises(UnusableError) as refused:
        streamed(written({"a": ["x"], "b": ["good"]}, written_as), written_as, TEXT, NUMBER)
    assert refused.value.column == "b"


def test_a_column_may_come_with_a_late_line() -> None:
    body = b'{"b":1}\n' * 70_000 + b'{"a":"x","b":1}\n'
    words = [word for part in streamed(body, "jsonl", TEXT) for word in held(part)[0]]
    assert words == [None] * 70_000 + ["x"]
    with pytest.raises(UnusableError, match="it has no column 'l'; it has b, a"):
        streamed(body, "jsonl", LIST)


def test_of_many_row_groups_a_few_are_enough_and_lie_apart() -> None:
    target = io.BytesIO()
    pq.write_table(pa.table({"b": np.arange(100_000.0)}), target, row_group_size=1_000)
    parts = streamed(target.getvalue(), "parquet", NUMBER, groups_max=4)
    found = np.concatenate([values.numbers(part.columns[NUMBER]) for part in parts])
    assert np.array_equal(found[::1_000], [0, 25_000, 50_000, 75_000])


@pytest.mark.parametrize("groups", [1, 40])
def test_the_memory_that_a_stream_takes_does_not_grow_with_the_batch(groups: int) -> None:
    rows, noise = 2_000_000, np.random.default_rng(0).normal(size=2_000_000)
    target = io.BytesIO()
    pq.write_table(pa.table({f"c{i}": noise for i in range(8)}), target, row_group_size=rows // groups)
    wants: list[Want] = [(f"c{i}", "number") for i in range(8)]
    before, most = pa.total_allocated_bytes(), 0
    for part in formats.stream(io.BytesIO(target.getvalue()), "parquet", formats.Asked(wants)):  # type: ignore[arg-type]
        most = max(most, pa.total_allocated_bytes() - before)
        assert part.count <= 65_536
    assert most < 100 << 20 < 8 * rows * 8


def test_text_that_is_not_unicode_is_refused() -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    target = io.BytesIO()
    pq.write_table(pa.table({"a": bad}), target)
    with pytest.raises(UnusableError, match="column 'a' holds text that is not Unicode"):
        streamed(target.getvalue(), "parquet", TEXT)


def test_of_a_wide_table_a_chunk_has_fewer_rows_but_not_too_few() -> None:
    most = {count: Asked([(f"c{i}", "number") for i in range(count)]).chunk_rows for count in (64, 1_000, 9_000)}
    assert most == {64: 65_536, 1_000: 4_194, 9_000: 4_096}
    body = s3_server.parquet({f"c{i}": np.zeros(5_000) for i in range(1_000)})
    parts = streamed(body, "parquet", *((f"c{i}", "number") for i in range(1_000)))
    assert [part.count for part in parts] == [4_194, 806]


def test_vectors_and_images_come_a_few_at_a_time() -> None:
    body = s3_server.parquet({"v": [[1.0, 2.0]] * 10_000, "i": [b"png"] * 10_000})
    assert max(part.count for part in streamed(body, "parquet", ("v", "vector"))) == 4_096
    assert max(part.count for part in streamed(body, "parquet", ("i", "image"))) == 256


def test_captured_traffic_is_rows_and_its_numbers_may_be_texts() -> None:
    sides = {"endpointInput": "1,x\n2,y", "endpointOutput": "0.5\n0.7"}
    captured = {name: {"data": data, "encoding": "CSV"} for name, data in sides.items()}
    line = json.dumps({"captureData": captured, "eventMetadata": {"eventId": "e"}, "eventVersion": "0"}).encode()
    rows = read(line, "capture", ("event_id", "text"), ("_c1", "number"), ("output", "number"))
    assert held(rows) == [["e/0", "e/1"], [1.0, 2.0], [0.5, 0.7]]
    with pytest.raises(UnusableError, match="record 2: it has no captureData"):
        read(line + b"\n{}", "capture", ("_c0", "number"))
