"""What is to be done. An effect's key is derived from its decision, so that doing it twice does it once."""

from dataclasses import dataclass, field

from retrainer.core.window import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureEvidence:
    """Read the windows and measure; answered by EvidenceMeasured."""

    key: str
    reference: tuple[Batch, ...]
    current: tuple[Batch, ...]
    predictions: tuple[Batch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartExecution:
    """Store the manifest, then start the execution; answered by ExecutionStarted.

    The key is the execution's name, and no retry ever changes it. `manifest` and `input` are the exact texts.
    """

    key: str
    state_machine_arn: str
    manifest_bucket: str
    manifest_key: str
    manifest: str
    input: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport:
    """Have Evidently's HTML report of the windows stored at s3://bucket/report_key."""

    key: str
    bucket: str
    report_key: str
    reference: tuple[Batch, ...]
    current: tuple[Batch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerApproval:
    """Give a person's answer to the waiting execution."""

    key: str
    execution: str
    approved: bool
    by: str
    task_token: str = field(repr=False)


Effect = MeasureEvidence | StartExecution | PublishReport | AnswerApproval
