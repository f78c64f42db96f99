"""How the default rule was chosen: it, its variants and simple rules on synthetic games, the table in CHOICE.md.

`python -m bench.policies.choose` takes about twenty minutes of one core the first time, five a later one.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.policies.default import Default
from bench.policies.game import Game, Rule, optimum, play
from bench.policies.generated import CONCEPTS, DRIFTING, SCHEDULES, generated
from bench.policies.synthetic import DRAWN, drawn, steady
from retrainer.core import regret

CACHE = Path(".cache/policies/synthetic")
PRICES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""In errors of the first model in a mean batch."""
DELAYS = (0, 1, 5)
EASIEST = 0.01
"""Streams whose optimum errs on less than this share are left out: a ratio to next to nothing says nothing."""
PERIODS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 1000)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One game at one price and delay, with the least cost."""

    game: Game
    price: float
    delay: int
    least: float


class Simple:
    """A rule that looks at nothing but the (rows, mean loss) of each batch since the last promotion."""

    def __init__(self, wants: Callable[[list[tuple[int, float]]], bool]) -> None:
        self._wants = wants
        self._seen: list[tuple[int, float]] = []

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        self._seen.append((rows, loss_sum / rows))

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        self._seen = []

    def wants(self) -> bool:
        return bool(self._seen) and self._wants(self._seen)


def _budget(price: float) -> Rule:
    return Simple(lambda seen: sum(n * (mean - seen[0][1]) for n, mean in seen) >= price)


def _cumulative(price: float) -> Rule:
    def wants(seen: list[tuple[int, float]]) -> bool:
        total = 0.0
        for n, mean in seen:
            total = max(0.0, total + n * (mean - seen[0][1]))
        return total >= price

    return Simple(wants)


def _share(share: float) -> Callable[[float], Rule]:
    return lambda price: Simple(lambda seen: share * sum(n * mean for n, mean in seen) >= price)


SIMPLE: dict[str, Callable[[float], Rule]] = {
    "never": lambda _: Simple(lambda _: False),
    "always": lambda _: Simple(lambda _: True),
    "regret budget": _budget,
    "regret budget, begun anew below nothing": _cumulative,
    "price reached by 5 % of the loss": _share(0.05),
    "price reached by 10 % of the loss": _share(0.1),
    "price reached by 20 % of the loss": _share(0.2),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "**the default**": {},
    "without the gate's gains": {"SLOWEST": 1.0, "FASTEST": 1.0},
    "without the rise": {"SEEN": 0.0},
    **{f"SEEN {seen:g}": {"SEEN": seen} for seen in (0.1, 0.4, 1.0)},
    **{f"SHARE {share:g}": {"SHARE": share} for share in (0.05, 0.07, 0.14, 0.2)},
    **{f"BASELINE {batches}": {"BASELINE": batches} for batches in (1, 3, 10)},
    **{f"CYCLES {cycles}": {"CYCLES": cycles} for cycles in (3, 50)},
    "SLOWEST 0.25": {"SLOWEST": 0.25},
    "FASTEST 2": {"FASTEST": 2.0},
}


def _saved(family: str, seed: int) -> Game:
    """A generated game, from the cache where it is; every third learns from the newest eight batches only."""
    families = _families()
    k = families.index(family)
    path = CACHE / f"{family}_{seed}.npz"
    if not path.exists():
        window = (None, None, 8)[(seed * 7 + k) % 3]
        made = generated(family, ("lightgbm", "logistic")[(seed + k) % 2], seed, window)
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez(path, **vars(made))
    with np.load(path) as held:
        arrays = {field: held[field] for field in held.files if field != "name"}
        return Game(name=str(held["name"]), **arrays)


def _families() -> list[str]:
    return [*DRIFTING, *(f"{concept}-{schedule}" for concept in CONCEPTS for schedule in SCHEDULES)]


def cells(games: list[Game]) -> list[Cell]:
    """Every game at every price and delay."""
    found = []
    for game in games:
        unit = float(game.losses[0].sum() / game.batches)
        for price in PRICES:
            for delay in DELAYS:
                least = optimum(game, price * unit, delay)
                found.append(Cell(game=game, price=price * unit, delay=delay, least=least))
    return found


def sets() -> dict[str, list[Cell]]:
    """The design sets, looked at as often as it took, and the held-out ones."""
    drawn_of = {"drawn": range(5), "drawn, held out": range(100, 104)}
    generated_of = {"generated": range(3), "generated, held out": range(3, 6)}
    games = {name: [drawn(family, seed) for family in DRAWN for seed in seeds] for name, seeds in drawn_of.items()}
    for name, seeds in generated_of.items():
        made = [_saved(family, seed) for seed in seeds for family in _families()]
        games[name] = [game for game in made if optimum(game, 0.0) > EASIEST * game.rows.sum()]
    return {name: cells(found) for name, found in games.items()}


def _best_fixed(cell: Cell) -> float:
    def every(period: int) -> Rule:
        return Simple(lambda seen: len(seen) >= period)

    return min(play(cell.game, every(period), cell.price, cell.delay)[0] for period in PERIODS) / cell.least


def _figures(ratios: list[float]) -> str:
    logs = np.log(ratios)
    return f"{np.exp(logs.mean()):.3f} / {np.quantile(ratios, 0.95):.2f} / {max(ratios):.2f}"


@contextmanager
def _constants(changed: dict[str, Any]) -> Iterator[None]:
    kept = {name: getattr(regret, name) for name in changed}
    for name, value in changed.items():
        setattr(regret, name, value)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(regret, name, value)


def _long() -> None:
    """What the gate's gains are for: streams on which a rule has the time to learn the pace."""
    prices = (0.3, 1.0, 5.0)
    print("\n| decay a batch | rule |", " | ".join(f"price {price:g}" for price in prices), "|")
    print("|---|---|" + "---|" * len(prices))
    for decay in (0.0, 0.002, 0.01):
        games = [steady(decay, seed) for seed in range(3)]
        unit = float(games[0].rows[0]) * 0.2
        least = {(game.name, price): optimum(game, price * unit) for game in games for price in prices}
        for name in ("**the default**", "without the gate's gains"):
            with _constants(VARIANTS[name]):
                means = [
                    np.mean([play(g, Default(p * unit), p * unit)[0] / least[g.name, p] for g in games]) for p in prices
                ]
            print(f"| {decay:g} | {name} |", " | ".join(f"{mean:.3f}" for mean in means), "|", flush=True)


def main() -> int:
    """Print the table: geometric mean, 95th percentile and worst of the ratio to the optimum."""
    of = sets()
    print("| rule |", " | ".join(of), "|")
    print("|---|" + "---|" * len(of))

    def row(name: str, ratio: Callable[[Cell], float]) -> None:
        print(
            f"| {name} |", " | ".join(_figures([ratio(cell) for cell in held]) for held in of.values()), "|", flush=True
        )

    row("best fixed period, in hindsight", _best_fixed)
    for name, make in SIMPLE.items():
        row(name, lambda cell, make=make: play(cell.game, make(cell.price), cell.price, cell.delay)[0] / cell.least)  # type: ignore[misc]
    for name, changed in VARIANTS.items():
        with _constants(changed):
            row(name, lambda cell: play(cell.game, Default(cell.price), cell.price, cell.delay)[0] / cell.least)
    _long()
    print(f"\n{sum(map(len, of.values()))} cells, {time.process_time():.0f} CPU seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
