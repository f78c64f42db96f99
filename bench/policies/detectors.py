"""Detectors that others wrote, as they come: river's on a stream of errors, Evidently's rule on the features."""

import json
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from river import drift
from river.drift import binary, kswin

from bench.policies.matrices import Played, trained_rows

REFERENCE_ROWS = 5_000


class Detector(Protocol):
    """What every detector of river's can do."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value was one too many."""
        ...

    def update(self, x: Any) -> Any:
        """One more error, 0 or 1."""
        ...


DETECTORS: Mapping[str, Callable[[], Detector]] = {
    "ADWIN": drift.ADWIN,
    "DDM": binary.DDM,
    "PageHinkley": drift.PageHinkley,
    "KSWIN": lambda: drift.KSWIN(seed=0),
    "HDDM_A": binary.HDDMA,
    "HDDM_W": binary.HDDMW,
}


def fires(detector: Detector, errors: Iterable[bool]) -> bool:
    """Whether it signals drift at any of these errors; it has seen them up to there."""
    for wrong in errors:
        detector.update(int(wrong))
        if detector.drift_detected:
            return True
    return False


@cache
def _smirnov(ones: int, of: int, others: int, among: int) -> tuple[float, float]:
    from scipy import stats

    samples = ([1] * ones + [0] * (of - ones), [1] * others + [0] * (among - others))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)
        found = stats.ks_2samp(*samples, method="auto")
    return float(found[0]), float(found[1])


def _ks_2samp(one: list[int], other: list[int], method: str) -> tuple[float, float]:
    return _smirnov(sum(one), len(one), sum(other), len(other))


# KSWIN tests 60 values at every row, a millisecond each; of zeros and ones the result depends on their counts alone.
kswin.stats = types.SimpleNamespace(ks_2samp=_ks_2samp)  # type: ignore[attr-defined]


class Evidently:
    """Evidently's verdict on a batch against a champion's training rows, asked once and then remembered on disk."""

    def __init__(self, played: Played, path: Path) -> None:
        self._played = played
        self._path = path
        self._known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    def drifted(self, model: int, t: int) -> bool:
        """Whether the batch as a whole has drifted: at least half of the columns, Evidently's default."""
        from_disk = self._known.get(f"{model} {t}")
        if from_disk is None:
            from_disk = self._known[f"{model} {t}"] = self._measured(model, t)
        return from_disk >= 0.5

    def save(self) -> None:
        """Write down what was asked."""
        self._path.write_text(json.dumps(self._known))

    def _measured(self, model: int, t: int) -> float:
        played = self._played
        cut = trained_rows(int(played.bounds[model + 1]))
        random = np.random.default_rng([played.seed, model])
        chosen = np.sort(random.permutation(cut)[:REFERENCE_ROWS])
        return share(played.features[chosen], played.features[played.rows(t)], played.names, played.categorical)


def share(reference: Any, current: Any, names: tuple[str, ...], categorical: frozenset[str]) -> float:
    """The share of columns that drifted, by Evidently's own choice of tests. Columns null throughout are left out."""
    import pandas as pd

    whole = [k for k in range(len(names)) if not (np.isnan(reference[:, k]).all() or np.isnan(current[:, k]).all())]
    of_kind: dict[bool, list[str]] = {True: [], False: []}
    for k in whole:
        of_kind[names[k] in categorical].append(names[k])
    frames = (pd.DataFrame(rows[:, whole], columns=[names[k] for k in whole]) for rows in (current, reference))
    typed = [frame.astype(dict.fromkeys(of_kind[True], str)) for frame in frames]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # importing it warns as well
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import DriftedColumnsCount

        definition = DataDefinition(numerical_columns=of_kind[False], categorical_columns=of_kind[True])
        sets = [Dataset.from_pandas(frame, definition) for frame in typed]
        found = Report([DriftedColumnsCount()]).run(*sets).dict()["metrics"][0]["value"]
    return float(found["share"])
