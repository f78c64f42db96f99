"""The rules compared: the daemon's own, through its real decide; Evidently's; NannyML's; Benjamini-Hochberg's."""

import importlib
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.stationary.world import Floats, Series, Setting, Shape, levels, spelled
from retrainer.core.decide import decide
from retrainer.core.effects import MeasureEvidence, StartExecution
from retrainer.core.events import EvidenceMeasured, ObjectCreated
from retrainer.core.evidence import ColumnDrift, Evidence
from retrainer.core.execution import Champion
from retrainer.core.policy import Policy
from retrainer.core.state import ModelState
from retrainer.core.window import Batch

BEGAN = datetime(2027, 1, 1, tzinfo=UTC)
SHARE = 0.5
"""Evidently's drift_share: a dataset has drifted once half of its columns have."""


def policy(shapes: Iterable[Shape]) -> Policy:
    """The default guards and the default drift trigger."""
    tests = [("categorical", "jensenshannon") if levels(s) else ("numerical", "wasserstein") for s in shapes]
    return Policy.model_validate(
        {
            "model": "m",
            "data": {
                "bucket": "lake",
                "prefix": "data/m/",
                "timestamp": "at",
                "columns": {f"c{i}": {"kind": kind, "test": test} for i, (kind, test) in enumerate(tests)},
            },
            "triggers": {"drift": {}},
            "action": {
                "state_machine": "arn:aws:states:eu-central-1:000000000000:stateMachine:retraining",
                "candidates": [{"name": "only"}],
            },
            "gate": {"metric": "accuracy"},
        }
    )


class Daemon:
    """A model's state under its policy, hour after hour."""

    def __init__(self, setting: Setting, shapes: Iterable[Shape] | None = None) -> None:
        self._setting, self._policy = setting, policy(setting.shapes if shapes is None else shapes)
        champion = Champion(generation=1, execution="m-g1-0", promoted_at=BEGAN, model_package_arn="", metrics={})
        self._state = ModelState(model="m", generation=1, champion=champion, training=(_batch(0, setting.reference),))

    def check(self, hour: int, p_values: Mapping[int, float], effects: Mapping[int, float] | None = None) -> bool:
        """A batch arrives and is measured; whether that starts a retraining. A column without a p-value has 1.

        `effects`: the scores of columns; without them every column has as much effect as its test asks for.
        """
        now = BEGAN + timedelta(hours=hour)
        batch = _batch(hour + 1, self._setting.hourly)
        arrived = ObjectCreated(bucket=batch.bucket, key=batch.key, version=batch.version, size_bytes=batch.size_bytes)
        asked = decide(self._policy, self._state, arrived, now)
        (measuring,) = (e for e in asked.effects if isinstance(e, MeasureEvidence))
        evidence = Evidence(
            rows=self._setting.rows,
            reference_rows=self._setting.reference,
            batches=(batch,),
            drift=tuple(self._column(i, p_values, effects) for i in range(self._setting.columns)),
        )
        told = decide(self._policy, asked.state, EvidenceMeasured(effect=measuring.key, evidence=evidence), now)
        self._state = told.state
        return any(isinstance(e, StartExecution) for e in told.effects)

    def _column(self, i: int, p_values: Mapping[int, float], effects: Mapping[int, float] | None) -> ColumnDrift:
        declared = self._policy.data.columns[f"c{i}"]
        assert declared.test is not None
        assert declared.threshold is not None
        score = 1.0 if effects is None else effects.get(i, 0.0)
        return ColumnDrift(
            column=f"c{i}",
            test=declared.test,
            score=score,
            threshold=declared.threshold,
            drifted=score >= declared.threshold,
            p_value=p_values.get(i, 1.0),
        )


def _batch(number: int, rows: int) -> Batch:
    return Batch(bucket="lake", key=f"data/m/{number:05}.parquet", version=f"{number:05}", size_bytes=1, rows=rows)


def false_retraining(setting: Setting, year: Mapping[int, Mapping[int, float]], *, every_hour: bool = False) -> bool:
    """Whether the daemon retrains in such a year.

    An hour in which every p-value is 1 changes nothing but when drift was last checked, so of the hours between those
    that count only the one just before is decided; `every_hour` decides all of them.
    """
    hours = (
        range(setting.hours) if every_hour else sorted({h for hour in year for h in (hour - 1, hour) if h >= 0} | {0})
    )
    daemon = Daemon(setting)
    return any(daemon.check(hour, year.get(hour, {})) for hour in hours)


def evidently(columns: Sequence[Series], hours: Iterable[int]) -> tuple[int | None, int | None]:
    """The first check at which Evidently's default rule calls the dataset drifted, and the first of any column."""
    first: list[int | None] = [None, None]
    for count, hour in enumerate(hours, start=1):
        share = float(np.mean([flagged(s.shape, s.reference, s.window(hour)) for s in columns]))
        for i, met in enumerate((share >= SHARE, share > 0)):
            first[i] = count if met and first[i] is None else first[i]
        if all(first):
            break
    return first[0], first[1]


def flagged(shape: Shape, reference: Floats, window: Floats) -> bool:
    """Whether Evidently calls a column drifted: its own default test and threshold, chosen by the reference's size."""
    tests: Any = importlib.import_module("evidently.legacy.calculations.stattests")
    pandas: Any = importlib.import_module("pandas")
    kinds: Any = importlib.import_module("evidently").ColumnType
    kind = kinds.Categorical if levels(shape) else kinds.Numerical
    old, new = (pandas.Series(spelled(shape, values)).dropna() for values in (reference, window))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        test = tests.get_stattest(old, new, kind, None)
        return bool(test(old, new, kind, None).drifted)


def benjamini_hochberg(p_values: Floats, level: float = 0.05) -> NDArray[np.bool_]:
    """What is discovered at this false discovery rate a check; one row a check, one column a column."""
    ranked = np.sort(p_values, axis=1)
    met = ranked <= level * np.arange(1, ranked.shape[1] + 1) / ranked.shape[1]
    least = np.max(np.where(met, ranked, -1.0), axis=1)
    found: NDArray[np.bool_] = p_values <= least[:, None]
    return found


def nannyml(runs: Iterable[tuple[Sequence[Series], int]], rows: int, python: Path) -> list[NDArray[np.bool_]]:
    """Of each run of so many checks: an alert of each column at each, by NannyML's univariate drift and its defaults.

    A chunk is a window, so that it knows from the reference how much windows of this size differ. It has an
    environment of its own.
    """
    with tempfile.TemporaryDirectory(prefix="bench-stationary-") as name:
        folder = Path(name)
        count = 0
        for count, (columns, checks) in enumerate(runs, start=1):
            old = {f"c{i}": spelled(s.shape, s.reference) for i, s in enumerate(columns)}
            new = {
                f"c{i}": spelled(s.shape, np.concatenate([s.window(hour) for hour in range(checks)]))
                for i, s in enumerate(columns)
            }
            pq.write_table(pa.table(old), folder / f"{count}.reference.parquet")
            pq.write_table(pa.table(new), folder / f"{count}.current.parquet")
        command = [str(python), "-m", "bench.stationary.nannyml_alerts", name, str(rows)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return [np.load(folder / f"{i}.npy") for i in range(1, count + 1)]
