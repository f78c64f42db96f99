"""How sure a gain on a holdout is: what the evaluation's paired bootstrap says, at a price a backtest can pay.

Every metric of a gate, an area or a root too, becomes a mean over groups of rows by its jackknife pseudo-values (Tukey
1958; Efron and Tibshirani 1993, chapter 11); what is resampled are the differences of both models' pseudo-values.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrainer.backtest import task as tasks
from retrainer.backtest.task import Predicted, Task

GROUPS = 100
"""A metric is measured once more for each; the interval of a mean of so many is within 1 % of the rows' own."""
RESAMPLINGS = 1000
INTERVAL = (2.5, 97.5)

Made = tuple[Predicted, Predicted]


def resampled(holdout: pa.Table, made: Made, task: Task, metric: str) -> tuple[float, ...]:
    """The challenger's gain over the champion in each resampling, ascending; empty where it cannot be measured."""
    rows = holdout.num_rows
    groups = min(GROUPS, rows)
    group = np.arange(rows) % groups
    without = np.array([_gain(holdout, made, task, metric, group != g) for g in range(groups)])
    whole = _gain(holdout, made, task, metric, np.ones(rows, dtype=bool))
    pseudo = groups * whole - (groups - 1) * without
    if groups < 2 or not np.isfinite(pseudo).all():
        return ()
    times = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLINGS)
    return tuple(np.sort(times @ pseudo / groups).tolist())


def interval(gains: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(gains, INTERVAL)
    return float(low), float(high)


def better(gains: Sequence[float]) -> float:
    """The share of the resamplings in which the challenger is better; a tie is half."""
    return float(np.mean((1 + np.sign(gains)) / 2))


def _gain(holdout: pa.Table, made: Made, task: Task, metric: str, kept: npt.NDArray[np.bool_]) -> float:
    table = holdout.filter(pa.array(kept))
    challenger, champion = (tasks.metrics(table, _of(one, kept), task).get(metric, np.nan) for one in made)
    return challenger - champion


def _of(made: Predicted, kept: npt.NDArray[np.bool_]) -> Predicted:
    return Predicted(made.values[kept], None if made.confidence is None else made.confidence[kept])
