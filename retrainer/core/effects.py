"""What is to be done. An effect's key is derived from its decision, so that doing it twice does it once."""

from dataclasses import dataclass, field

from retrainer.core.evidence import Drifting
from retrainer.core.window import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureEvidence:
    """Read the windows and measure; answered by EvidenceMeasured.

    `grid` are the batches that the edges of the profiles are chosen from, the reference where there are none;
    `profiles` is the key prefix in the data's bucket under which they are kept. `first_predictions` are the reference
    of the predictions' own drift, and what of `predictions` is not among them is their current window. `classifier` is
    the AUC from which all columns together have drifted (see ALL_COLUMNS); None: that is not asked.
    """

    key: str
    reference: tuple[Batch, ...]
    current: tuple[Batch, ...]
    predictions: tuple[Batch, ...]
    grid: tuple[Batch, ...] = ()
    profiles: str = ""
    first_predictions: tuple[Batch, ...] = ()
    classifier: float | None = None


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
    """Have Evidently's HTML report of the windows stored at s3://bucket/report_key, our own page and JSON beside it.

    What MeasureEvidence has too is the same here; `since` says when each column began to drift.
    """

    key: str
    bucket: str
    report_key: str
    reference: tuple[Batch, ...]
    current: tuple[Batch, ...]
    grid: tuple[Batch, ...] = ()
    profiles: str = ""
    first_predictions: tuple[Batch, ...] = ()
    since: tuple[Drifting, ...] = ()
    predictions: tuple[Batch, ...] = ()
    classifier: float | None = None

    @property
    def page_key(self) -> str:
        """The S3 key of our own page."""
        return self.report_key.removesuffix(".html") + ".page.html"

    @property
    def json_key(self) -> str:
        """The S3 key of what the page shows, as JSON."""
        return self.report_key.removesuffix(".html") + ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerApproval:
    """Give a person's answer to the waiting execution."""

    key: str
    execution: str
    approved: bool
    by: str
    task_token: str = field(repr=False)


Effect = MeasureEvidence | StartExecution | PublishReport | AnswerApproval
