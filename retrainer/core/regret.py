"""Retrain when the loss that a fresh model would have avoided has reached the price of a retraining: nothing to tune.

A model that falls behind at an even pace s, from nothing, has lost s T^2 / 2 by age T, and the least mean cost comes of
replacing it when that equals the price: the square-root law of stock keeping (Harris 1913, "How many parts to make at
once"), and of a renewal process with a marginal cost that has come up to its mean (Charnov 1976, "Optimal foraging, the
marginal value theorem"). Waiting until what was lost equals the price is also what never pays more than twice the
least where nothing is known of the pace (Karlin et al. 1988, "Competitive snoopy caching": ski rental).

The pace cannot be read off the champion's losses alone. A loss that rises may do so because the cases have become
harder, and one that stays may hide that a fresh model, having seen more, would do better. So three sources are joined:
what such models mostly do (SHARE), what the gate has measured at earlier retrainings, and the rise that can be seen.
How the constants were chosen, and what they reach: bench/policies/CHOICE.md.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrainer.core.evidence import LOWER_IS_BETTER, BatchLoss
from retrainer.core.execution import Cycle, Verdict

SHARE = 0.1
"""Nothing else known, a retraining may cost this share of the loss since the last: it is due after ten prices."""

SLOWEST, FASTEST = 0.04, 4.0
"""How far the gate may move the pace that SHARE supposes: to retrain after fifty prices of loss, or after five."""

CYCLES = 10
"""So many of the latest retrainings count; the gains of older ones say little of today's pace."""

SEEN = 0.2
"""How much of a visible rise counts as avoidable. The rest is harder cases, or what no retraining mends yet."""

BASELINE = 5
"""A rise is one above the mean of the first so many batches after a retraining."""

NOTHING = 1e-9
"""A loss of no more than this share of the price is none: its quotients would be too large to reckon with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """What was avoidable since the last retraining, and the price of the next, both in summed loss (errors)."""

    avoidable: float
    price: float
    due: bool
    why: str


def judge(losses: Sequence[BatchLoss], cycles: Sequence[Cycle], price: float, metric: str = "accuracy") -> Regret:
    """The regret of a champion that has had these `losses` since its promotion, after these retrainings, oldest first.

    `price` is in units of summed loss. `metric` is what the cycles' figures are: the gate's. Both metric and loss are
    only ever compared with themselves, so they need not be the same. All is computed anew each time: a batch whose
    labels are corrected later counts as if it had always been so. A retraining that the gate refused shows that nothing
    could be avoided until then: what counts begins anew after it.
    """
    fresh = _fresh(losses, cycles)
    lost = sum(batch.labels * batch.mean for batch in fresh)
    if lost <= NOTHING * price:
        return Regret(avoidable=0.0, price=price, due=False, why="no loss since the last retraining")
    if price <= 0:
        return Regret(avoidable=SHARE * lost, price=price, due=True, why=f"lost {lost:.4g}, and a retraining is free")
    expected = _pace(losses, cycles, price, metric) * (SHARE * lost) ** 2 / price
    rise = _rise(fresh)
    avoidable = expected + SEEN * rise
    why = (
        f"avoidable {avoidable:.4g} of {price:.4g}: {expected:.4g} expected of a loss of {lost:.4g} "
        f"since the last retraining, and {SEEN:.0%} of its rise of {rise:.4g}"
    )
    return Regret(avoidable=avoidable, price=price, due=avoidable >= price, why=why)


def _fresh(losses: Sequence[BatchLoss], cycles: Sequence[Cycle]) -> Sequence[BatchLoss]:
    """The losses since the last retraining, be it one that was refused."""
    last = cycles[-1] if cycles else None
    if last is None or last.verdict is Verdict.PROMOTED:
        return losses
    seen = 0
    for position, batch in enumerate(losses):
        seen += batch.labels
        if seen > last.labels:
            return losses[position:]
    return ()


def _pace(losses: Sequence[BatchLoss], cycles: Sequence[Cycle], price: float, metric: str) -> float:
    """How fast the champion falls behind, as a multiple of the pace at which SHARE is right.

    The mean of 1, as if seen once, and of what the gate saw: a gain of a share g after a loss of a is a pace of
    g price / (2 SHARE^2 a). One cycle differs from another by about 1; to that comes the noise of its holdout.
    """
    labels = sum(batch.labels for batch in losses)
    mean = sum(batch.labels * batch.mean for batch in losses) / labels
    deviation = math.sqrt(sum(batch.labels * batch.variance for batch in losses) / labels) / mean
    total = weights = 1.0
    for age, gain, rows in _gains(cycles, metric):
        scale = price / (2 * SHARE**2 * age * mean)
        weight = 1 / (1 + (deviation * scale) ** 2 / rows)
        total += weight * gain * scale
        weights += weight
    return min(max(total / weights, SLOWEST), FASTEST)


def _gains(cycles: Sequence[Cycle], metric: str) -> Iterator[tuple[int, float, int]]:
    """The champion's age in labels, the share of its loss that the challenger saved, and the rows judged on."""
    for cycle in cycles[-CYCLES:]:
        if cycle.challenger is None or cycle.champion is None or not cycle.rows or not cycle.labels:
            continue
        better = cycle.champion - cycle.challenger if metric in LOWER_IS_BETTER else cycle.challenger - cycle.champion
        loss = cycle.champion if metric in LOWER_IS_BETTER else 1 - cycle.champion
        if loss > 0:
            yield cycle.labels, better / loss, cycle.rows


def _rise(losses: Sequence[BatchLoss]) -> float:
    """The summed loss above that of the first batches, begun anew when it falls below nothing (Page 1954, CUSUM)."""
    first = losses[:BASELINE]
    baseline = sum(batch.labels * batch.mean for batch in first) / sum(batch.labels for batch in first)
    rise = 0.0
    for batch in losses[BASELINE:]:
        rise = max(0.0, rise + batch.labels * (batch.mean - baseline))
    return rise
