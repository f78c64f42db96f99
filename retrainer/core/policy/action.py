"""What a retraining is, what its model must do to serve, how it is rolled out, and who is told."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from retrainer.core.policy.data import Arn
from retrainer.core.policy.duration import Declared, Duration, Period

Instance = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]


REFIT = "refit"
"""What stands in the place of a candidate's name in the name of the training job on train and holdout."""


class Candidate(Declared):
    """One training job of the execution; the best of them is the challenger."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,12}$", description="Part of the training job's name")
    instance_type: Instance = Field(default="ml.g4dn.xlarge", description="What it is trained on")
    spot: bool = Field(default=True, description="Whether it is trained on spot capacity, at a third of the price")
    hyperparameters: dict[str, str] = Field(
        default={},
        max_length=99,  # SageMaker takes 100; the generation is one
        description="What the training is told, each a text or a number",
    )
    price_per_hour: float | None = Field(
        default=None, gt=0, description="Of the instance, in the currency of costs; to know what an execution has cost"
    )

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


class Timeouts(Declared):
    """Of each training job: running, and running plus waiting for spot capacity."""

    training: Duration = Field(default=timedelta(hours=1), description="How long a training job may run")
    wait: Duration = Field(default=timedelta(hours=2), description="The same with waiting for spot capacity")

    @model_validator(mode="after")
    def _taken(self) -> "Timeouts":
        """What SageMaker's StoppingCondition takes: 1 s to 28 days, and a wait that includes the training."""
        if not timedelta(seconds=1) <= self.training <= timedelta(days=28):
            raise ValueError("training must be 1s to 28d, as SageMaker takes it")
        if self.wait < self.training:
            raise ValueError("wait includes the training, so it must be as long at least, as in training: 1h, wait: 2h")
        return self


class Action(Declared):
    """What a retraining is."""

    state_machine: Arn = Field(description="Filled in from the daemon's settings when it is left out")
    attempts: int = Field(
        default=2, ge=1, le=5, description="Executions in a row for the same triggers, until one succeeds"
    )
    holdout_share: float = Field(
        default=0.1, gt=0, lt=0.5, description="The newest share of the rows, kept from the training for the gate"
    )
    refit: bool = Field(
        default=False,
        description="Whether the accepted model is trained once more, on the holdout too, before it serves",
    )
    candidates: tuple[Candidate, ...] = Field(
        min_length=1, max_length=8, description="Training jobs beside one another; the best is the challenger"
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="Of each training job")
    processing_instance_type: Instance = Field(default="ml.m5.large", description="Where large data is prepared")
    serving_instance_type: Instance = Field(default="ml.m5.large", description="What the endpoint runs on")
    input: dict[str, str | int | float | bool] = Field(
        default={}, max_length=50, description="Values for a state machine of your own, in its input under `input`"
    )
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
        if self.refit and REFIT in names:
            raise ValueError(f"{REFIT} is what the last training job is called with {REFIT}: true; write another name")
        return self


class GateRule(Declared):
    """What a challenger must do on the holdout to be promoted."""

    metric: str = Field(pattern=r"^[a-z0-9_]+$", description="The metric that decides, as in ndcg_at_10")
    min_gain: float = Field(default=0.0, description="Over the champion, in units of the metric")
    confidence: float | None = Field(
        default=None,
        ge=0.5,
        lt=1,
        description="Share of the resampled holdouts that must gain so much, as in 0.95; left out: the gain decides",
    )
    baselines: tuple[str, ...] = Field(default=(), description="Comparators that it must beat")


class Rollout(Declared):
    """How the new model takes over: first a part of the traffic, then all, or back on an alarm."""

    canary_percent: int = Field(default=10, ge=1, le=50, description="Of the traffic, to begin with")
    bake: Period = Field(default=timedelta(minutes=5), description="How long the first part is watched")
    alarms: tuple[str, ...] = Field(
        default=(), max_length=10, description="CloudWatch alarms; one in ALARM brings the old model back"
    )


Told = Literal["promoted", "refused", "rejected", "superseded", "failed"]


class Notify(Declared):
    """Of which ends of an execution somebody is told."""

    on: tuple[Told, ...] = Field(
        default=("promoted", "refused", "rejected", "superseded", "failed"), description="How an execution may end"
    )


class Backtest(Declared):
    """What a backtest trains in place of the real model."""

    family: str = Field(
        default="lightgbm",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*((\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*)?$",
        description="lightgbm, hist_gradient_boosting, logistic_regression, tabular, ease, or your module:callable",
    )
    parameters: dict[str, str | float | int | bool] = Field(
        default={}, max_length=100, description="What the family is told"
    )
