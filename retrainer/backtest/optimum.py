"""The cheapest retrainings that were possible, known in hindsight: what every policy is measured against.

The first model is the policies' own. After it, a retraining may be started at any moment; it learns from what had
arrived by then, label delay included, serves `training_takes` later, and costs the price. There is no gate, and the
price is all that keeps executions apart: where one takes longer than a batch, two may overlap, and the optimum is a
bound that no policy can quite reach.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrainer.backtest.history import HistoryBatch
from retrainer.backtest.results import Optimum
from retrainer.ports import PermanentError

Floats = NDArray[np.float64]


class Models(Protocol):
    """What is asked of the models: the sum of losses and the number of labels on each batch, by what was learned."""

    def losses(self, learned: tuple[int, ...], scored: Sequence[int]) -> list[tuple[float, int]]: ...


def optimum(
    batches: Sequence[HistoryBatch],
    models: Models,
    *,
    first: tuple[int, ...],
    served: Sequence[int],
    price: float,
    training_takes: timedelta,
    training_batches: int,
    tell: Callable[[str], object] = lambda text: None,
) -> Optimum:
    """The cheapest retrainings over the batches `served` (indexes, in order) from the model `first`.

    `retrain_at` says how early each can be started; one that serves later than it could is started as late.
    """
    options = _options(batches, served, max(first), training_takes)
    losses: dict[int, Floats] = {}
    for done, through in enumerate(sorted({max(first), *(i for found in options for i in found)})):
        tell(f"the optimum: model {done + 1}, through {batches[through].key}")
        learned = first if through == max(first) else tuple(range(max(0, through + 1 - training_batches), through + 1))
        start = next(n for n, found in enumerate(options) if through in found) if through != max(first) else 0
        losses[through] = _row(models, learned, served, start)
    switches, cost = _cheapest(options, losses, max(first), price)
    serving = [max(first), *(i for _, i in switches)]
    bounds = [0, *(n for n, _ in switches), len(served)]
    paid = np.concatenate([losses[i][a:b] for i, (a, b) in zip(serving, pairwise(bounds), strict=True)])
    return Optimum(
        cost=cost,
        errors=float(paid.sum()),
        retrain_at=tuple(max(batches[i].label_at, batches[served[n - 1]].at - training_takes) for n, i in switches),
        through=tuple(i for _, i in switches),
        losses=tuple(float(loss) for loss in paid),
        never=tuple(float(loss) for loss in losses[max(first)]),
    )


def _options(
    batches: Sequence[HistoryBatch], served: Sequence[int], first: int, takes: timedelta
) -> list[tuple[int, ...]]:
    """For each batch served, the models (by their newest batch) whose retraining can end since the batch before it.

    A retraining through batch i starts while i is the newest that has arrived, and ends `takes` later.
    """
    ready = [b.label_at + takes for b in batches]
    options: list[tuple[int, ...]] = [()]
    for before, now in pairwise(served):
        # Ready by now, and not yet outdated (the next one ready) when the batch before was served.
        last = bisect_right(ready, batches[now].at) - 1
        oldest = bisect_right(ready, batches[before].at) - 1
        options.append(tuple(i for i in range(max(oldest, 0), last + 1) if i > first))
    return options


def _row(models: Models, learned: tuple[int, ...], served: Sequence[int], start: int) -> Floats:
    """The model's loss on each batch served from `start` on; infinite before, and where it could not be trained."""
    row = np.full(len(served), np.inf)
    try:
        row[start:] = [loss for loss, _ in models.losses(learned, served[start:])]
    except PermanentError:
        if not start:
            raise
    return row


def _cheapest(
    options: Sequence[tuple[int, ...]], losses: dict[int, Floats], first: int, price: float
) -> tuple[list[tuple[int, int]], float]:
    """The switches (place in served, model) of the least cost, the fewest of those, and that cost.

    Backwards: the best from a switch on is its loss up to the next switch, the price of that, and the best from there.
    """
    count = len(options)
    best_at = np.full(count + 1, np.inf)
    """The price and all that follows from the cheapest switch at that place on; nothing is paid after the last."""
    best_at[count] = 0.0
    chosen: dict[int, int] = {}
    following: dict[tuple[int, int], int] = {}

    def best(place: int, model: int) -> float:
        summed = np.cumsum(losses[model][place:])
        costs = summed + best_at[place + 1 :]
        cheapest = float(costs.min())
        # Of equal ones the latest switch, which is the end if none is needed.
        following[place, model] = place + 1 + int(np.flatnonzero(costs <= cheapest + 1e-9)[-1])
        return cheapest

    for place in range(count - 1, 0, -1):
        for model in options[place]:
            if (cost := price + best(place, model)) < best_at[place]:
                best_at[place], chosen[place] = cost, model
    total = best(0, first)
    switches: list[tuple[int, int]] = []
    place, model = following[0, first], first
    while place < count:
        model = chosen[place]
        switches.append((place, model))
        place = following[place, model]
    return switches, total
