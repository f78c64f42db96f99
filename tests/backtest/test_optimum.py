"""The hindsight optimum is exact: no choice of retrainings that was possible is cheaper."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product

import numpy as np
import pytest

from retrainer.backtest.history import HistoryBatch
from retrainer.backtest.optimum import optimum
from retrainer.ports import PermanentError

START = datetime(2025, 1, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def batches(count: int, *, delay: timedelta = timedelta(0)) -> list[HistoryBatch]:
    return [
        HistoryBatch(
            index=n,
            key=f"{n:03}",
            version=str(n),
            size_bytes=1,
            rows=1,
            at=START + n * DAY,
            label_at=START + n * DAY + delay,
            load=lambda: b"",
        )
        for n in range(count)
    ]


class Table:
    """The loss of the model through batch i on batch t, drawn once."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.of = np.random.default_rng(seed).integers(0, 20, (count, count)).astype(float)
        self.asked: set[int] = set()

    def losses(self, learned: tuple[int, ...], scored: Sequence[int]) -> list[tuple[float, int]]:
        self.asked.add(max(learned))
        return [(float(self.of[max(learned), t]), 1) for t in scored]


def cheapest(table: Table, known: Sequence[HistoryBatch], first: int, price: float, takes: timedelta) -> float:
    """By trying every way: at each batch either nothing, or a switch to a model that could begin to serve just then."""
    served = range(first + 1, len(known))
    best = np.inf
    ends = [[_ends(known, i, n, takes) for i in range(len(known))] for n in served]
    options = [[None, *(i for i in range(first + 1, n) if can[i])] for n, can in zip(served, ends, strict=True)]
    for chosen in product([None], *options[1:]):
        model, cost = first, 0.0
        for n, switch in zip(served, chosen, strict=True):
            if switch is not None:
                model, cost = switch, cost + price
            cost += float(table.of[model, n])
        best = min(best, cost)
    return float(best)


def _ends(known: Sequence[HistoryBatch], learned: int, serves: int, takes: timedelta) -> bool:
    """Whether a training started while `learned` was the newest can end after batch serves - 1, and by `serves`."""
    begin = known[learned].label_at + takes
    outdated = known[learned + 1].label_at + takes if learned + 1 < len(known) else None
    return begin <= known[serves].at and (outdated is None or outdated > known[serves - 1].at)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("price", [0.5, 5.0, 30.0])
@pytest.mark.parametrize(("delay", "takes"), [(timedelta(0), HOUR), (2 * DAY, HOUR), (DAY, 5 * HOUR)])
def test_no_possible_choice_is_cheaper(seed: int, price: float, delay: timedelta, takes: timedelta) -> None:
    known, table = batches(9, delay=delay), Table(9, seed)
    found = optimum(
        known, table, first=(0,), served=range(1, 9), price=price, training_takes=takes, training_batches=100
    )
    assert found.cost == pytest.approx(cheapest(table, known, 0, price, takes))
    assert found.cost == pytest.approx(found.errors + price * len(found.retrain_at))
    assert found.errors == pytest.approx(sum(found.losses))
    assert found.never == tuple(table.of[0, 1:])


def test_a_price_too_high_leaves_the_first_model_for_ever() -> None:
    table = Table(9)
    found = optimum(
        batches(9), table, first=(0,), served=range(1, 9), price=1e6, training_takes=HOUR, training_batches=100
    )
    assert (found.retrain_at, found.losses) == ((), found.never)


def test_labels_that_come_late_are_learned_from_late() -> None:
    delay = 3 * DAY
    found = optimum(
        batches(9, delay=delay),
        Table(9),
        first=(0,),
        served=range(1, 9),
        price=0.01,
        training_takes=HOUR,
        training_batches=100,
    )
    known = batches(9, delay=delay)
    assert found.through
    for through, at in zip(found.through, found.retrain_at, strict=True):
        assert at >= known[through].label_at


def test_a_model_that_cannot_be_trained_is_no_choice() -> None:
    class Broken(Table):
        def losses(self, learned: tuple[int, ...], scored: Sequence[int]) -> list[tuple[float, int]]:
            if max(learned) == 3:
                raise PermanentError("one class only")
            return super().losses(learned, scored)

    found = optimum(
        batches(9), Broken(9), first=(0,), served=range(1, 9), price=0.01, training_takes=HOUR, training_batches=100
    )
    assert 3 not in found.through
