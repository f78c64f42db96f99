"""All that is known of one model; `decide` turns one state and one event into the next."""

from dataclasses import dataclass
from datetime import datetime

from retrainer.core.evidence import Evidence
from retrainer.core.execution import Champion, Execution, Met
from retrainer.core.window import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Who paused the model, when and why."""

    by: str
    why: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model's state. `version` counts its decisions, `generation` its executions; both only grow.

    window: batches that the champion has not learned from, oldest first.
    training: the batches of the champion's manifest: the reference window is taken from them.
    kept: triggers that were met and have not fired yet.
    starts: when executions were planned, as far back as the budget's period.
    measuring: the key of the MeasureEvidence in flight; measure_again: something came since it was asked.
    attempt: how many executions the triggers now kept have already had in a row without one succeeding.
    """

    model: str
    version: int = 0
    generation: int = 0
    attempt: int = 0
    pause: Pause | None = None
    window: tuple[Batch, ...] = ()
    training: tuple[Batch, ...] = ()
    predictions: tuple[Batch, ...] = ()
    measuring: str | None = None
    measure_again: bool = False
    measure_again_at: datetime | None = None
    evidence: Evidence | None = None
    kept: tuple[Met, ...] = ()
    execution: Execution | None = None
    champion: Champion | None = None
    starts: tuple[datetime, ...] = ()
    ended_at: datetime | None = None
    wake_at: datetime | None = None
