"""What an operator declares for one model: its data, what asks for a retraining, what objects, what is then done.

Read from policies/<model>.yaml; durations are written 90s, 15m, 6h, 30d, 2w.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = r"^([0-9]{1,6})(s|m|h|d|w)$"
_LONGEST = timedelta(days=3650)
"""Longer ones have no use, and a moment of today plus such a duration must be one that there is."""


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(_DURATION, str(value))
    if not found:
        raise ValueError(f"{value!r} is not a duration; write a number and a unit, as in 90s, 15m, 6h, 30d or 2w")
    duration = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if duration > _LONGEST:
        raise ValueError(f"{value!r} is longer than ten years; write at most {_LONGEST.days}d")
    return duration


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": _DURATION, "examples": ["6h"]}),
]
_UNDER = r"/([A-Za-z0-9_.=-]+/)*$"
DataPrefix = Annotated[str, Field(pattern="^data" + _UNDER, description="S3 key prefix of batches: data/.../")]
PredictionsPrefix = Annotated[
    str, Field(pattern="^predictions" + _UNDER, description="S3 key prefix of logged predictions: predictions/.../")
]
Metric = Literal["hit_rate_at_10", "accuracy", "mae", "rmse"]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Declared):
    """A column watched for drift. The test is always named: Evidently chooses by the reference's size alone."""

    kind: Literal["numerical", "categorical"]
    test: Literal["psi", "jensenshannon", "wasserstein", "ks", "chisquare"]
    threshold: float = Field(
        gt=0,
        description="Drifted at or above this distance, or, for ks and chisquare, below this p-value",
    )

    @model_validator(mode="after")
    def _fits(self) -> "Column":
        if self.kind == "categorical" and self.test in ("wasserstein", "ks"):
            raise ValueError(f"test {self.test} is for numerical columns; write psi, jensenshannon or chisquare")
        if self.kind == "numerical" and self.test == "chisquare":
            raise ValueError("test chisquare is for categorical columns; write psi, jensenshannon, wasserstein or ks")
        return self


class Predictions(_Declared):
    """Where served predictions are logged, and how they are joined with the labels in the data."""

    prefix: PredictionsPrefix
    key: str = Field(description="The column that predictions and data share")
    prediction: str = Field(description="The predicted value; for hit_rate_at_10 a list of items, best first")
    label: str = Field(description="The column of the data that holds what really happened")
    metric: Metric


class Data(_Declared):
    """Where batches arrive and which of their columns matter."""

    bucket: str = Field(description="Filled in from the daemon's settings when it is left out")
    prefix: DataPrefix
    timestamp: str
    required_columns: tuple[str, ...] = ()
    columns: dict[str, Column] = {}
    predictions: Predictions | None = None


class Windows(_Declared):
    """How many batches the windows hold, newest first to stay."""

    reference_batches: int = Field(default=50, ge=1, description="Newest batches of the champion's training data")
    current_batches: int = Field(default=8, ge=1, description="Newest batches the champion has not seen")
    training_batches: int = Field(default=1000, ge=1, le=10_000, description="Newest batches a retraining learns from")


class DriftTrigger(_Declared):
    """Met when at least this share of the declared columns has drifted."""

    share: float = Field(gt=0, le=1)
    rows_min: int = Field(default=200, ge=1, description="Fewer rows in the current window are no evidence")


class PerformanceTrigger(_Declared):
    """Met when the metric falls by `drop` (a share) below the champion's first live measurement, or past `limit`."""

    drop: float | None = Field(default=None, gt=0, lt=1)
    limit: float | None = None
    labels_min: int = Field(default=200, ge=1, description="Fewer joined labels are no evidence, nor a baseline")

    @model_validator(mode="after")
    def _one(self) -> "PerformanceTrigger":
        if self.drop is None and self.limit is None:
            raise ValueError("performance needs drop, limit or both, as in drop: 0.15")
        return self


class VolumeTrigger(_Declared):
    """Met when the champion has not seen this many rows."""

    rows: int = Field(ge=1)


class Schedule(_Declared):
    """Met at each time of a unix cron expression (0 and 7 are Sunday) in a time zone."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,24}$")
    cron: str
    time_zone: str = "UTC"
    misfire_grace: Duration = Field(default=timedelta(hours=1), description="A fire noticed later than this is skipped")

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError(f"{value!r} is not a cron expression of five fields; write one, as in 0 2 * * *")
        try:
            CronSim(value, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(
                f"{value!r} is not a cron expression ({error}); write five fields, as in 0 2 * * *"
            ) from error
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not a time zone; write an IANA name, as in Europe/Berlin") from error
        return value


class Triggers(_Declared):
    """What asks for a retraining; any one is enough. A request by hand is always possible."""

    drift: DriftTrigger | None = None
    performance: PerformanceTrigger | None = None
    volume: VolumeTrigger | None = None
    schedules: tuple[Schedule, ...] = ()
    alarms: tuple[str, ...] = Field(default=(), description="CloudWatch alarm names; met when one goes to ALARM")


class Budget(_Declared):
    """At most so many executions, retries included, in any such period."""

    executions: int = Field(ge=1)
    period: Duration


class Guards(_Declared):
    """What holds a retraining back. A trigger met meanwhile is kept, and fires when the guard lets go."""

    cooldown: Duration = timedelta(hours=6)
    rows_min: int = Field(default=1, ge=1, description="Rows that no finished execution has been trained on")
    budget: Budget | None = None


class Candidate(_Declared):
    """One training job of the execution; the best of them is the challenger."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,12}$")
    instance_type: str = Field(default="ml.g4dn.xlarge", pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")
    spot: bool = True
    hyperparameters: dict[str, str] = Field(default={}, max_length=99)  # SageMaker takes 100; the generation is one

    @field_validator("hyperparameters", mode="before")
    @classmethod
    def _strings(cls, value: object) -> object:
        """SageMaker's hyperparameters are strings; YAML's numbers are written as one would type them."""
        if not isinstance(value, dict):
            return value
        for name, given in value.items():
            if given is None or isinstance(given, dict | list | tuple):
                raise ValueError(f"{name!s:.60} is not one value; write a text or a number")
        return {str(k): str(v) for k, v in value.items()}


class Timeouts(_Declared):
    """Of each training job: running, and running plus waiting for spot capacity."""

    training: Duration = timedelta(hours=1)
    wait: Duration = timedelta(hours=2)

    @model_validator(mode="after")
    def _taken(self) -> "Timeouts":
        """What SageMaker's StoppingCondition takes: 1 s to 28 days, and a wait that includes the training."""
        if not timedelta(seconds=1) <= self.training <= timedelta(days=28):
            raise ValueError("training must be 1s to 28d, as SageMaker takes it")
        if self.wait < self.training:
            raise ValueError("wait includes the training, so it must be as long at least, as in training: 1h, wait: 2h")
        return self


class Action(_Declared):
    """What a retraining is."""

    state_machine: str = Field(
        pattern=r"^arn:aws[a-z-]*:states:[a-z0-9-]+:\d{12}:stateMachine:[A-Za-z0-9_-]+$",
        description="Filled in from the daemon's settings when it is left out",
    )
    attempts: int = Field(
        default=2, ge=1, le=5, description="Executions in a row for the same triggers, until one succeeds"
    )
    holdout_share: float = Field(default=0.1, gt=0, lt=0.5)
    candidates: tuple[Candidate, ...] = Field(min_length=1, max_length=8)
    timeouts: Timeouts = Timeouts()
    processing_instance_type: str = Field(default="ml.m5.large", pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")
    serving_instance_type: str = Field(default="ml.m5.large", pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")
    poll: Duration = Field(
        default=timedelta(seconds=15), description="How often the state machine looks at the endpoint"
    )

    @field_validator("poll")
    @classmethod
    def _poll(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("0s would never look; write 1s or longer")
        return value

    @model_validator(mode="after")
    def _names(self) -> "Action":
        names = [c.name for c in self.candidates]
        if len(set(names)) < len(names):
            raise ValueError(f"candidate names must differ, and {', '.join(names)} do not")
        return self


class GateRule(_Declared):
    """What a challenger must do on the holdout to be promoted."""

    metric: str = Field(pattern=r"^[a-z0-9_]+$")
    min_gain: float = Field(default=0.0, description="Over the champion, in units of the metric")
    baselines: tuple[str, ...] = Field(default=(), description="Comparators that it must beat")


class Policy(_Declared):
    """One model's policy."""

    model: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,22}[a-z0-9])?$")
    data: Data
    windows: Windows = Windows()
    triggers: Triggers = Triggers()
    guards: Guards = Guards()
    action: Action
    gate: GateRule
    approval: Literal["auto", "manual"] = "auto"

    @model_validator(mode="after")
    def _fits(self) -> "Policy":
        if self.triggers.drift and not self.data.columns:
            raise ValueError("triggers.drift needs data.columns: name the columns to watch")
        if self.triggers.performance and not self.data.predictions:
            raise ValueError("triggers.performance needs data.predictions: say where predictions are logged")
        names = [s.name for s in self.triggers.schedules]
        if len(set(names)) < len(names):
            raise ValueError(f"schedule names must differ, and {', '.join(names)} do not")
        return self
