"""What was measured about a model's current window: drift of its columns, and how well its predictions did."""

from dataclasses import dataclass

from retrainer.core.window import Batch, Refusal

LOWER_IS_BETTER = frozenset({"mae", "rmse"})
"""Metrics of which less is better; of every other metric, more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """One column's drift: `score` is on the scale of `test` (a distance, or a p-value for ks and chisquare).

    `p_value` is that of a two-sample test calibrated to the sizes of both windows: how certain it is that anything has
    changed, where the score says how much. None where it was not measured.
    """

    column: str
    test: str
    score: float
    threshold: float
    drifted: bool
    p_value: float | None = None


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
    the model's own confidence, without labels.
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

    @property
    def drift_share(self) -> float:
        """The share of declared columns that drifted, 0 where none was measured."""
        return sum(c.drifted for c in self.drift) / len(self.drift) if self.drift else 0.0


def worse_by(metric: str, value: float, baseline: float) -> float:
    """How much worse `value` is than `baseline`, as a share of the baseline; negative when better."""
    if baseline == 0:
        return 0.0
    change = (baseline - value) / abs(baseline)
    return -change if metric in LOWER_IS_BETTER else change
