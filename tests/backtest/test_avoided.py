"""A retraining is worth what its predecessor would have lost in its place, and no retraining is judged by another."""

from collections.abc import Sequence

import pytest

from retrainer.backtest.avoided import Learned, with_avoided
from tests.backtest.example import example


class Ageing:
    """A model loses a tenth more for each batch since the newest that it learned from."""

    def losses(self, learned: Learned, scored: Sequence[int]) -> list[tuple[float, int]]:
        return [((n - max(learned)) / 10, 100) for n in scored]


def test_a_promotion_avoids_what_the_champion_before_it_would_have_lost_while_it_served() -> None:
    made = example(retrain=(20, 40, 60), refused=(40,))
    learned = {r.generation: (r.through,) for r in made.retrainings}
    told = {r.through: r.avoided for r in with_avoided(made, Ageing(), learned).retrainings}
    second = [s for s in made.served if s.generation == 2]
    before = sum((s.index - 10) / 10 for s in second)
    assert told[20] == pytest.approx(before - sum(s.loss_sum or 0 for s in second))


def test_the_first_and_the_refused_avoid_nothing_and_a_refused_one_is_nobodys_predecessor() -> None:
    made = example(retrain=(20, 40, 60), refused=(40,))
    learned = {r.generation: (r.through,) for r in made.retrainings}
    learned[next(r.generation for r in made.retrainings if r.through == 40)] = (-1_000_000,)
    told = {r.through: r.avoided for r in with_avoided(made, Ageing(), learned).retrainings}
    assert told[10] is None
    last = [s for s in made.served if s.generation == 4]
    assert told[60] == pytest.approx(sum((s.index - 20) / 10 - (s.loss_sum or 0) for s in last))
    assert last
