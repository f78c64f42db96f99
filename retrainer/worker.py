"""The evidence worker, a process of its own: `python -m retrainer.worker` answers each line of JSON with another.

It alone loads pyarrow and, where profiles leave doubt and for reports, Evidently. It may be killed at any time, as it
owns nothing, and ends with its input.

    {"do": "measure", "effect": {MeasureEvidence}, "data": {the policy's data}}  ->  {"evidence": {Evidence}}
    {"do": "publish", "effect": {PublishReport}, "data": {the policy's data}}    ->  {"stored": "s3://..."}
    either, when it cannot be done    ->  {"error": "transient" or "permanent", "why": "one sentence"}
"""

import ctypes
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from retrainer import judging, publishing
from retrainer.adapters.datasets import Datasets, Format, Rows, Want
from retrainer.adapters.datasets.formats import ending
from retrainer.adapters.datasets.profiles import Profiles, Unread, Watch, Window
from retrainer.core import record
from retrainer.core.effects import MeasureEvidence, PublishReport
from retrainer.core.evidence import PREDICTIONS, BatchLoss, ColumnDrift, Evidence, Performance, Unusable
from retrainer.core.policy import Data
from retrainer.core.window import Batch, Refusal
from retrainer.drift import performance, values
from retrainer.drift.grid import Grid
from retrainer.drift.profile import Numbers
from retrainer.ports import PermanentError, TransientError
from retrainer.publishing import Reported
from retrainer.report.document import Profiles as Both

_PREDICTED: dict[str, values.Kind] = {"hit_rate_at_10": "list", "accuracy": "text"}
"""How a metric's predictions are read; those of the others are numbers."""

_PR_SET_PDEATHSIG = 1


@contextmanager
def _quietly() -> Iterator[None]:
    """Numbers near the largest there are overflow, and libraries say so; what comes of it is an answer too."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """Two windows counted on one grid."""

    watch: Watch
    grid: Grid
    reference: Window
    current: Window


class Worker:
    """Answers requests one after the other."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets
        self._profiles = Profiles(datasets)

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
        """Every batch is counted once; those that cannot be used are told of, and the rest is measured."""
        began = time.monotonic()
        labels = _Read(self._datasets, effect.current, _labels(data), data.format)
        logged = _Read(self._datasets, effect.predictions, _predictions(data), _logged_as(data))
        compared = self._compared(effect, data, effect.reference if data.watched else (), labels.batches)
        known = self._evidence(effect, data, compared)
        found, lost, expected = _predicted(data, logged, labels)
        return replace(
            known,
            refused=(*labels.refused, *known.refused, *logged.refused),
            performance=found,
            losses=lost,
            estimated=expected,
            took_seconds=round(time.monotonic() - began, 6),
        )

    def publish(self, effect: PublishReport, data: Data) -> str:
        """The report of the same columns and tests, stored at keys that the effect names, so twice is once."""
        return publishing.store(self._datasets, self.report(effect, data))

    def report(self, effect: PublishReport, data: Data, evidence: Evidence | None = None) -> Reported:
        """The report on the windows, and on what was measured of them, which is measured where it is not given.

        Raises PermanentError where a window has no rows, or TransientError.
        """
        compared = self._compared(effect, data, effect.reference, effect.current)
        current, reference = compared.current, compared.reference
        if not current.profile or not reference.profile:
            why = "; ".join(f"s3://{r.bucket}/{r.key}: {r.why}" for r in (*current.refused, *reference.refused))
            raise PermanentError(f"one of the report's windows has no rows: {why or 'it names no batch'}")
        return Reported(
            effect=effect,
            evidence=evidence or self._evidence(effect, data, compared),
            reference=reference.batches,
            profiles=Both(grid=compared.grid, reference=reference.profile, current=current.profile),
        )

    def _compared(
        self,
        effect: MeasureEvidence | PublishReport,
        data: Data,
        reference: Sequence[Batch],
        current: Sequence[Batch],
    ) -> _Compared:
        watch = Watch(
            spec={name: column.kind for name, column in data.watched.items()},
            bucket=data.bucket,
            prefix=effect.profiles,
            required=data.required_columns,
            timestamp=data.timestamp,
            written_as=data.format,
        )
        return self._windows(watch, effect.grid or reference, reference, current)

    @_quietly()
    def _windows(
        self, watch: Watch, grid_of: Sequence[Batch], reference: Sequence[Batch], current: Sequence[Batch]
    ) -> _Compared:
        grid, known = self._profiles.against(grid_of, reference, watch)
        return _Compared(watch=watch, grid=grid, reference=known, current=self._profiles.window(current, grid, watch))

    def _evidence(self, effect: MeasureEvidence | PublishReport, data: Data, compared: _Compared) -> Evidence:
        """What the profiles say, and on columns where they leave doubt the rows."""
        reference, current = compared.reference, compared.current
        drift = self._judged(data.watched, compared)
        if drift and effect.classifier is not None and reference.profile and current.profile:
            drift = (*drift, judging.together(reference.profile, current.profile, effect.classifier))
        return Evidence(
            rows=current.rows,
            reference_rows=reference.rows,
            batches=current.batches,
            refused=(*current.refused, *reference.refused),
            drift=(*drift, *self._prediction_drift(effect, data)),
            unusable=_unusable(data, current),
            began=current.profile.began if current.profile else None,
            ended=current.profile.ended if current.profile else None,
        )

    def _prediction_drift(self, effect: MeasureEvidence | PublishReport, data: Data) -> tuple[ColumnDrift, ...]:
        """Of the newest logged predictions against the first after the promotion."""
        first, logged = effect.first_predictions, data.predictions
        if not first or not logged or not logged.watched:
            return ()
        known = {(b.key, b.version) for b in first}
        newest = [b for b in effect.predictions if (b.key, b.version) not in known]
        column = logged.watched
        watch = Watch(
            spec={logged.prediction: column.kind},
            bucket=data.bucket,
            prefix=effect.profiles,
            written_as=logged.format,
        )
        found = self._judged({logged.prediction: column}, self._windows(watch, first, first, newest))
        return tuple(replace(drift, column=PREDICTIONS) for drift in found)

    @_quietly()
    def _judged(self, watched: judging.Watched, compared: _Compared) -> tuple[ColumnDrift, ...]:
        reference, current = compared.reference.profile, compared.current.profile
        if not compared.grid.columns or not reference or not current or not reference.rows or not current.rows:
            return ()

        def rows_of(name: str) -> judging.RowsOfBoth | None:
            windows = (compared.reference.batches, compared.current.batches)
            old, new = (self._profiles.rows(name, batches, compared.grid, compared.watch) for batches in windows)
            return None if old is None or new is None else (old, new)

        return judging.drift(watched, compared.grid, reference, current, rows_of)


class _Read:
    """Batches whose columns are read whole, and those that cannot be. Where no column is wanted none is looked at."""

    def __init__(
        self, datasets: Datasets, batches: Sequence[Batch], wants: Sequence[Want], written_as: Format | None
    ) -> None:
        self.batches: tuple[Batch, ...] = tuple(batches)
        self.refused: tuple[Refusal, ...] = ()
        self._used: list[Rows] = []
        if not wants:
            return
        found = [(b, datasets.read(b, wants, remembered=True, written_as=written_as or ending(b.key))) for b in batches]
        self.refused = tuple(rows for _, rows in found if isinstance(rows, Refusal))
        used = [(b, rows) for b, rows in found if isinstance(rows, Rows)]
        self.batches = tuple(replace(b, rows=rows.count) for b, rows in used)
        self._used = [rows for _, rows in used]

    @property
    def rows(self) -> int:
        return sum(rows.count for rows in self._used)

    def parts(self, want: Want) -> list[list[Any]]:
        """The column batch by batch."""
        return [_listed(rows.columns[want], want[1]) for rows in self._used]

    def column(self, want: Want) -> list[Any]:
        """The column over all batches."""
        return list(chain(*self.parts(want)))


def _listed(column: pa.ChunkedArray, kind: values.Kind) -> list[Any]:
    if kind == "list":
        return values.lists(column)
    found: list[Any] = (values.numbers(column) if kind == "number" else values.texts(column)).tolist()
    return found


def _labels(data: Data) -> list[Want]:
    if not (logged := data.predictions):
        return []
    return [(logged.key, "text"), (logged.label, "text" if logged.metric in _PREDICTED else "number")]


def _predictions(data: Data) -> list[Want]:
    if not (logged := data.predictions):
        return []
    sure: list[Want] = [(logged.confidence, "number")] if logged.confidence else []
    return [(logged.key, "text"), (logged.prediction, _PREDICTED.get(logged.metric, "number")), *sure]


def _logged_as(data: Data) -> Format | None:
    return data.predictions.format if data.predictions else None


def _unusable(data: Data, current: Window) -> tuple[Unusable, ...]:
    """What of the current window's columns is left out of the evidence."""
    found = [
        Unusable(column=name, why=f"{held.infinite} of {current.rows} values are infinite")
        for name, held in (current.profile.columns.items() if current.profile else ())
        if isinstance(held, Numbers) and held.infinite
    ]
    blamed: dict[str, list[Unread]] = {}
    for unread in current.unread:
        if unread.column is not None:
            blamed.setdefault(unread.column, []).append(unread)
    for name, refused in blamed.items():
        more = f", and {len(refused) - 1} more batches" if len(refused) > 1 else ""
        found.append(Unusable(column=name, why=f"{refused[0].refusal.key}: {refused[0].refusal.why}{more}"))
    with_zone, without = current.zoned
    if with_zone and without:
        why = f"the times of {with_zone} batches have a time zone, those of {without} have none"
        found.append(Unusable(column=data.timestamp, why=why))
    return tuple(found)


def _predicted(
    data: Data, logged: _Read, labels: _Read
) -> tuple[Performance | None, tuple[BatchLoss, ...], Performance | None]:
    """How well the logged predictions did, on each batch too, and how well they say they do."""
    if not data.predictions or not logged.rows:
        return None, (), None
    metric = data.predictions.metric
    keys, made, *sure = (logged.column(want) for want in _predictions(data))
    label_keys, known = (labels.parts(want) for want in _labels(data))
    lost = performance.losses(metric, keys, made, list(zip(labels.batches, label_keys, known, strict=True)))
    every_key, every_label = list(chain(*label_keys)), list(chain(*known))
    expected = None
    if sure and metric == "accuracy":
        expected = performance.estimated(keys, made, sure[0], every_key, every_label)
    if metric == "roc_auc":
        expected = performance.estimated_auc(keys, made, every_key, every_label)
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
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
