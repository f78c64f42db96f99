"""A stream whose truth wanders, a policy for it, and a runner that needs no model: what `suggest` is tested with.

A model's loss on a batch is how far the truth has gone since it was trained. The runner knows two triggers, by their
plainest meaning: so many new rows, and so much loss above the best since the promotion.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np

from retrainer.backtest.history import History, HistoryBatch
from retrainer.backtest.results import BatchScore, Result, Retraining
from retrainer.backtest.statistics import Series
from retrainer.core.execution import Verdict
from retrainer.core.policy import Policy

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 100
PRICE = 30.0


def policy(**changes: object) -> Policy:
    """One that is retrained for every 400 rows."""
    declared = {
        "model": "shop",
        "data": {
            "bucket": "b",
            "prefix": "data/shop/",
            "timestamp": "at",
            "columns": {"price": {"kind": "numerical", "test": "psi"}, "age": {"kind": "numerical", "test": "ks"}},
            "predictions": {
                "prefix": "predictions/shop/",
                "key": "id",
                "prediction": "p",
                "label": "y",
                "metric": "accuracy",
            },
        },
        "triggers": {"volume": {"rows": 400}},
        "guards": {"cooldown": "1h", "freezes": [{"from": "2030-12-20", "to": "2030-12-31", "why": "sales"}]},
        "costs": {"execution": 3.0, "error": 0.1},
        "action": {
            "state_machine": "arn:aws:states:eu-central-1:123456789012:stateMachine:m",
            "candidates": [{"name": "only"}],
        },
        "gate": {"metric": "accuracy"},
    }
    return Policy.model_validate({**declared, **changes})


def history(batches: int) -> History:
    """A batch a day, which holds nothing."""
    made = []
    for n in range(batches):
        at = BEGIN + timedelta(days=n)
        made.append(
            HistoryBatch(
                index=n,
                key=f"data/shop/{n:04}.parquet",
                version=f"{n:032x}",
                size_bytes=1,
                rows=ROWS,
                at=at,
                label_at=at,
                load=bytes,
            )
        )
    return History("a wandering truth", made)


def wandering(seed: int, batches: int, *, calm: float = 0.5, wild: float = 4.0, turn: float = 0.6) -> Series:
    """Where the truth is at each batch: it hardly moves up to `turn` of the history, and runs away after it."""
    generator = np.random.default_rng(seed)
    speed = np.where(np.arange(batches) < turn * batches, calm, wild)
    return np.cumsum(np.abs(generator.normal(speed, 0.2 * speed)))


class Run:
    """A runner over this truth; it remembers how far into the history it has been shown each policy.

    Regret retrains at so much loss, which is the price unless it is to be too eager or too slow.
    """

    def __init__(self, truth: Series, *, price: float | None = PRICE, regret_at: float = PRICE) -> None:
        self.regret_at = regret_at
        self.truth = truth
        self.shown: list[int] = []
        self.price = price

    def __call__(self, policy: Policy, history: History) -> Result:
        self.shown.append(len(history))
        return replay(policy, history, self.truth, _due(policy, self.regret_at), self.price)


def _due(policy: Policy, regret_at: float) -> Callable[[int, float], bool]:
    """Whether to retrain, by the batches and the avoidable loss since the last time."""
    triggers = policy.triggers
    if triggers.volume:
        rows = triggers.volume.rows
        return lambda batches, loss: batches * ROWS >= rows
    if triggers.regret:
        return lambda batches, loss: loss >= regret_at
    return lambda batches, loss: False


def replay(
    policy: Policy,
    history: History,
    truth: Series,
    due: Callable[[int, float], bool],
    price: float | None,
) -> Result:
    scores, retrainings, trained, avoidable = [], [_retraining(history.batches[0], 1, first=True)], 0, 0.0
    for batch in history.batches[1:]:
        loss = float(abs(truth[batch.index] - truth[trained]))
        avoidable += loss
        scores.append(
            BatchScore(
                index=batch.index,
                key=batch.key,
                at=batch.at,
                label_at=batch.label_at,
                rows=batch.rows,
                loss_sum=loss,
                generation=len(retrainings),
            )
        )
        if due(batch.index - trained, avoidable):
            retrainings.append(_retraining(batch, len(retrainings) + 1, first=False))
            trained, avoidable = batch.index, 0.0
    return Result(
        name="synthetic",
        model=policy.model,
        policy_hash="",
        family="none",
        metric="accuracy",
        seed=0,
        history=history.source,
        batches=len(history),
        first_served=1,
        label_delay=timedelta(0),
        training_takes=timedelta(0),
        price=price,
        execution_cost=None,
        error_cost=None,
        currency="USD",
        steps=(),
        retrainings=tuple(retrainings),
        scores=tuple(scores),
    )


def _retraining(batch: HistoryBatch, generation: int, *, first: bool) -> Retraining:
    return Retraining(
        name=f"shop-g{generation}",
        generation=generation,
        decision=f"shop-{batch.index}",
        first=first,
        triggers=(),
        planned_at=batch.at,
        started_at=batch.at,
        ended_at=batch.at,
        verdict=Verdict.PROMOTED,
        why="",
        batches=batch.index + 1,
        rows=ROWS * (batch.index + 1),
        through=batch.index,
    )
