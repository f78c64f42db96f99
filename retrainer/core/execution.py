"""A retraining in flight: its name, its attempt, and how it ended."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from retrainer.core.evidence import Performance
from retrainer.core.gate import Comparison
from retrainer.core.window import Batch


class TriggerKind(StrEnum):
    """What can ask for a retraining."""

    DRIFT = "drift"
    PERFORMANCE = "performance"
    REGRET = "regret"
    CONCEPT = "concept"
    VOLUME = "volume"
    SCHEDULE = "schedule"
    ALARM = "alarm"
    MANUAL = "manual"


LEVELS = frozenset(
    {TriggerKind.DRIFT, TriggerKind.PERFORMANCE, TriggerKind.REGRET, TriggerKind.CONCEPT, TriggerKind.VOLUME}
)
"""Triggers that are read off the current window and so can be measured again; the others are edges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """A trigger that was met: which, when first, and the values against their thresholds in one phrase."""

    kind: TriggerKind
    name: str
    why: str
    at: datetime


class Status(StrEnum):
    """Step Functions' own words, and PLANNED for a decision whose StartExecution has not been accepted yet."""

    PLANNED = "PLANNED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    ABORTED = "ABORTED"


class Verdict(StrEnum):
    """What became of the challenger of a succeeded execution."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


_FAILED = re.compile(r" Trained (\d{1,15}) s, billed (\d{1,15}) s, interrupted (\d{1,9}) times\.$", re.ASCII)
"""What deploy/steps/notify.py writes after a cause, as an execution that fails has no output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    """What SageMaker says of all training jobs of an execution, those that failed too.

    `seconds` is how long they ran, `billable_seconds` what of it is billed (spot is cheaper by the rest),
    `interruptions` how often a spot instance was taken back.
    """

    seconds: float
    billable_seconds: float
    interruptions: int

    @classmethod
    def of_failed(cls, cause: str) -> "Billing | None":
        """As the cause of a failed execution tells of it at its end; None where nothing was trained."""
        told = _FAILED.search(cause)
        if told is None:
            return None
        return cls(seconds=float(told[1]), billable_seconds=float(told[2]), interruptions=int(told[3]))

    @property
    def saving(self) -> float:
        """The share that spot has saved: 1 - billable / training time (SageMaker, "Managed Spot Training")."""
        return 1 - self.billable_seconds / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The output of a succeeded execution; `metrics` are the challenger's on the holdout, which has so many `rows`.

    `cost` is what the execution has cost, in the currency of the policy; None where nobody could say. `comparison` is
    how sure the gain over the champion is; None without a champion, or where the evaluation did not resample. `refit`
    is whether the challenger goes on as trained once more, on the holdout too; False where that failed and it goes on
    as it was measured, None where it was not asked for or not accepted.
    """

    verdict: Verdict
    why: str
    model_package_arn: str | None = None
    metric: str | None = None
    challenger: float | None = None
    champion: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    cost: float | None = None
    rows: int | None = None
    comparison: Comparison | None = None
    billing: Billing | None = None
    refit: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """How a retraining ended: challenger and champion by the gate's metric on the same holdout of so many `rows`.

    `labels` were seen between the promotion of the champion it was to replace and its end.
    """

    generation: int
    verdict: Verdict
    at: datetime
    labels: int
    challenger: float | None
    champion: float | None
    rows: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person is asked. The task token is a secret: it is stored, never shown."""

    task_token: str = field(repr=False)
    model_package_arn: str | None
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One retraining, from the decision to its end. `batches` is what its manifest lists."""

    name: str
    generation: int
    attempt: int
    decision: str
    status: Status
    planned_at: datetime
    triggers: tuple[Met, ...]
    batches: tuple[Batch, ...]
    arn: str | None = None
    started_at: datetime | None = None
    approval: Approval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """The model in production: the generation that made it, and its metrics on the holdout when it was promoted.

    `baseline` is its first live measurement on enough labels: what a later one is compared with. The holdout's figure
    is taken on other cases, and the gap between the two is not decay.
    """

    generation: int
    execution: str
    model_package_arn: str | None
    promoted_at: datetime
    metrics: dict[str, float]
    baseline: Performance | None = None
