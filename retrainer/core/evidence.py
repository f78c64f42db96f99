"""What was measured about a model's current window: drift of its columns, and how well its predictions did."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from retrainer.core.window import Batch, Refusal

LOWER_IS_BETTER = frozenset({"mae", "rmse"})
"""Metrics of which less is better; of every other metric, more."""

ALL_COLUMNS: Final = "(all columns)"
"""The name by which the classifier's verdict on all watched columns together stands in `Evidence.drift`; its test is
"classifier", its score the AUC."""

PREDICTIONS: Final = "(predictions)"
"""The name by which the drift of the logged predictions stands in `Evidence.drift`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """One column's drift: `score` is on the scale of `test` (a distance, or a p-value for ks, chisquare and g_test).

    `p_value` is that of a two-sample test calibrated to the sizes of both windows: how certain it is that anything has
    changed, where the score says how much. None where it was not measured. `low` and `high` are what the test may give
    on the rows at least and at most, where the score comes of profiles; None where it comes of the rows themselves.
    `nulls` and `reference_nulls` are shares of all rows of the windows, `unseen` of the current one: rows in a category
    that the reference does not have.
    """

    column: str
    test: str
    score: float
    threshold: float
    drifted: bool
    p_value: float | None = None
    low: float | None = None
    high: float | None = None
    nulls: float = 0.0
    reference_nulls: float = 0.0
    unseen: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifting:
    """A column that every measurement since then has found drifted."""

    column: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A column of the windows that cannot be used, or only in part, and the reason in one sentence."""

    column: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """A metric of logged predictions joined with their labels; `labels` counts the joined pairs."""

    metric: str
    value: float
    labels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLoss:
    """The champion's loss on one batch: 1 - accuracy, 1 - hit rate, absolute or squared error; `variance` is of one."""

    key: str
    version: str
    labels: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The answer to one MeasureEvidence. `drift` is empty while there is no reference window.

    `batches` are the batches read, with their rows; `refused` those that could not be used.
    `losses` are those of the current window's batches with joined labels; `estimated` is what the metric would be by
    the model's own confidence, without labels. `unusable` are columns with infinite values, of a wrong type in some
    batch, or of mixed time zones. `began` and `ended` are the times of the current window's first and last row.
    """

    rows: int
    reference_rows: int = 0
    batches: tuple[Batch, ...] = ()
    refused: tuple[Refusal, ...] = ()
    drift: tuple[ColumnDrift, ...] = ()
    performance: Performance | None = None
    took_seconds: float = 0.0
    losses: tuple[BatchLoss, ...] = ()
    estimated: Performance | None = None
    unusable: tuple[Unusable, ...] = ()
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def drift_share(self) -> float:
        """The share of watched columns that drifted: 0 where none was measured, 1 where all together have."""
        return share(self.drift, [c for c in self.drift if c.drifted])

    def cannot_be_used(self) -> list[str]:
        """Every batch and column of which something cannot be used, each with the reason."""
        batches = [f"s3://{r.bucket}/{r.key}: {r.why}" for r in self.refused]
        return batches + [f"column {u.column}: {u.why}" for u in self.unusable]


def share(measured: Sequence[ColumnDrift], drifted: Sequence[ColumnDrift]) -> float:
    """The share of the columns measured that `drifted` are; all of them where the classifier says so."""
    if any(c.column == ALL_COLUMNS for c in drifted):
        return 1.0
    single = sum(c.column != ALL_COLUMNS for c in measured)
    return len(drifted) / single if single else 0.0


def worse_by(metric: str, value: float, baseline: float) -> float:
    """How much worse `value` is than `baseline`, as a share of the baseline; negative when better."""
    if baseline == 0:
        return 0.0
    change = (baseline - value) / abs(baseline)
    return -change if metric in LOWER_IS_BETTER else change
