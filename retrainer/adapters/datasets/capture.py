"""What SageMaker's endpoints capture of their traffic, as rows: one JSON line a request, with one row of input or more.

A row has `event_id` (the caller's inference id where it gave one), `inference_time`, the outputs and the inputs. Those
in JSON go by their own names, an output's after `output.`. Those in CSV have none, and are called as Model Monitor
calls them, `_c0`, `_c1` and on, the outputs before the inputs; a lone output is also `output`.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from typing import Any

ROWS_MAX = 10_000
"""Of one request; an endpoint takes 6 MB of it."""

_LISTS = ("instances", "inputs", "records", "predictions", "outputs")
"""Where requests and answers of several rows keep them: TensorFlow Serving's names, and SageMaker's."""


class CaptureError(ValueError):
    """The record cannot be read as captured traffic; the message says why."""


def rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of one captured request, in its order; values from CSV are texts. Raises CaptureError."""
    captured, about = record.get("captureData"), record.get("eventMetadata")
    if not isinstance(captured, dict) or not isinstance(about, dict):
        raise CaptureError("it has no captureData and eventMetadata, as SageMaker's data capture writes them")
    inputs = _values(captured.get("endpointInput"), "endpointInput")
    outputs = _values(captured.get("endpointOutput"), "endpointOutput")
    if inputs and outputs and len(inputs) != len(outputs):
        raise CaptureError(f"it has {len(inputs)} rows of input and {len(outputs)} of output")
    count = max(len(inputs), len(outputs))
    if count > ROWS_MAX:
        raise CaptureError(f"it has {count} rows in one request, and {ROWS_MAX} are read")
    event = str(about.get("inferenceId") or about.get("eventId") or "") or None
    for i in range(count):
        named = f"{event}/{i}" if event and count > 1 else event
        answer = _outputs(outputs[i]) if outputs else {}
        places = sum(name.startswith("_c") for name in answer)
        question = _inputs(inputs[i], places) if inputs else {}
        yield {"event_id": named, "inference_time": about.get("inferenceTime")} | answer | question


def _values(side: object, what: str) -> list[Any]:
    """The rows of one side: a list of values or a mapping for each; none where that side was not captured."""
    if side is None:
        return []
    if not isinstance(side, dict) or not isinstance(side.get("data"), str):
        raise CaptureError(f"its {what} has no data")
    encoding = side.get("encoding")
    if encoding == "CSV":
        try:
            return [line for line in csv.reader(side["data"].splitlines()) if line]
        except csv.Error as error:
            raise CaptureError(f"its {what} is not CSV: {error}") from error
    if encoding == "JSON":
        return _records(side["data"], what)
    raise CaptureError(
        f"its {what} is {encoding}; have text/csv and application/json captured as such, by CaptureContentTypeHeader"
    )


def _records(text: str, what: str) -> list[Any]:
    """One JSON document, a list of rows, an object that holds such a list, or JSON lines."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise CaptureError(f"its {what} is not JSON: {str(error)[:200]}") from error
    except RecursionError as error:
        raise CaptureError(f"its {what} is nested too deep") from error
    if isinstance(found, dict):
        held = next((found[name] for name in _LISTS if isinstance(found.get(name), list)), None)
        return [found] if held is None else held
    return found if isinstance(found, list) and all(isinstance(row, list | dict) for row in found) else [found]


def _inputs(row: object, first: int) -> dict[str, Any]:
    """By name, or by place from `first` on."""
    if isinstance(row, dict):
        inside = row.get("features")
        return _inputs(inside, first) if isinstance(inside, list) else row
    values = row if isinstance(row, list) else [row]
    return {f"_c{place}": value for place, value in enumerate(values, first)}


def _outputs(row: object) -> dict[str, Any]:
    if isinstance(row, dict):
        return {f"output.{name}": value for name, value in row.items()}
    values = row if isinstance(row, list) else [row]
    named = {f"_c{place}": value for place, value in enumerate(values)}
    return {"output": values[0], **named} if len(values) == 1 else named
