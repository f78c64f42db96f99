"""What has happened. An event's identity is the fact's own: the same fact delivered twice has it twice."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from retrainer.core.evidence import Evidence
from retrainer.core.execution import Billing, Outcome, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectCreated:
    """S3 has a new object. `version` is S3's sequencer, else its version id, else its ETag."""

    bucket: str
    key: str
    version: str
    size_bytes: int

    @property
    def identity(self) -> str:
        return f"object:{self.bucket}/{self.key}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceMeasured:
    """The evidence worker's answer to the effect of that key. Done, measured or failed: an effect has one answer."""

    effect: str
    evidence: Evidence

    @property
    def identity(self) -> str:
        return f"effect:{self.effect}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted:
    """Step Functions has accepted the execution, now or at an earlier try (then it was adopted)."""

    execution: str
    arn: str
    adopted: bool = False

    @property
    def identity(self) -> str:
        return f"execution:{self.execution}:started"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEnded:
    """The observer saw the execution's end. `outcome` is None unless it succeeded; `billing` is of one that failed."""

    execution: str
    status: Status
    outcome: Outcome | None = None
    cause: str = ""
    billing: Billing | None = None

    @property
    def identity(self) -> str:
        return f"execution:{self.execution}:{self.status}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJobChanged:
    """SageMaker tells of a training job of ours; kept for the record, nothing is decided on it."""

    job: str
    status: str
    secondary_status: str

    @property
    def identity(self) -> str:
        return f"training_job:{self.job}:{self.status}:{self.secondary_status}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmChanged:
    """A CloudWatch alarm has a new state: OK, ALARM or INSUFFICIENT_DATA."""

    alarm: str
    state: str
    changed_at: datetime

    @property
    def identity(self) -> str:
        return f"alarm:{self.alarm}:{self.state}@{self.changed_at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFired:
    """A schedule of the policy came due at `fire_at`, whenever that was noticed."""

    schedule: str
    fire_at: datetime

    @property
    def identity(self) -> str:
        return f"schedule:{self.schedule}@{self.fire_at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRequested:
    """Somebody, or another system through a custom event, asks for a retraining."""

    request: str
    by: str
    why: str

    @property
    def identity(self) -> str:
        return f"request:{self.request}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPaused:
    """An operator wants no retraining to start; triggers are kept meanwhile."""

    request: str
    by: str
    why: str

    @property
    def identity(self) -> str:
        return f"request:{self.request}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResumed:
    """The pause is over."""

    request: str
    by: str

    @property
    def identity(self) -> str:
        return f"request:{self.request}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequested:
    """An execution waits for a person. The token answers it and is a secret; the identity holds its hash only."""

    execution: str
    task_token: str = field(repr=False)
    model_package_arn: str | None = None

    @property
    def identity(self) -> str:
        digest = hashlib.sha256(self.task_token.encode()).hexdigest()[:16]
        return f"approval:{self.execution}:{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAnswered:
    """A person has approved or rejected the challenger."""

    request: str
    execution: str
    approved: bool
    by: str

    @property
    def identity(self) -> str:
        return f"request:{self.request}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectFailed:
    """An effect was given up for good; `kind` is its class, `why` one sentence."""

    effect: str
    kind: str
    why: str

    @property
    def identity(self) -> str:
        return f"effect:{self.effect}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectDone:
    """An effect without an answer of its own was carried out."""

    effect: str
    kind: str

    @property
    def identity(self) -> str:
        return f"effect:{self.effect}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """The moment that a decision asked to be woken at has passed; `asked_by` is the decision that did last."""

    wake_at: datetime
    asked_by: str

    @property
    def identity(self) -> str:
        return f"wake:{self.asked_by}@{self.wake_at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged:
    """The model's policy file was changed; what is kept is looked at again."""

    policy_hash: str
    changed_at: datetime

    @property
    def identity(self) -> str:
        return f"policy:{self.policy_hash}@{self.changed_at.isoformat()}"


Event = (
    ObjectCreated
    | EvidenceMeasured
    | ExecutionStarted
    | ExecutionEnded
    | TrainingJobChanged
    | AlarmChanged
    | ScheduleFired
    | RetrainingRequested
    | ModelPaused
    | ModelResumed
    | ApprovalRequested
    | ApprovalAnswered
    | EffectFailed
    | EffectDone
    | Woken
    | PolicyChanged
)
