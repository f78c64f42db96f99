"""The game of when to retrain: a stream's losses under every model it could have had, played by a rule.

Batch 0 trains the first model; batches 1.. are served. Model i has learned from every batch through i (or the newest
of them). With label delay d the labels of batch t - d are there once batch t has been served, and a retraining wanted
then learns through t - d, is judged on the newest part of that, and serves from batch t + 1.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Game:
    """`losses[i, t]` is the summed loss of model i on batch t (only t > i is read), `variances[i, t]` that of one row.

    `holdout[i, j]` is the mean loss of model j <= i on model i's holdout of `holdout_rows[i]` rows, the newest part of
    what it could learn from and did not.
    """

    name: str
    losses: Floats
    variances: Floats
    rows: Floats
    holdout: Floats
    holdout_rows: Floats

    @property
    def batches(self) -> int:
        return len(self.rows)


class Rule(Protocol):
    """What decides, told only what a daemon would know. It keeps whatever it needs; a new game takes a new one."""

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        """The labels of batch t, which the present champion has served, are there; `variance` is that of one row."""
        ...

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        """A retraining through batch i has ended; both mean losses are on its holdout of so many rows."""
        ...

    def wants(self) -> bool:
        """Whether to retrain now; asked once after each batch."""
        ...


def play(game: Game, rule: Rule, price: float, delay: int = 0) -> tuple[float, tuple[int, ...]]:
    """The cost (errors + retrainings x price) and the batches after which it retrained.

    A refused challenger costs too.
    """
    cost, champion, since, times = 0.0, 0, 0, []
    for t in range(1, game.batches):
        cost += float(game.losses[champion, t])
        labelled = t - delay
        if labelled < 1:
            continue
        if labelled > since:
            rows, variance = int(game.rows[labelled]), float(game.variances[champion, labelled])
            rule.labelled(labelled, float(game.losses[champion, labelled]), rows, variance)
        if not rule.wants():
            continue
        times.append(t)
        cost += price
        challenger, kept = float(game.holdout[labelled, labelled]), float(game.holdout[labelled, champion])
        promoted = challenger <= kept
        if promoted:
            champion, since = labelled, t
        rule.retrained(labelled, challenger, kept, int(game.holdout_rows[labelled]), promoted)
    return cost, tuple(times)


def optimum(game: Game, price: float, delay: int = 0) -> float:
    """The least cost anyone could have had, knowing every loss in advance: an exact dynamic programme, O(n^2)."""
    return solve(game, price, delay)[0]


def solve(game: Game, price: float, delay: int = 0) -> tuple[float, tuple[int, ...]]:
    """The least cost and the batches after which to retrain for it."""
    n = game.batches
    to_go = np.zeros(n + 1)
    successor = np.zeros(n, dtype=int)
    for start in range(n - 1, -1, -1):
        if start and start - delay < 1:
            continue
        served = np.cumsum(game.losses[max(start - delay, 0), start + 1 :])
        ends = np.arange(start + 1, n)
        totals = served + to_go[ends] + np.where(ends < n - 1, price, 0.0)
        totals[(ends - delay < 1) & (ends < n - 1)] = np.inf
        if len(totals):
            best = int(np.argmin(totals))
            to_go[start], successor[start] = float(totals[best]), ends[best]
    times, at = [], int(successor[0])
    while 0 < at < n - 1:
        times.append(at)
        at = int(successor[at])
    return float(to_go[0]), tuple(times)


def cost_of(game: Game, times: tuple[int, ...], price: float, delay: int = 0) -> float:
    """The cost of retraining after exactly these batches, with every challenger promoted."""
    starts = (0, *times, game.batches - 1)
    models = (0, *(t - delay for t in times))
    served = sum(
        float(game.losses[model, a + 1 : b + 1].sum()) for model, (a, b) in zip(models, pairwise(starts), strict=True)
    )
    return served + price * len(times)
