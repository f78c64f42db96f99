"""What a backtest found: every decision, every retraining, every batch's losses, and the best that was possible.

Losses are in units of one prediction: 1 - accuracy, 1 - hit, an absolute or a squared error; a batch's `loss_sum` is
their sum over its rows. The first retraining, asked for at the end of the warm-up, is the same for every policy: it is
listed, and costs nothing. Cost = errors + retrainings x price.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from retrainer.core.execution import TriggerKind, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision, as the daemon's ledger would hold it; hashes are sha256 of canonical JSON.

    `decision` is its id, `event` the sha256 of the event, `effects` those of what it asked to be done, in order.
    `triggers` are the kinds (with names, as in schedule:nightly) that wait after it, or that it fires.
    """

    decision: str
    event_kind: str
    identity: str
    event: str
    at: datetime
    reason: str
    detail: str
    triggers: tuple[str, ...]
    state_hash_before: str
    state_hash_after: str
    effects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A trigger that a retraining answered: `since` is the first measurement at which it was met."""

    kind: TriggerKind
    name: str
    why: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """One execution, from its decision to its end. `ended_at` and `verdict` are None where the history ends first.

    `challenger` and `champion` are the gate's metric on the same holdout of `holdout_rows`; `through` is the index of
    the newest batch it learned from, in the history's order; `cost` is money, None where no price is known. `avoided`
    is the loss that the champion before would have had on the batches this one served, less its own.
    """

    name: str
    generation: int
    decision: str
    first: bool
    triggers: tuple[Fired, ...]
    planned_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    verdict: Verdict | None
    why: str
    batches: int
    rows: int
    through: int
    challenger: float | None = None
    champion: float | None = None
    holdout_rows: int | None = None
    cost: float | None = None
    avoided: float | None = None

    @property
    def promoted_at(self) -> datetime | None:
        """When the challenger began to serve; None if it never did."""
        return self.ended_at if self.verdict is Verdict.PROMOTED else None

    @property
    def reaction(self) -> timedelta | None:
        """From the first evidence of a met trigger to the promotion; None for the first, or one not promoted."""
        if self.first or not self.triggers or self.promoted_at is None:
            return None
        return self.promoted_at - min(t.since for t in self.triggers)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchScore:
    """How the champion of that moment did on one batch: `generation` 0 and `loss_sum` None while there was none.

    `at` is when its predictions were served, `label_at` when its labels were known; `index` counts the whole history.
    """

    index: int
    key: str
    at: datetime
    label_at: datetime
    rows: int
    loss_sum: float | None
    generation: int
    drift_share: float | None = None

    @property
    def loss(self) -> float | None:
        """The mean loss, None where nothing served."""
        return None if self.loss_sum is None or not self.rows else self.loss_sum / self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """The cheapest retrainings in hindsight, under the same label delay and training time; the first is not counted.

    `losses` are the sums over the batches served, one for each of the result's scores with a champion, in order;
    `never` are those of the first champion, had it served for ever.
    """

    cost: float
    errors: float
    retrain_at: tuple[datetime, ...]
    through: tuple[int, ...]
    losses: tuple[float, ...]
    never: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One policy on one history.

    `price` is what a retraining costs in units of loss: None where the policy declares no costs. With
    `execution_cost` and `error_cost` (money, in `currency`) it is execution_cost / error_cost.
    What is compared begins after the warm-up, whose batches are the first model's: `first_served` is the index of the
    first batch after it that a champion served. Retrainings planned by then are `first` ones.
    """

    name: str
    model: str
    policy_hash: str
    family: str
    metric: str
    seed: int
    history: str
    batches: int
    first_served: int | None
    label_delay: timedelta
    training_takes: timedelta
    price: float | None
    execution_cost: float | None
    error_cost: float | None
    currency: str
    steps: tuple[Step, ...]
    retrainings: tuple[Retraining, ...]
    scores: tuple[BatchScore, ...]
    warmup: int = 0
    optimum: Optimum | None = None
    took_seconds: float = 0.0

    @property
    def counted(self) -> tuple[Retraining, ...]:
        """The retrainings that cost: all but the first."""
        return tuple(r for r in self.retrainings if not r.first)

    @property
    def served(self) -> tuple[BatchScore, ...]:
        """The batches that a champion served after the warm-up."""
        return tuple(s for s in self.scores if s.loss_sum is not None and s.index >= self.warmup)

    @property
    def errors(self) -> float:
        """The sum of losses over all batches served."""
        return sum(s.loss_sum or 0.0 for s in self.served)

    @property
    def cost(self) -> float:
        """errors + retrainings x price; the errors alone where there is no price."""
        return self.errors + len(self.counted) * (self.price or 0.0)

    @property
    def money(self) -> float | None:
        """What errors and retrainings cost together, None where one of the two has no price."""
        if self.error_cost is None:
            return None
        own = [r.cost for r in self.counted if r.cost is not None]
        if len(own) < len(self.counted):
            return None
        return self.errors * self.error_cost + sum(own)

    @property
    def ratio(self) -> float | None:
        """The cost over the optimum's, 1 at best; None without an optimum or where that costs nothing."""
        return self.cost / self.optimum.cost if self.optimum and self.optimum.cost > 0 else None

    @property
    def latencies(self) -> tuple[timedelta, ...]:
        """From the first evidence of a met trigger to promotion, one for each promoted retraining but the first."""
        return tuple(r.reaction for r in self.retrainings if r.reaction is not None)

    @property
    def reasons(self) -> dict[str, int]:
        """How many decisions had each reason, the commonest first."""
        return dict(Counter(s.reason for s in self.steps).most_common())

    @property
    def fired(self) -> dict[str, int]:
        """How many retrainings each trigger had a part in, the first left out."""
        return dict(Counter(t.kind.value for r in self.counted for t in r.triggers).most_common())
