"""A result read for a person: its costs batch by batch, what they sum to and how surely, what paid and what waited."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from retrainer.backtest import statistics
from retrainer.backtest.results import BatchScore, Result, Retraining, Step
from retrainer.backtest.statistics import Estimate
from retrainer.core.execution import Verdict
from retrainer.core.reason import HOLDS, Reason

TURNS = frozenset(
    {
        Reason.RETRAINING,
        Reason.PROMOTED,
        Reason.REFUSED,
        Reason.REJECTED,
        Reason.SUPERSEDED,
        Reason.EXECUTION_FAILED,
        Reason.EVIDENCE_FAILED,
        Reason.EFFECT_FAILED,
    }
)
"""Reasons of decisions after which something was different."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A time in which a trigger was kept for one reason; `decision` began it, and `why` is what it said."""

    decision: str
    since: datetime
    until: datetime
    reason: str
    triggers: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one policy comes to. Costs are in units of loss; `difference` is its cost less the first policy's.

    `fruitless` retrainings ended without a promotion; `unpaid` ones were promoted and then avoided less loss than the
    price, None where one of the two is not known. Both are false retrainings.
    """

    name: str
    retrainings: int
    fruitless: int
    unpaid: int | None
    errors: Estimate
    cost: Estimate
    optimum: float | None
    ratio: Estimate | None
    regret: Estimate | None
    money: Estimate | None
    difference: Estimate | None
    latencies: tuple[timedelta, ...]


def alike(results: Sequence[Result]) -> tuple[Result, ...]:
    """The results at one price, the first that is known, so that their costs can be compared.

    An optimum is of one price: that of another result at this price goes for all that served the same batches.
    """
    price = next((r.price for r in results if r.price is not None), None)
    bests = {_indexes(r): r.optimum for r in reversed(results) if r.price == price and r.optimum}
    return tuple(
        r if r.price == price and r.optimum else replace(r, price=price, optimum=bests.get(_indexes(r)))
        for r in results
    )


def summarise(results: Sequence[Result]) -> tuple[Summary, ...]:
    """A summary of each, in their order; all but the first are compared with the first."""
    return tuple(_summary(r, results[0] if n else None) for n, r in enumerate(results))


def costs(result: Result) -> list[float]:
    """One figure for each batch served: its loss, and the price of the retrainings that were decided while it was new.

    They sum to the result's cost.
    """
    return _with_prices(result, [s.loss_sum or 0.0 for s in result.served], [r.planned_at for r in result.counted])


def optimum_costs(result: Result) -> list[float] | None:
    """The same of the hindsight optimum; None without one."""
    best = result.optimum
    return _with_prices(result, best.losses, best.retrain_at) if best else None


def money(result: Result) -> list[float] | None:
    """The money of each batch served; None where errors or retrainings have no price."""
    if result.money is None or result.error_cost is None:
        return None
    spent = [(s.loss_sum or 0.0) * result.error_cost for s in result.served]
    for retraining in result.counted if spent else ():
        spent[_served_at(result.served, retraining.planned_at)] += retraining.cost or 0.0
    return spent


def is_fruitless(retraining: Retraining) -> bool:
    """Whether it ended without a promotion."""
    return retraining.ended_at is not None and retraining.verdict is not Verdict.PROMOTED


def unpaid(result: Result) -> tuple[Retraining, ...] | None:
    """The promoted retrainings that avoided less than the price while they served; None where that is not known.

    The last promotion is never among them: the history ended before it could pay.
    """
    promoted = [r for r in result.counted if r.promoted_at is not None][:-1]
    price = result.price
    if price is None or any(r.avoided is None for r in promoted):
        return None
    return tuple(r for r in promoted if r.avoided is not None and r.avoided < price)


def waits(steps: Sequence[Step]) -> list[Wait]:
    """The times in which triggers were kept, in order; decisions in between that change nothing do not cut them."""
    found: list[Wait] = []
    since: Step | None = None
    for step in steps:
        stays = bool(step.triggers) and step.reason in HOLDS
        if since and (stays or not step.triggers or step.reason == Reason.RETRAINING):
            if stays and step.reason == since.reason:
                continue
            found.append(_wait(since, step.at))
            since = None
        if stays and since is None:
            since = step
    if since:
        found.append(_wait(since, steps[-1].at))
    return found


def turns(result: Result) -> list[Step]:
    """The decisions that mattered: those after which something was different, and those that began a wait."""
    began = {wait.decision for wait in waits(result.steps)}
    return [s for s in result.steps if s.reason in TURNS or s.decision in began]


def _summary(result: Result, first: Result | None) -> Summary:
    own, best, spent, seed = costs(result), optimum_costs(result), money(result), result.seed
    poor = unpaid(result)
    return Summary(
        name=result.name,
        retrainings=len(result.counted),
        fruitless=sum(map(is_fruitless, result.counted)),
        unpaid=None if poor is None else len(poor),
        errors=statistics.total([s.loss_sum or 0.0 for s in result.served], seed=seed),
        cost=statistics.total(own, seed=seed),
        optimum=result.optimum.cost if result.optimum else None,
        ratio=statistics.ratio(own, best, seed=seed) if best and result.ratio is not None else None,
        regret=statistics.difference(own, best, seed=seed) if best else None,
        money=statistics.total(spent, seed=seed) if spent is not None else None,
        difference=_difference(result, first) if first else None,
        latencies=statistics.quantiles(result.latencies),
    )


def _indexes(result: Result) -> tuple[int, ...]:
    return tuple(s.index for s in result.served)


def _difference(result: Result, first: Result) -> Estimate | None:
    """Over the batches that both served; None where there is none."""
    own = dict(zip((s.index for s in result.served), costs(result), strict=True))
    others = dict(zip((s.index for s in first.served), costs(first), strict=True))
    both = sorted(own.keys() & others.keys())
    if not both:
        return None
    return statistics.difference([own[n] for n in both], [others[n] for n in both], seed=result.seed)


def _with_prices(result: Result, losses: Sequence[float], moments: Sequence[datetime]) -> list[float]:
    served, sums = result.served, list(losses)
    for moment in moments if sums else ():
        sums[_served_at(served, moment)] += result.price or 0.0
    return sums


def _served_at(served: Sequence[BatchScore], moment: datetime) -> int:
    """Which batch was the newest then; the first, where none had been served yet."""
    return max(0, bisect_right(served, moment, key=lambda s: s.at) - 1)


def _wait(since: Step, until: datetime) -> Wait:
    return Wait(
        decision=since.decision,
        since=since.at,
        until=until,
        reason=since.reason,
        triggers=since.triggers,
        why=since.detail,
    )
