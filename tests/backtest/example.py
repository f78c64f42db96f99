"""A result made up by hand: weekly batches, a drift that three retrainings answer, one of them refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from retrainer.backtest.results import BatchScore, Fired, Optimum, Result, Retraining, Step
from retrainer.core.execution import TriggerKind, Verdict

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
ROWS = 100


def example(
    name: str = "regret",
    *,
    retrain: tuple[int, ...] = (20, 45, 70),
    refused: tuple[int, ...] = (45,),
    batches: int = 100,
    price: float | None = 50.0,
    seed: int = 0,
) -> Result:
    """Batches from 10 are served; the loss grows from 10 a batch by one every other batch until a promotion."""
    generator = np.random.default_rng(7)
    noise = generator.normal(0, 1.5, batches)
    fresh, generation, scores = 10, 1, []
    for n in range(batches):
        loss = None if n < 10 else max(0.0, float(10 + (n - fresh) / 2 + noise[n]))
        score = _score(n, loss, 0 if n < 10 else generation)
        scores.append(score)
        if n in retrain and n not in refused:
            fresh, generation = n, retrain.index(n) + 2
    first = _retraining(name, 10, first=True, refused=False, generation=1)
    later = [_retraining(name, n, first=False, refused=n in refused, generation=g) for g, n in enumerate(retrain, 2)]
    best = tuple(float(10 + (n % 15) / 2 + noise[n]) for n in range(10, batches))
    moments = tuple(BEGIN + WEEK * n for n in range(25, batches, 15))
    errors = sum(best)
    return Result(
        name=name,
        model="shop",
        policy_hash="ab" * 32,
        family="lightgbm",
        metric="accuracy",
        seed=seed,
        history="data/shop",
        batches=batches,
        first_served=10,
        label_delay=timedelta(days=1),
        training_takes=timedelta(hours=2),
        price=price,
        execution_cost=None if price is None else price * 0.1,
        error_cost=None if price is None else 0.1,
        currency="USD",
        steps=tuple(_steps(name, batches, retrain, refused)),
        retrainings=(first, *later),
        scores=tuple(scores),
        optimum=Optimum(
            cost=errors + len(moments) * (price or 0.0),
            errors=errors,
            retrain_at=moments,
            through=tuple(range(25, batches, 15)),
            losses=best,
            never=tuple(float(10 + (n - 10) / 2 + noise[n]) for n in range(10, batches)),
        ),
    )


def hostile(text: str) -> Result:
    """The example with this text wherever a stranger could have written something."""
    made = example(text)
    return replace(
        made,
        model=text,
        history=text,
        family=text,
        metric=text,
        currency=text,
        steps=tuple(replace(s, detail=text, identity=text, triggers=(text,) * len(s.triggers)) for s in made.steps),
        scores=tuple(replace(s, key=text) for s in made.scores),
        retrainings=tuple(
            replace(r, why=text, name=text, triggers=tuple(replace(t, why=text, name=text) for t in r.triggers))
            for r in made.retrainings
        ),
    )


def _score(n: int, loss: float | None, generation: int) -> BatchScore:
    at = BEGIN + WEEK * n
    share = (n % 20) / 20
    return BatchScore(
        index=n,
        key=f"data/shop/{n:04}.parquet",
        at=at,
        label_at=at + timedelta(days=1),
        rows=ROWS,
        loss_sum=loss,
        generation=generation,
        drift_share=share,
    )


def _retraining(name: str, n: int, *, first: bool, refused: bool, generation: int) -> Retraining:
    at = BEGIN + WEEK * n
    fired = Fired(kind=TriggerKind.DRIFT, name="", why="drift 0.40 >= 0.30", since=at - timedelta(days=3))
    return Retraining(
        name=f"shop-g{generation}-{name}",
        generation=generation,
        decision=f"shop-{n}",
        first=first,
        triggers=() if first else (fired,),
        planned_at=at,
        started_at=at,
        ended_at=at + timedelta(hours=2),
        verdict=Verdict.REFUSED if refused else Verdict.PROMOTED,
        why="accuracy 0.8100 misses the least gain" if refused else "accuracy 0.9100 meets the least gain",
        batches=n,
        rows=n * ROWS,
        through=n,
        challenger=0.91,
        champion=None if first else 0.88,
        holdout_rows=200,
        cost=5.0,
        avoided=None if first or refused else 120.0,
    )


def _steps(name: str, batches: int, retrain: tuple[int, ...], refused: tuple[int, ...]) -> list[Step]:
    steps: list[Step] = []

    def step(n: float, kind: str, reason: str, detail: str = "", triggers: tuple[str, ...] = ()) -> None:
        count = len(steps)
        steps.append(
            Step(
                decision=f"shop-{count}",
                event_kind=kind,
                identity=f"{kind}:{name}:{count}",
                event=f"{count:064x}",
                at=BEGIN + WEEK * n,
                reason=reason,
                detail=detail,
                triggers=triggers,
                state_hash_before=f"{count:064x}",
                state_hash_after=f"{count + 1:064x}",
                effects=(),
            )
        )

    for n in range(batches):
        step(n, "object_created", "measuring")
        if n in retrain:
            step(n - 0.9, "evidence_measured", "cooling_down", "until the cooldown of 6 h is over", ("drift",))
            step(n - 0.5, "evidence_measured", "noted", "", ("drift",))
            step(n, "woken", "retraining", "drift 0.40 >= 0.30", ("drift",))
            step(n + 0.01, "execution_ended", "refused" if n in refused else "promoted", "accuracy 0.9100")
        else:
            step(n, "evidence_measured", "nothing_met")
    return sorted(steps, key=lambda s: s.at)
