"""Ours and every drift detector of river's, as they come: fed losses one by one, or in batches."""

import functools
import types
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from river import drift
from river.drift import binary, kswin

from retrainer.core import concept


class Detector(Protocol):
    """What every detector of river's can do."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value was one too many."""
        ...

    def update(self, x: Any) -> Any:
        """One more loss."""
        ...


class Ours:
    """`retrainer.core.concept` as one of river's; begun anew after an alarm, as by a promotion."""

    drift_detected = False

    def __init__(self, batch: int = 1) -> None:
        self._batch = batch
        self._waiting: list[float] = []
        self._detector = concept.Detector()

    def update(self, x: float) -> None:
        """Take in a loss; whatever is found is found at the end of a batch."""
        if self.drift_detected:
            self._detector = concept.Detector()
        if self._batch == 1:
            self._detector.add(1, x)
        else:
            self._waiting.append(x)
            if len(self._waiting) < self._batch:
                return
            rows = np.array(self._waiting)
            self._detector.add(self._batch, float(np.mean(rows)), float(np.var(rows)))
            self._waiting.clear()
        self.drift_detected = self._detector.due


Made = Callable[[int], Detector]
"""A new detector, with a seed where it needs one."""


def _plain(detector: Callable[[], Detector]) -> Made:
    return lambda _: detector()


OURS: dict[str, Made] = {
    "retrainer, label by label": _plain(Ours),
    "retrainer, batches of 50": lambda _: Ours(50),
}
ANY_LOSS: dict[str, Made] = {
    "ADWIN": _plain(drift.ADWIN),
    "KSWIN": lambda seed: drift.KSWIN(seed=seed),
    "PageHinkley": _plain(drift.PageHinkley),
    "PageHinkley, upwards only": lambda _: drift.PageHinkley(mode="up"),
    "DummyDriftDetector, fixed": lambda seed: drift.DummyDriftDetector(seed=seed),
    "DummyDriftDetector, random": lambda seed: drift.DummyDriftDetector(trigger_method="random", w=300, seed=seed),
    "NoDrift": _plain(drift.NoDrift),
}
ZERO_ONE: dict[str, Made] = {
    "DDM": _plain(binary.DDM),
    "EDDM": _plain(binary.EDDM),
    "FHDDM": _plain(binary.FHDDM),
    "HDDM_A": _plain(binary.HDDMA),
    "HDDM_W": _plain(binary.HDDMW),
}


def alarm(detector: Detector, losses: Iterable[float]) -> int | None:
    """After how many of these losses it signals drift."""
    for count, loss in enumerate(losses, 1):
        detector.update(loss)
        if detector.drift_detected:
            return count
    return None


@functools.cache
def _p_value(apart: int, size: int) -> float:
    """Of two samples of one size; any two so far apart have the same."""
    from scipy import stats

    return float(stats.ks_2samp(np.arange(size), np.arange(size) + apart, method="auto").pvalue)


def _smirnov(one: list[float], other: list[float], method: str) -> tuple[float, float]:
    assert method == "auto"
    assert len(one) == len(other)
    if {*one, *other} <= {0.0, 1.0}:
        apart = abs(round(sum(one) - sum(other)))
    else:
        both = np.sort(np.concatenate((one, other)))
        below = [np.searchsorted(np.sort(sample), both, "right") for sample in (one, other)]
        apart = int(np.max(np.abs(below[0] - below[1])))
    return apart / len(one), _p_value(apart, len(one))


class Remembered:
    """While it is on KSWIN takes a tenth of its time: the same p-values, each worked out once."""

    _module: Any = kswin

    def __enter__(self) -> None:
        self._stats = self._module.stats
        self._module.stats = types.SimpleNamespace(ks_2samp=_smirnov)

    def __exit__(self, *_: object) -> None:
        self._module.stats = self._stats
