"""Where a model's data arrives, what its columns are, and which batches are compared with which."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from retrainer.core.policy.duration import Declared, Period

_UNDER = r"/([A-Za-z0-9_.=-]+/)*$"
DataPrefix = Annotated[str, Field(pattern="^data" + _UNDER)]
PredictionsPrefix = Annotated[str, Field(pattern="^predictions" + _UNDER)]
Metric = Literal["hit_rate_at_10", "accuracy", "mae", "rmse"]
Test = Literal["psi", "jensenshannon", "wasserstein", "ks", "chisquare"]

THRESHOLDS: Final[Mapping[Test, float]] = {
    "psi": 0.2,
    "jensenshannon": 0.1,
    "wasserstein": 0.1,
    "ks": 0.05,
    "chisquare": 0.05,
}
"""What a column's threshold is where the policy does not say. PSI: the scorecard's rule of thumb, 0.2 is a shift to
act on (Siddiqi 2006, Credit Risk Scorecards); the other distances: Evidently's own 0.1; p-values: 0.05."""


class Column(Declared):
    """A column of the data. It is watched for drift if it names a test; no test is ever chosen by a window's size."""

    kind: Literal["numerical", "categorical"] = Field(description="Whether its values are numbers or categories")
    role: Literal["feature", "target", "ignored"] = Field(
        default="feature", description="What it is to the model: one of its inputs, what it predicts, or neither"
    )
    test: Test | None = Field(default=None, description="The drift test; a column without one is not watched")
    threshold: float | None = Field(
        default=None,
        gt=0,
        description="Drifted at or above this distance, or, for ks and chisquare, below this p-value; "
        "left out: psi 0.2, jensenshannon 0.1, wasserstein 0.1, ks 0.05, chisquare 0.05",
    )

    @model_validator(mode="after")
    def _fits(self) -> "Column":
        if self.test is None:
            if self.threshold is not None:
                raise ValueError("threshold is for a drift test; write test: too, as in test: wasserstein")
            return self
        if self.kind == "categorical" and self.test in ("wasserstein", "ks"):
            raise ValueError(f"test {self.test} is for numerical columns; write psi, jensenshannon or chisquare")
        if self.kind == "numerical" and self.test == "chisquare":
            raise ValueError("test chisquare is for categorical columns; write psi, jensenshannon, wasserstein or ks")
        if self.threshold is None:
            # The policy is frozen once it is read; this is still the reading.
            object.__setattr__(self, "threshold", THRESHOLDS[self.test])
        return self


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


class Data(Declared):
    """Where batches arrive and which of their columns matter."""

    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$", description="Filled in from the daemon's settings when it is left out"
    )
    prefix: DataPrefix = Field(description="S3 key prefix of batches: data/.../")
    format: Literal["parquet", "csv", "jsonl"] = Field(default="parquet", description="What every batch is written in")
    timestamp: str = Field(description="The column that holds the time of each row")
    required_columns: tuple[str, ...] = Field(default=(), description="A batch without one of these is refused")
    columns: dict[str, Column] = Field(default={}, description="Columns by name: their kind, role and drift test")
    predictions: Predictions | None = Field(default=None, description="Where what the model predicted is logged")

    @model_validator(mode="after")
    def _one_target(self) -> "Data":
        targets = [name for name, column in self.columns.items() if column.role == "target"]
        if len(targets) > 1:
            raise ValueError(f"columns {', '.join(targets)} all have the role target; write role: target at one")
        return self

    @property
    def watched(self) -> Mapping[str, Column]:
        """The columns with a drift test, by name."""
        return {name: column for name, column in self.columns.items() if column.test}

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

    of: Literal["training", "trailing", "fixed"] = Field(
        default="training",
        description="training: the newest batches the champion learned from; trailing: those just before the current "
        "window; fixed: the objects of keys",
    )
    batches: int = Field(default=50, ge=1, description="How many batches, at most")
    keys: tuple[str, ...] = Field(default=(), max_length=1000, description="S3 keys of the reference, for of: fixed")

    @model_validator(mode="after")
    def _fits(self) -> "Reference":
        if self.of == "fixed" and not self.keys:
            raise ValueError("of: fixed needs keys, as in keys: [data/m/2025.parquet]")
        if self.of != "fixed" and self.keys:
            raise ValueError(f"keys are for of: fixed, and this is of: {self.of}; write of: fixed or leave keys out")
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


class Windows(Declared):
    """What is compared with what, and what a retraining learns from."""

    reference: Reference = Field(default=Reference(), description="What the current window is compared with")
    current: Current = Field(default=Current(), description="What is looked at: new batches, newest first to stay")
    training_batches: int = Field(default=1000, ge=1, le=10_000, description="Newest batches a retraining learns from")
