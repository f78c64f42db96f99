"""All that is known of one model; `decide` turns one state and one event into the next."""

from dataclasses import dataclass
from datetime import datetime

from retrainer.core.evidence import BatchLoss, Drifting, Evidence
from retrainer.core.execution import Champion, Cycle, Execution, Met
from retrainer.core.window import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Who paused the model, when and why."""

    by: str
    why: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What an execution that ended then has cost; of one that failed, what one is expected to cost."""

    at: datetime
    money: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A trigger that is read off measurements, as the last one had it, and `why` in words and values.

    `history` holds the newest measurements, oldest first, as far back as the policy's rule looks.
    """

    name: str
    history: tuple[bool, ...]
    on: bool
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model's state. `version` counts its decisions, `generation` its executions; both only grow.

    window: batches that the champion has not learned from, oldest first.
    training: the batches of the champion's manifest: the reference window is taken from them.
    kept: triggers that were met and have not fired yet.
    starts, spent: when executions were planned, and what they cost, as far back as the longest period of a budget.
    measuring: the key of the MeasureEvidence in flight; measure_again: something came since it was asked.
    attempt: how many executions the triggers now kept have already had in a row without one succeeding.
    losses: the champion's on each batch since its promotion, oldest first; a batch's newer figure replaces its older.
    cycles: the last 50 executions that ended with an outcome; costs: what the last five of them cost.
    fruitless: how many of them in a row, up to now, the gate refused.
    levels: triggers read off measurements, as the last one had them; edges: schedules and alarms that wait for the
    rest of a rule. Both are forgotten, as what is kept is, when an execution ends with an outcome.
    drift_checked_at: when drift was last judged against the budget of false alarms.
    drifting: the columns that every measurement since a moment has found drifted; emptied at a promotion.
    first_predictions: the first objects of predictions logged since the promotion: what later ones are compared with.
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
    losses: tuple[BatchLoss, ...] = ()
    cycles: tuple[Cycle, ...] = ()
    fruitless: int = 0
    costs: tuple[float, ...] = ()
    spent: tuple[Spent, ...] = ()
    levels: tuple[Level, ...] = ()
    edges: tuple[Met, ...] = ()
    drift_checked_at: datetime | None = None
    drifting: tuple[Drifting, ...] = ()
    first_predictions: tuple[Batch, ...] = ()
