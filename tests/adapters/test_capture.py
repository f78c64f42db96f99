"""Captured traffic becomes rows; what is not captured traffic is refused in a sentence."""

import json
from typing import Any

import pytest

from retrainer.adapters.datasets.capture import CaptureError, rows


def _record(given: str | None, answered: str | None, encoding: str = "CSV", **about: str) -> dict[str, Any]:
    sides = {"endpointInput": (given, "INPUT"), "endpointOutput": (answered, "OUTPUT")}
    return {
        "captureData": {
            name: {"observedContentType": "text/csv", "mode": mode, "data": data, "encoding": encoding}
            for name, (data, mode) in sides.items()
            if data is not None
        },
        "eventMetadata": {"eventId": "e-1", "inferenceTime": "2026-01-02T03:04:05Z", **about},
        "eventVersion": "0",
    }


def test_csv_inputs_are_called_as_model_monitor_calls_them() -> None:
    assert list(rows(_record("132,25.5,no", "0.0107"))) == [
        {
            "event_id": "e-1",
            "inference_time": "2026-01-02T03:04:05Z",
            "output": "0.0107",
            "_c0": "0.0107",
            "_c1": "132",
            "_c2": "25.5",
            "_c3": "no",
        }
    ]


def test_several_outputs_come_before_the_inputs() -> None:
    (row,) = rows(_record("132,25.5", "0.1,0.9"))

    assert [row[f"_c{i}"] for i in range(4)] == ["0.1", "0.9", "132", "25.5"]
    assert "output" not in row


def test_several_rows_of_one_request_are_rows_with_ids_of_their_own() -> None:
    found = list(rows(_record("1,2\n3,4\n", "0.1\n0.2")))

    assert [(r["event_id"], r["_c1"], r["output"]) for r in found] == [("e-1/0", "1", "0.1"), ("e-1/1", "3", "0.2")]


def test_the_callers_own_id_goes_before_sagemakers() -> None:
    (row,) = rows(_record("1", "2", inferenceId="order-7"))

    assert row["event_id"] == "order-7"


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ({"instances": [{"a": 1}, {"a": 2}]}, {"predictions": [{"score": 0.1}, {"score": 0.2}]}),
        ([{"a": 1}, {"a": 2}], [{"score": 0.1}, {"score": 0.2}]),
    ],
)
def test_json_goes_by_its_own_names(given: object, answered: object) -> None:
    found = list(rows(_record(json.dumps(given), json.dumps(answered), "JSON")))

    assert [(row["a"], row["output.score"]) for row in found] == [(1, 0.1), (2, 0.2)]


def test_json_lines_and_features_without_names_are_read_too() -> None:
    given = "\n".join(json.dumps({"features": [i, i + 1]}) for i in range(2))
    found = list(rows(_record(given, '{"score": 1}\n{"score": 2}', "JSON")))

    assert [(row["_c0"], row["_c1"], row["output.score"]) for row in found] == [(0, 1, 1), (1, 2, 2)]


def test_a_side_that_was_not_captured_is_not_missed() -> None:
    assert [set(row) for row in rows(_record("1,2", None))] == [{"event_id", "inference_time", "_c0", "_c1"}]
    assert [set(row) for row in rows(_record(None, "5"))] == [{"event_id", "inference_time", "output", "_c0"}]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({}, "it has no captureData and eventMetadata"),
        ({"captureData": [], "eventMetadata": {}}, "it has no captureData and eventMetadata"),
        (_record("1", "2", "BASE64"), "its endpointInput is BASE64; have text/csv and application/json captured"),
        (_record("{", "2", "JSON"), "its endpointInput is not JSON"),
        (_record("[" * 100_000, "2", "JSON"), "its endpointInput is"),
        (_record('"' + "x" * 200_000, "2"), "its endpointInput is not CSV"),
        (_record("1\n2", "2"), "it has 2 rows of input and 1 of output"),
        ({"captureData": {"endpointInput": {"data": 3}}, "eventMetadata": {}}, "its endpointInput has no data"),
        (_record("1\n" * 10_001, None), "it has 10001 rows in one request, and 10000 are read"),
    ],
)
def test_what_is_no_captured_traffic_is_told(record: dict[str, Any], why: str) -> None:
    with pytest.raises(CaptureError, match=why.replace("(", r"\(")):
        list(rows(record))
