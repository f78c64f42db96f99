"""The game of when to retrain: its optimum is the least cost there is, under every label delay."""

from collections.abc import Iterator
from itertools import chain, combinations

import numpy as np
import pytest

from bench.policies.game import Game, cost_of, optimum, play, solve


def a_game(seed: int, n: int = 8) -> Game:
    random = np.random.default_rng(seed)
    return Game(
        name=f"random-{seed}",
        losses=np.triu(random.integers(0, 40, (n, n)).astype(float), 1),
        variances=np.full((n, n), 0.2),
        rows=np.full(n, 50.0),
        holdout=np.tril(random.random((n, n))),
        holdout_rows=np.full(n, 10.0),
    )


def subsets(moments: range) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(moments, k) for k in range(len(moments) + 1))


def walked(game: Game, times: tuple[int, ...], price: float, delay: int) -> float:
    """The cost of retraining after exactly these batches, batch by batch."""
    champion, cost = 0, 0.0
    for t in range(1, game.batches):
        cost += game.losses[champion, t]
        if t in times:
            cost += price
            champion = t - delay
    return cost


class Coin:
    """Retrains by chance."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.seen: list[int] = []

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        self.seen.append(t)

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        self.promoted = promoted

    def wants(self) -> bool:
        return bool(self._random.random() < 0.4)


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
@pytest.mark.parametrize("price", [0.0, 5.0, 30.0])
def test_the_optimum_is_the_least_cost_of_all_ways_to_retrain(delay: int, price: float) -> None:
    for seed in range(20):
        game = a_game(seed)
        every = [walked(game, times, price, delay) for times in subsets(range(1 + delay, game.batches))]
        assert optimum(game, price, delay) == pytest.approx(min(every))


@pytest.mark.parametrize("delay", [0, 1, 5])
def test_the_moments_of_the_optimum_cost_what_it_says(delay: int) -> None:
    for seed in range(20):
        game = a_game(seed, 12)
        best, times = solve(game, 8.0, delay)
        assert walked(game, times, 8.0, delay) == pytest.approx(best)
        assert cost_of(game, times, 8.0, delay) == pytest.approx(best)


@pytest.mark.parametrize("delay", [0, 1, 5])
def test_no_rule_costs_less_than_the_optimum(delay: int) -> None:
    for seed in range(50):
        game = a_game(seed, 12)
        cost, times = play(game, Coin(seed), 8.0, delay)
        assert cost >= optimum(game, 8.0, delay) - 1e-9
        assert all(t - delay >= 1 for t in times)


def test_labels_come_late_and_none_of_an_older_champion_s() -> None:
    game = a_game(0, 12)
    game.holdout[:] = np.tril(np.tile(-np.arange(12.0), (12, 1)))
    rule = Coin(3)
    _, times = play(game, rule, 1.0, 2)
    assert times
    assert rule.seen[0] == 1
    for t in times:
        assert not any(t - 2 < seen <= t for seen in rule.seen)
