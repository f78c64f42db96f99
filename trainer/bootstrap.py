"""How sure a figure is: percentile intervals, and two models compared on the same resampled units.

A unit is what was drawn independently: a user with all of its cases, or a row (Efron and Tibshirani, "An Introduction
to the Bootstrap", 1993, chapter 13). Comparing two models unit by unit takes out what makes a unit hard for both, so a
small gain shows where the intervals of the two overlap.

Shapes: U units, M metrics, S resamplings, B a block of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLES = 1000  # 25 of them lie beyond each end of an interval
CONFIDENCE = 0.95
UNITS_MAX = 10_000  # more are resampled in groups: sums of independent units are independent, at a bounded cost
BLOCK = 50

Metrics = dict[str, dict[str, float]]
"""``{metric: {"value", "low", "high"}}``: a value and its 95 % interval."""
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Sums of each metric over a unit's cases, and how many cases these are; a metric is sum / count of all units."""

    total_UM: Array
    count_U: Array

    def means(self, names: Sequence[str]) -> dict[str, float]:
        count = float(self.count_U.sum())
        return {name: float(self.total_UM[:, m].sum() / count) if count else 0.0 for m, name in enumerate(names)}


def intervals(scores: Scores, names: Sequence[str], seed: int = 0) -> Metrics:
    """``{metric: {value, low, high, standard_deviation}}``, the interval of 95 %; all zero where there is no case."""
    value_of = scores.means(names)
    sample_SM = _resampled(scores, seed)
    low_M, high_M = _interval(sample_SM)
    return {
        name: {
            "value": value_of[name],
            "low": float(low_M[m]),
            "high": max(value_of[name], min(1.0, float(high_M[m]))),  # no metric here can exceed 1
            "standard_deviation": float(sample_SM[:, m].std(ddof=1)),
        }
        for m, name in enumerate(names)
    }


def paired(challenger: Scores, champion: Scores, names: Sequence[str], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Challenger minus champion on the same cases, by metric: ``difference``, the ends ``low`` and ``high`` of its 95 %
    interval, ``probability_better`` (the share of the resamplings in which it is above zero; a tie is a half), and all
    resampled differences, ``resampled``, ascending: a gate can read off them how sure any least gain is.
    """
    if not np.array_equal(challenger.count_U, champion.count_U):
        raise ValueError("challenger and champion have answered different cases")
    difference = Scores(challenger.total_UM - champion.total_UM, challenger.count_U)
    value_of = difference.means(names)
    sample_SM = np.sort(_resampled(difference, seed), axis=0)
    low_M, high_M = _interval(sample_SM)
    better_M = np.mean((1 + np.sign(sample_SM)) / 2, axis=0)
    return {
        name: {
            "difference": value_of[name],
            "low": float(low_M[m]),
            "high": float(high_M[m]),
            "probability_better": float(better_M[m]),
            "resampled": [float(f"{sample:.6g}") for sample in sample_SM[:, m]],
        }
        for m, name in enumerate(names)
    }


def _interval(sample_SM: Array) -> tuple[Array, Array]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low_M, high_M = np.percentile(sample_SM, [tail, 100 - tail], axis=0)
    return low_M, high_M


def _resampled(scores: Scores, seed: int) -> Array:
    """Each metric in each resampling; the same seed draws the same units whatever the scores are."""
    if not scores.count_U.sum():
        return np.zeros((SAMPLES, scores.total_UM.shape[1]))
    total_UM, count_U = _grouped(scores)
    times_SU = _times(len(count_U), seed)
    sample_SM = np.empty((SAMPLES, total_UM.shape[1]))
    for first in range(0, SAMPLES, BLOCK):
        times_BU = times_SU[first : first + BLOCK].astype(np.float64)
        sample_SM[first : first + BLOCK] = (times_BU @ total_UM) / (times_BU @ count_U)[:, None]
    return sample_SM


def _grouped(scores: Scores) -> tuple[Array, Array]:
    units = len(scores.count_U)
    if units <= UNITS_MAX:
        return scores.total_UM, scores.count_U
    group_U = np.arange(units) % UNITS_MAX
    total_GM = np.stack(
        [np.bincount(group_U, weights=total_U).astype(np.float64) for total_U in scores.total_UM.T], axis=1
    )
    return total_GM, np.bincount(group_U, weights=scores.count_U).astype(np.float64)


@lru_cache(maxsize=2)
def _times(units: int, seed: int) -> npt.NDArray[np.uint8]:
    """How often each unit is drawn in each resampling; 255 times is out of reach for any unit among so many."""
    draws = np.random.default_rng(seed)
    blocks = [draws.multinomial(units, np.full(units, 1 / units), size=BLOCK) for _ in range(0, SAMPLES, BLOCK)]
    return np.concatenate([block.astype(np.uint8) for block in blocks])
