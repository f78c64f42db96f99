"""The evidence worker, a process of its own: `python -m retrainer.worker` answers each line of JSON with another.

It alone loads pyarrow, pandas and Evidently, and may be killed at any time: it owns nothing. It ends with its input.

    {"do": "measure", "effect": {MeasureEvidence}, "data": {the policy's data}}  ->  {"evidence": {Evidence}}
    {"do": "publish", "effect": {PublishReport}, "data": {the policy's data}}    ->  {"stored": "s3://..."}
    either, when it cannot be done    ->  {"error": "transient" or "permanent", "why": "one sentence"}
"""

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TextIO

import numpy as np
from pydantic import TypeAdapter

from retrainer.adapters.datasets import Datasets, Format, Rows, Want
from retrainer.core import record
from retrainer.core.effects import MeasureEvidence, PublishReport
from retrainer.core.evidence import BatchLoss, ColumnDrift, Evidence, Performance
from retrainer.core.policy import Data
from retrainer.core.window import Batch, Refusal
from retrainer.drift import performance, values
from retrainer.ports import PermanentError, TransientError

_PREDICTED: dict[str, values.Kind] = {"hit_rate_at_10": "list", "accuracy": "text", "mae": "number", "rmse": "number"}
_EVIDENTLY = "retrainer.adapters.evidently_report"
_PR_SET_PDEATHSIG = 1


class Worker:
    """Answers requests one after the other."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    def answer(self, line: str) -> str:
        """The answer to one request; never raises."""
        try:
            request = json.loads(line)
            data = Data.model_validate(request["data"])
            if request["do"] == "measure":
                asked = TypeAdapter(MeasureEvidence).validate_python(request["effect"])
                return f'{{"evidence":{record.dump(self.measure(asked, data))}}}'
            wanted = TypeAdapter(PublishReport).validate_python(request["effect"])
            return record.canonical({"stored": self.publish(wanted, data)})
        except TransientError as error:
            return record.canonical({"error": "transient", "why": str(error)})
        except PermanentError as error:
            return record.canonical({"error": "permanent", "why": str(error)})
        except Exception as error:
            return record.canonical({"error": "permanent", "why": f"{type(error).__name__}: {error}"})

    def measure(self, effect: MeasureEvidence, data: Data) -> Evidence:
        """Every batch is read; those that cannot be used are told of, and the rest is measured."""
        began = time.monotonic()
        window = partial(_Window, self._datasets)
        current = window(effect.current, [*_watched(data), *_labels(data)], _required(data), written_as=data.format)
        known = effect.reference if data.watched else ()
        reference = window(known, _watched(data), remembered=True, written_as=data.format)
        logged = window(effect.predictions if data.predictions else (), _predictions(data))
        found, lost, expected = _predicted(data, logged, current)
        return Evidence(
            rows=current.rows,
            reference_rows=reference.rows,
            batches=current.read,
            refused=(*current.refused, *reference.refused, *logged.refused),
            drift=_drift(data, reference, current),
            performance=found,
            losses=lost,
            estimated=expected,
            took_seconds=round(time.monotonic() - began, 6),
        )

    def publish(self, effect: PublishReport, data: Data) -> str:
        """The report of the same columns and tests, stored at a key that the effect names, so twice is once."""
        window = partial(_Window, self._datasets, wants=_watched(data), remembered=True, written_as=data.format)
        current, reference = window(effect.current), window(effect.reference)
        if not current.rows or not reference.rows:
            why = "; ".join(f"s3://{r.bucket}/{r.key}: {r.why}" for r in (*current.refused, *reference.refused))
            raise PermanentError(f"one of the report's windows has no rows: {why or 'it names no batch'}")
        facts = [
            f"{len(window.read)} batches with {window.rows} rows in the {name} window"
            for name, window in (("reference", reference), ("current", current))
        ]
        engine = importlib.import_module(_EVIDENTLY)
        html = engine.page(effect.key, facts, data.watched, _windows(data, reference, current))
        self._datasets.store_page(effect.bucket, effect.report_key, html)
        return f"s3://{effect.bucket}/{effect.report_key}"


class _Window:
    """The batches of a window that could be read, oldest first, and those that could not.

    `written_as` is their format; by default that of each key's ending, and parquet where it has none of the three.
    """

    def __init__(
        self,
        datasets: Datasets,
        batches: Sequence[Batch],
        wants: Sequence[Want],
        required: Sequence[str] = (),
        *,
        remembered: bool = False,
        written_as: Format | None = None,
    ) -> None:
        found = [
            (b, datasets.read(b, wants, required=required, remembered=remembered, written_as=written_as or _ending(b)))
            for b in batches
        ]
        self.refused = tuple(rows for _, rows in found if isinstance(rows, Refusal))
        used = [(b, rows) for b, rows in found if isinstance(rows, Rows)]
        self.read = tuple(replace(b, rows=rows.count) for b, rows in used)
        self.rows = sum(rows.count for _, rows in used)
        self._used = [rows for _, rows in used]

    def column(self, want: Want) -> Any:
        """The column over all batches: arrays, or a list where it holds lists. There must be a batch."""
        parts = self.parts(want)
        return [items for part in parts for items in part] if want[1] == "list" else np.concatenate(parts)

    def parts(self, want: Want) -> list[Any]:
        """The column batch by batch."""
        one = {"number": values.numbers, "text": values.texts, "list": values.lists}[want[1]]
        return [one(rows.columns[want]) for rows in self._used]


def _ending(batch: Batch) -> Format:
    ending = batch.key.rpartition(".")[2]
    return "csv" if ending == "csv" else "jsonl" if ending == "jsonl" else "parquet"


def _watched(data: Data) -> list[Want]:
    return [(name, "number" if c.kind == "numerical" else "text") for name, c in data.watched.items()]


def _labels(data: Data) -> list[Want]:
    if not (logged := data.predictions):
        return []
    return [(logged.key, "text"), (logged.label, "number" if logged.metric in ("mae", "rmse") else "text")]


def _predictions(data: Data) -> list[Want]:
    if not (logged := data.predictions):
        return []
    sure: list[Want] = [(logged.confidence, "number")] if logged.confidence else []
    return [(logged.key, "text"), (logged.prediction, _PREDICTED[logged.metric]), *sure]


def _required(data: Data) -> list[str]:
    return [data.timestamp, *data.required_columns]


def _drift(data: Data, reference: _Window, current: _Window) -> tuple[ColumnDrift, ...]:
    if not data.watched or not reference.rows or not current.rows:
        return ()
    engine = importlib.import_module(_EVIDENTLY)
    found: tuple[ColumnDrift, ...] = engine.drift(data.watched, _windows(data, reference, current))
    return found


def _windows(data: Data, reference: _Window, current: _Window) -> dict[str, Any]:
    windows = importlib.import_module(_EVIDENTLY).Windows
    batches = [b.rows or 0 for b in reference.read]
    return {want[0]: windows(reference.column(want), current.column(want), batches) for want in _watched(data)}


def _predicted(
    data: Data, logged: _Window, current: _Window
) -> tuple[Performance | None, tuple[BatchLoss, ...], Performance | None]:
    """How well the logged predictions did, on each batch too, and how well they say they do."""
    if not data.predictions or not logged.rows:
        return None, (), None
    metric = data.predictions.metric
    keys, made, *sure = (list(logged.column(want)) for want in _predictions(data))
    label_keys, labels = ([list(part) for part in current.parts(want)] for want in _labels(data))
    lost = performance.losses(metric, keys, made, list(zip(current.read, label_keys, labels, strict=True)))
    every_key, every_label = list(chain(*label_keys)), list(chain(*labels))
    expected = None
    if sure and metric == "accuracy":
        expected = performance.estimated(keys, made, sure[0], every_key, every_label)
    return performance.performance(metric, keys, made, every_key, every_label), lost, expected


def _die_with_parent(parent: int) -> None:
    """Linux only; elsewhere the end of the input does it, once the request in hand is answered."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent and os.getppid() != parent:
            sys.exit(1)


def _own_stdout() -> TextIO:
    """What is printed by any library goes to stderr; only answers go to the parent."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main(arguments: Sequence[str]) -> None:
    """Answer until the input ends. The argument is the parent's process id, 0 for none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(int(arguments[0]) if arguments else 0)
    os.nice(10)  # evidence can wait a moment, the loop beside it cannot
    answers = _own_stdout()
    worker = Worker(Datasets())
    for line in sys.stdin:
        answers.write(worker.answer(line) + "\n")
        answers.flush()
        if _EVIDENTLY not in sys.modules and '"test":"' in line:
            # The first windows have no reference yet; by the time one has, Evidently is there.
            threading.Thread(target=importlib.import_module, args=(_EVIDENTLY,), daemon=True).start()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
