"""Where a model's data arrives, what its columns are, and which batches are compared with which."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from retrainer.core.policy.duration import Declared, Period, TimeZone

_UNDER = r"/([A-Za-z0-9_.=-]+/)*$"
DataPrefix = Annotated[str, Field(pattern="^data" + _UNDER)]
PredictionsPrefix = Annotated[str, Field(pattern="^predictions" + _UNDER)]
Metric = Literal["hit_rate_at_10", "accuracy", "roc_auc", "mae", "rmse"]
Kind = Literal["numerical", "categorical", "embedding", "image"]
Test = Literal[
    "psi", "jensenshannon", "wasserstein", "hellinger", "TVD", "missing", "unseen", "ks", "chisquare", "g_test"
]
Arn = Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:states:[a-z0-9-]+:\d{12}:stateMachine:[A-Za-z0-9_-]+$")]
"""Of a Step Functions state machine."""

THRESHOLDS: Final[Mapping[Test, float]] = {
    "psi": 0.2,
    "jensenshannon": 0.1,
    "wasserstein": 0.1,
    "hellinger": 0.1,
    "TVD": 0.1,
    "missing": 0.1,
    "unseen": 0.05,
    "ks": 0.05,
    "chisquare": 0.05,
    "g_test": 0.05,
}
"""What a column's threshold is where the policy does not say. PSI: the scorecard's rule of thumb, 0.2 is a shift to
act on (Siddiqi 2006, Credit Risk Scorecards); the other distances: Evidently's own 0.1; p-values: 0.05."""

P_VALUES: Final[frozenset[str]] = frozenset({"ks", "chisquare", "g_test"})
"""Tests whose score is a p-value: the lower, the more has changed. Of every other the score is a distance."""

NUMERICAL: Final[tuple[Test, ...]] = ("psi", "jensenshannon", "wasserstein", "hellinger", "missing", "ks")
CATEGORICAL: Final[tuple[Test, ...]] = (
    "psi",
    "jensenshannon",
    "hellinger",
    "TVD",
    "missing",
    "unseen",
    "chisquare",
    "g_test",
)
"""The tests for a column of categories; those for numbers are also for what embeddings and images are measured by."""


DERIVED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "embedding": ("norm", "distance", "pc1", "pc2", "pc3", "pc4"),
    "image": ("brightness", "contrast", "saturation", "sharpness", "width", "height"),
}
"""What is measured of such a column: each as a column of its own, photo.brightness."""


class Column(Declared):
    """A column of the data. It is watched for drift if it names a test; no test is ever chosen by a window's size."""

    kind: Kind = Field(
        description="What its values are: numbers, categories, embeddings (lists of numbers, all of one length) or "
        "images (the bytes of a PNG or JPEG file)"
    )
    role: Literal["feature", "target", "ignored"] = Field(
        default="feature", description="What it is to the model: one of its inputs, what it predicts, or neither"
    )
    test: Test | None = Field(default=None, description="The drift test; a column without one is not watched")
    threshold: float | None = Field(
        default=None,
        gt=0,
        description="Drifted at or above this distance, or, for ks, chisquare and g_test, below this p-value; "
        "left out: psi 0.2, unseen and p-values 0.05, all else 0.1",
    )

    @model_validator(mode="after")
    def _fits(self) -> "Column":
        if self.role == "target" and self.kind in ("embedding", "image"):
            raise ValueError(f"an {self.kind} is nothing that is predicted here; write role: feature or role: ignored")
        # The policy is frozen once it is read; this is still the reading.
        object.__setattr__(self, "threshold", _threshold(self.kind, self.test, self.threshold))
        return self


def _threshold(kind: Kind, test: Test | None, threshold: float | None) -> float | None:
    """The threshold, by default that of the test. Raises ValueError for a test or a threshold that do not fit."""
    if test is None:
        if threshold is not None:
            raise ValueError("threshold is for a drift test; write test: too, as in test: psi")
        return None
    tests, other = (CATEGORICAL, "numerical") if kind == "categorical" else (NUMERICAL, "categorical")
    if test not in tests:
        raise ValueError(f"test {test} is for {other} columns; write {', '.join(tests[:-1])} or {tests[-1]}")
    if test in ("missing", "unseen") and threshold is not None and threshold > 1:
        raise ValueError(f"threshold {threshold:g} of {test} is a share of rows; write 0.1, say")
    return THRESHOLDS[test] if threshold is None else threshold


class Predictions(Declared):
    """Where served predictions are logged, and how they are joined with the labels in the data."""

    prefix: PredictionsPrefix = Field(description="S3 key prefix of logged predictions: predictions/.../")
    key: str = Field(description="The column that predictions and data share")
    prediction: str = Field(description="The predicted value; for hit_rate_at_10 a list of items, best first")
    label: str = Field(description="The column of the data that holds what really happened")
    metric: Metric = Field(description="How predictions are compared with labels")
    confidence: str | None = Field(
        default=None, description="The column of the model's probability that its prediction is right; for estimates"
    )
    batches: int = Field(
        default=32, ge=1, le=1000, description="Newest logged objects kept until their labels come, and estimated on"
    )
    format: Literal["parquet", "csv", "jsonl", "capture"] | None = Field(
        default=None,
        description="What every logged object is written in; capture: JSON lines of SageMaker Data Capture; left out: "
        "what the ending of its key says, and parquet where that says nothing",
    )
    test: Test | None = Field(
        default=None, description="The drift test of the predictions: the newest against the first after the promotion"
    )
    threshold: float | None = Field(default=None, gt=0, description="As that of a column")

    @model_validator(mode="after")
    def _fits(self) -> "Predictions":
        if self.metric == "hit_rate_at_10" and self.test is not None:
            raise ValueError("predictions of hit_rate_at_10 are lists, which no test compares; leave test out")
        # The policy is frozen once it is read; this is still the reading.
        object.__setattr__(self, "threshold", _threshold(self.kind, self.test, self.threshold))
        return self

    @property
    def kind(self) -> Kind:
        """What the predicted values are, as the metric has them."""
        return "categorical" if self.metric == "accuracy" else "numerical"

    @property
    def watched(self) -> Column | None:
        """The predictions as a column with a drift test, None where none is named."""
        return Column(kind=self.kind, role="ignored", test=self.test, threshold=self.threshold) if self.test else None


class Data(Declared):
    """Where batches arrive and which of their columns matter."""

    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$", description="Filled in from the daemon's settings when it is left out"
    )
    prefix: DataPrefix = Field(description="S3 key prefix of batches: data/.../")
    format: Literal["parquet", "csv", "jsonl", "capture"] = Field(
        default="parquet",
        description="What every batch is written in; capture: JSON lines of SageMaker Data Capture",
    )
    timestamp: str = Field(description="The column that holds the time of each row")
    required_columns: tuple[str, ...] = Field(default=(), description="A batch without one of these is refused")
    columns: dict[str, Column] = Field(default={}, description="Columns by name: their kind, role and drift test")
    predictions: Predictions | None = Field(default=None, description="Where what the model predicted is logged")
    unusable: Literal["skip", "hold"] = Field(
        default="skip",
        description="What follows from data that cannot be used. skip: it is left out and told; hold: no retraining "
        "starts while the newest measurement has met with some",
    )

    @model_validator(mode="after")
    def _one_target(self) -> "Data":
        targets = [name for name, column in self.columns.items() if column.role == "target"]
        if len(targets) > 1:
            raise ValueError(f"columns {', '.join(targets)} all have the role target; write role: target at one")
        return self

    @model_validator(mode="after")
    def _no_two_of_one_name(self) -> "Data":
        for name, column in self.watched.items():
            for part in DERIVED.get(column.kind, ()):
                if f"{name}.{part}" in self.watched:
                    raise ValueError(
                        f"{name}.{part} is what is measured of {name} already; leave the test of one of them out"
                    )
        return self

    @property
    def watched(self) -> Mapping[str, Column]:
        """The columns with a drift test, by name."""
        return {name: column for name, column in self.columns.items() if column.test}

    @property
    def measured(self) -> Mapping[str, Column]:
        """The same by the names that they have in evidence, where an embedding or an image is several."""
        return {
            f"{name}.{part}" if part else name: column
            for name, column in self.watched.items()
            for part in DERIVED.get(column.kind, ("",))
        }

    @property
    def target(self) -> str | None:
        """The column that the model predicts, where one is declared."""
        return next((name for name, column in self.columns.items() if column.role == "target"), None)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the columns that are the model's inputs."""
        return tuple(name for name, column in self.columns.items() if column.role == "feature")


class Reference(Declared):
    """What the current window is compared with."""

    of: Literal["training", "trailing", "fixed", "monitor"] = Field(
        default="training",
        description="training: the newest batches the champion learned from; trailing: those just before the current "
        "window; fixed: the objects of keys; monitor: the statistics.json of SageMaker Model Monitor that keys names",
    )
    batches: int = Field(default=50, ge=1, description="How many batches, at most")
    keys: tuple[str, ...] = Field(
        default=(), max_length=1000, description="S3 keys of the reference, for of: fixed and of: monitor"
    )
    season: Literal["hour", "weekday"] | None = Field(
        default=None,
        description="Only batches that arrived in the same hours of the day, or on the same days of the week, as those "
        "of the current window; all of them where that leaves none",
    )
    time_zone: TimeZone = Field(default="UTC", description="Of season; an IANA name, as in Europe/Berlin")

    @model_validator(mode="after")
    def _fits(self) -> "Reference":
        is_named = self.of in ("fixed", "monitor")
        if self.of == "fixed" and not self.keys:
            raise ValueError("of: fixed needs keys, as in keys: [data/m/2025.parquet]")
        if self.of == "monitor" and len(self.keys) != 1:
            raise ValueError("of: monitor needs one key, as in keys: [data/m/baseline/statistics.json]")
        if self.keys and not is_named:
            raise ValueError(f"keys are for of: fixed, and this is of: {self.of}; write of: fixed or leave keys out")
        if self.season and is_named:
            raise ValueError(
                f"season is for batches that arrived, and this is of: {self.of}; "
                "write of: training, of: trailing, or leave season out"
            )
        if self.time_zone != "UTC" and self.season is None:
            raise ValueError("time_zone is for season, which is not declared; write both, as in season: weekday")
        return self


class Current(Declared):
    """How far back the current window reaches, of what the champion has not learned from: one of the three."""

    batches: int | None = Field(default=None, ge=1, description="The newest so many batches; 8 if nothing is said")
    rows: int | None = Field(default=None, ge=1, description="The newest batches until they hold so many rows")
    time: Period | None = Field(default=None, description="The batches that arrived within this time")

    @model_validator(mode="after")
    def _one(self) -> "Current":
        said = [name for name in ("batches", "rows", "time") if getattr(self, name) is not None]
        if len(said) > 1:
            raise ValueError(f"{' and '.join(said)} are two measures of one window; write one, as in batches: 8")
        if not said:
            # The policy is frozen once it is read; this is still the reading.
            object.__setattr__(self, "batches", 8)
        return self


class ScaleOut(Declared):
    """Windows too large for the daemon's own workers are counted by a state machine, which does the same in parts."""

    bytes_min: int = Field(ge=1, description="From how many bytes on, of the objects not counted yet")
    state_machine: Arn = Field(description="Filled in from the daemon's settings when it is left out")


class Windows(Declared):
    """What is compared with what, and what a retraining learns from."""

    reference: Reference = Field(default=Reference(), description="What the current window is compared with")
    current: Current = Field(default=Current(), description="What is looked at: new batches, newest first to stay")
    training_batches: int = Field(default=1000, ge=1, le=10_000, description="Newest batches a retraining learns from")
    scale_out: ScaleOut | None = Field(
        default=None, description="From what size on windows are counted by Step Functions"
    )
