"""The history as the evidence worker reads it: its own code measures, from these batches in the place of S3's."""

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

import retrainer
from retrainer.adapters.datasets import Asked, Datasets, Format, Rows, Want, formats
from retrainer.adapters.datasets.remembered import Remembered
from retrainer.backtest.cache import Cache, code, named
from retrainer.backtest.history import History
from retrainer.backtest.task import Predicted
from retrainer.core.effects import MeasureEvidence
from retrainer.core.evidence import Evidence
from retrainer.core.policy import Data
from retrainer.core.record import canonical
from retrainer.core.window import Batch, Refusal
from retrainer.worker import Worker

CACHE_BYTES = 512 << 20

Serve = Callable[[str], tuple[pa.Table, Predicted] | None]
"""The batch and its predictions by the key of the object they were logged in, or None if there is none such."""


class HistoryDatasets:
    """Reads a history's batches, and the predictions that a backtest logs, as `Datasets` reads S3."""

    def __init__(self, history: History, data: Data, serve: Serve) -> None:
        self._history, self._data, self._serve = history, data, serve
        self._places = {b.key: b.index for b in history.batches}
        self._known: Remembered[tuple[str, ...], Rows] = Remembered(CACHE_BYTES, _size)

    def read(
        self,
        batch: Batch,
        wants: Collection[Want],
        *,
        required: Collection[str] = (),
        remembered: bool = False,
        written_as: Format = "parquet",
    ) -> Rows | Refusal:
        """As Datasets.read, which see; nothing changes here, so that any answer may be one from an earlier call."""
        name = (batch.key, batch.version, *sorted(f"{column}:{kind}" for column, kind in wants), *required)
        if (known := self._known.get(name)) is not None:
            return known
        try:
            body, written_as = self._body(batch)
            file = cast(io.RawIOBase, io.BytesIO(body))
            with formats.refusing(file, written_as):
                rows = formats.read(file, len(body), written_as, Asked(wants, required))
        except formats.UnusableError as error:
            return Refusal(bucket=batch.bucket, key=batch.key, version=batch.version, why=str(error))
        return self._known.put(name, rows)

    def stream(
        self, batch: Batch, asked: Asked, written_as: Format, *, groups_max: int | None = None
    ) -> Iterator[Rows]:
        """As Datasets.stream."""
        body, written_as = self._body(batch)
        file = cast(io.RawIOBase, io.BytesIO(body))
        with formats.refusing(file, written_as):
            yield from formats.stream(file, written_as, asked, groups_max=groups_max)

    def resolved(self, batch: Batch) -> Batch:
        """As Datasets.resolved; by its key alone a batch is known here, whatever has become of it."""
        return batch

    def load(self, bucket: str, key: str) -> bytes | None:
        """Nothing is stored: what the worker remembers lasts as long as the history."""
        del bucket, key
        return None

    def save(self, bucket: str, key: str, body: bytes) -> None:
        """See `load`."""

    def _body(self, batch: Batch) -> tuple[bytes, Format]:
        if batch.key in self._places:
            try:
                return self._history.body(self._places[batch.key])
            except OSError as error:
                raise formats.UnusableError(f"it cannot be read: {error}") from error
        if (found := self._serve(batch.key)) is None:
            raise formats.UnusableError("it is no longer in S3")
        table, predicted = found
        logged = self._data.predictions
        assert logged
        columns: dict[str, Any] = {logged.key: table.column(logged.key)}
        columns[logged.prediction] = pa.array(predicted.values.tolist())
        if logged.confidence and predicted.confidence is not None:
            columns[logged.confidence] = predicted.confidence
        elif logged.confidence:
            columns[logged.confidence] = pa.nulls(table.num_rows, pa.float64())
        return _parquet(pa.table(columns)), "parquet"


class Measuring:
    """The evidence worker over a history, and what it measured before, on disk: no policy has it measured again."""

    def __init__(self, datasets: HistoryDatasets, data: Data, cache: Cache) -> None:
        # What the worker asks of Datasets for a measurement is what HistoryDatasets has, and nothing else.
        self._worker = Worker(cast(Datasets, datasets))
        self._data, self._cache = data, cache
        self._about = named(code(_sources()), canonical(data.model_dump(mode="json")))

    def measure(self, effect: MeasureEvidence) -> Evidence:
        """The answer; its time is the virtual clock's, none. Raises PermanentError."""
        name = named(self._about, _content(effect))
        if (known := self._cache.get("evidence", name)) is None:
            found = replace(self._worker.measure(effect, self._data), took_seconds=0.0)
            self._cache.put("evidence", name, _EVIDENCE.dump_python(found, mode="json"))
            return found
        return _addressed(_EVIDENCE.validate_python(known), effect)


_EVIDENCE = TypeAdapter(Evidence)
_WINDOWS = ("reference", "current", "predictions", "grid", "first_predictions")


def _content(effect: MeasureEvidence) -> Mapping[str, object]:
    """What the evidence follows from: the batches by name and content, not who asked, nor what is known of them."""
    windows = {name: getattr(effect, name) for name in _WINDOWS}
    named = {name: [[b.key, b.version] for b in batches] for name, batches in windows.items()}
    return {**named, "classifier": effect.classifier}


def _addressed(evidence: Evidence, effect: MeasureEvidence) -> Evidence:
    """The evidence with the batches as this effect names them: another policy may know more or less of each."""
    rows = {(b.key, b.version): b.rows for b in evidence.batches}
    read = [b for b in effect.current if (b.key, b.version) in rows]
    return replace(evidence, batches=tuple(replace(b, rows=rows[b.key, b.version]) for b in read))


def _sources() -> tuple[Path, ...]:
    """The code that evidence follows from."""
    root = Path(str(retrainer.__file__)).parent
    adapters = root / "adapters"
    return (
        root / "worker.py",
        root / "judging.py",
        root / "core" / "evidence.py",
        adapters / "evidently_report.py",
        *sorted((root / "drift").rglob("*.py")),
        *sorted((adapters / "datasets").rglob("*.py")),
        Path(__file__),
    )


def _parquet(table: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


def _size(rows: Rows) -> int:
    return sum(column.nbytes for column in rows.columns.values())
