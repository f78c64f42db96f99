"""The rules that people use, as players of the game. A rule that is tuned comes with its whole grid."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.policies.detectors import DETECTORS, Detector, Evidently, fires
from bench.policies.distance import Distances
from bench.policies.game import Rule
from bench.policies.matrices import Played

EVERYTHING = 10_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A stream under a seed, how many batches late labels are, and what a retraining costs, in errors."""

    played: Played
    delay: int
    price: float
    evidently: Evidently
    distances: Distances


Variant = Callable[[Setting], Rule]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A rule, or all variants of one tuned in hindsight. Where it is not `priced`, it does not read the price."""

    name: str
    variants: Mapping[str, Variant]
    priced: bool = False
    ours: bool = False

    @property
    def tuned(self) -> bool:
        """Whether its parameters were chosen with the costs known."""
        return len(self.variants) > 1


class Every:
    """Retrains after every so many batches."""

    def __init__(self, period: int) -> None:
        self._period = period
        self._waited = 0

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        """Nothing to it."""

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        """The next period begins, promoted or not."""
        self._waited = 0

    def wants(self) -> bool:
        """Whether the period is over."""
        self._waited += 1
        return self._waited >= self._period


class OnFeatures:
    """Retrains when a verdict on (champion, batch) says so; features are there at once, however late the labels."""

    def __init__(self, verdict: Callable[[int, int], bool], delay: int) -> None:
        self._verdict = verdict
        self._champion = 0
        self._t = delay

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        """Labels tell it nothing."""

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        """Compares with the new champion's rows from now on."""
        if promoted:
            self._champion = i

    def wants(self) -> bool:
        """Whether the batch just served has drifted."""
        self._t += 1
        return self._verdict(self._champion, self._t)


class OnErrors:
    """Retrains when a detector fires on the champion's errors, row by row; started anew at each retraining."""

    def __init__(self, played: Played, new: Callable[[], Detector]) -> None:
        self._played = played
        self._new = new
        self._champion = 0
        self._start()

    def _start(self) -> None:
        self._detector = self._new()
        self._fired = False

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        """The detector sees the batch's rows."""
        if not self._fired:
            self._fired = fires(self._detector, self._played.errors[self._champion, self._played.rows(t)].tolist())

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        """A new detector, promoted or not."""
        if promoted:
            self._champion = i
        self._start()

    def wants(self) -> bool:
        """Whether it has fired since."""
        return self._fired


class OnPerformance:
    """Retrains when the mean error of the last batches is worse by `drop` than the champion's on its holdout."""

    def __init__(self, played: Played, drop: float, batches: int) -> None:
        self._baseline = float(played.game.holdout[0, 0])
        self._drop = drop
        self._batches = batches
        self._seen: list[tuple[float, int]] = []

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        """One batch more, the oldest less."""
        self._seen = [*self._seen, (loss_sum, rows)][-self._batches :]

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        """The new champion is measured by its own holdout."""
        if promoted:
            self._baseline = challenger
        self._seen = []

    def wants(self) -> bool:
        """Whether the mean is over the limit."""
        rows = sum(n for _, n in self._seen)
        return bool(rows) and sum(loss for loss, _ in self._seen) / rows > self._baseline + self._drop


class OnCost:
    """Retrains when the errors above the holdout's rate, or the area under their sum, reach a budget."""

    def __init__(self, played: Played, budget: float, kind: str) -> None:
        self._baseline = float(played.game.holdout[0, 0])
        self._budget = budget
        self._kind = kind
        self._start()

    def _start(self) -> None:
        self._avoidable = 0.0
        self._area = 0.0

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        """Errors that the holdout did not promise are held to be avoidable."""
        more = loss_sum - self._baseline * rows
        self._avoidable += max(more, 0.0) if self._kind == "clipped" else more
        self._area += max(self._avoidable, 0.0)

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        """Counting starts anew."""
        if promoted:
            self._baseline = challenger
        self._start()

    def wants(self) -> bool:
        """Whether the budget is used up."""
        return (self._area if self._kind == "area" else self._avoidable) >= self._budget


def _only(variant: Variant) -> Mapping[str, Variant]:
    return {"": variant}


def _detector(name: str) -> Contender:
    return Contender(name=f"river {name}", variants=_only(lambda s: OnErrors(s.played, DETECTORS[name])))


def _period(period: int) -> Variant:
    return lambda s: Every(period)


def _drift(width: int, over: str, limit: float) -> Variant:
    return lambda s: OnFeatures(lambda i, t: s.distances.of(i, t, width, over) > limit, s.delay)


def _performance(drop: float, batches: int) -> Variant:
    return lambda s: OnPerformance(s.played, drop, batches)


def _cost(share: float, kind: str) -> Variant:
    return lambda s: OnCost(s.played, share * s.price, kind)


PERIODS = (*range(1, 31), *range(32, 100, 4), EVERYTHING)
LIMITS = tuple(float(x) for x in np.geomspace(0.02, 0.7, 30))
DROPS = (-0.02, 0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)

PEERS: tuple[Contender, ...] = (
    Contender(name="never", variants=_only(_period(EVERYTHING))),
    Contender(name="every batch", variants=_only(_period(1))),
    Contender(name="fixed period", variants={f"every {p}": _period(p) for p in PERIODS}),
    Contender(name="Evidently's default", variants=_only(lambda s: OnFeatures(s.evidently.drifted, s.delay))),
    *(_detector(name) for name in DETECTORS),
    Contender(
        name="drift",
        variants={
            f"{over} over {w} > {x:.3f}": _drift(w, over, x) for w, over, x in product((1, 3), ("mean", "most"), LIMITS)
        },
    ),
    Contender(
        name="performance",
        variants={f"{w} batches, {d:+.3f}": _performance(d, w) for w, d in product((1, 3, 5), DROPS)},
    ),
    Contender(
        name="cost",
        variants={f"{kind} >= {k} prices": _cost(k, kind) for kind, k in product(("sum", "clipped", "area"), SHARES)},
        priced=True,
    ),
    Contender(name="cost, sum >= price", variants=_only(_cost(1.0, "sum")), priced=True),
)
