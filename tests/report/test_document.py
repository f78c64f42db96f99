"""The document is plain JSON, in the order of what is furthest past its threshold, and bounded."""

import json
from dataclasses import replace

import pytest

from retrainer.core.evidence import ALL_COLUMNS, ColumnDrift, Evidence
from retrainer.core.window import Refusal
from retrainer.report.document import DRAWN_MAX, REFUSED_MAX, VERSION, document, times_threshold
from tests.report.example import Example, wide

ONE = ColumnDrift(column="x", test="psi", score=0.3, threshold=0.1, drifted=True)


def test_the_document_is_json_without_what_json_does_not_have() -> None:
    made = Example().document()
    assert json.loads(json.dumps(made, allow_nan=False))["version"] == VERSION


def test_what_drifted_comes_first_and_of_that_the_furthest() -> None:
    made = Example().document()
    assert [column["column"] for column in made["columns"]] == ["amount", "country", "age"]
    assert (made["drifted"], made["measured"]) == (2, 3)
    assert made["drift_share"] == pytest.approx(2 / 3)


def test_everything_that_was_measured_of_a_column_is_told() -> None:
    far = Example().document()["columns"][0]
    assert (far["score"], far["low"], far["high"], far["threshold"]) == (0.98, 0.97, 0.99, 0.1)
    assert (far["p_value"], far["nulls"], far["times_threshold"]) == (1e-120, 0.02, 9.8)
    assert far["since"] == "2026-03-02T07:30:00+00:00"
    assert far["shape"] is not None


def test_the_windows_are_told_with_their_rows_batches_and_times() -> None:
    made = Example().document()
    assert made["current"] == {
        "rows": 800,
        "batches": 1,
        "began": "2026-03-01T00:00:00+00:00",
        "ended": "2026-03-04T05:00:00+00:00",
        "first": "s3://lake/data/m/new.parquet",
        "last": "s3://lake/data/m/new.parquet",
    }
    assert (made["reference"]["rows"], made["reference"]["began"]) == (4_000, None)


def test_what_could_not_be_used_is_told_with_its_reason() -> None:
    made = Example().document()
    assert made["unusable"] == [{"what": "ratio", "why": "12 of 800 values are infinite it is empty, 0 bytes"}]
    assert made["refused"] == [{"what": "s3://lake/data/m/bad.parquet", "why": "it is empty, 0 bytes"}]


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({}, 3.0),
        ({"score": 0.05, "drifted": False}, 0.5),
        ({"score": 1e300}, 1e6),
        ({"test": "ks", "score": 0.0001, "threshold": 0.01}, 2.0),
        ({"test": "chisquare", "score": 0.1, "threshold": 0.01, "drifted": False}, 0.5),
        ({"test": "g_test", "score": 1.0, "threshold": 0.01, "drifted": False}, 0.0),
        ({"column": ALL_COLUMNS, "test": "classifier", "score": 0.8, "threshold": 0.6}, 3.0),
        ({"column": ALL_COLUMNS, "test": "classifier", "score": 0.4, "threshold": 0.6, "drifted": False}, 0.0),
    ],
)
def test_how_far_a_column_is_has_one_scale_for_all_tests(changes: dict[str, object], times: float) -> None:
    assert times_threshold(replace(ONE, **changes)) == pytest.approx(times)  # type: ignore[arg-type]


def test_a_p_value_of_zero_is_far_and_finite() -> None:
    assert 200 < times_threshold(replace(ONE, test="ks", score=0.0, threshold=0.05)) < 300


def test_all_columns_together_are_no_column_more() -> None:
    together = replace(ONE, column=ALL_COLUMNS, test="classifier", score=0.9, threshold=0.6)
    made = document(model="m", decision="m-1", evidence=Evidence(rows=1, drift=(ONE, together)), reference=())
    assert (made["drifted"], made["measured"], made["drift_share"]) == (1, 1, 1.0)


def test_of_a_thousand_columns_the_furthest_are_drawn() -> None:
    made = wide(1_000)
    assert [column["shape"] is not None for column in made["columns"]] == [True] * DRAWN_MAX + [False] * 950
    assert len(json.dumps(made)) < 1_000_000


def test_refused_batches_are_counted_and_the_first_are_listed() -> None:
    gone = tuple(Refusal(bucket="b", key=str(n), version="", why="it is empty") for n in range(REFUSED_MAX + 5))
    made = document(model="m", decision="m-1", evidence=Evidence(rows=0, refused=gone), reference=())
    assert (len(made["refused"]), made["refused_batches"]) == (REFUSED_MAX, REFUSED_MAX + 5)
