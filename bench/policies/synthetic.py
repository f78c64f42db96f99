"""Synthetic games on which the default rule was designed: the excess by formulas, the noise drawn.

Those with real models are in generated.py. Nothing here has seen the real streams. Every game is a pure function of its
family and its seed.
"""

from collections.abc import Callable

import numpy as np

from bench.policies.game import Floats, Game

Rng = np.random.Generator


def _ages(n: int) -> tuple[Floats, Floats]:
    t = np.arange(n, dtype=float)
    return t[:, None], t[None, :]


def _none(n: int, rng: Rng) -> Floats:
    return np.zeros((n, n))


def _linear(n: int, rng: Rng) -> Floats:
    i, t = _ages(n)
    return np.clip((t - i) * rng.uniform(0.3, 4) / n, 0, rng.uniform(0.5, 2))


def _saturating(n: int, rng: Rng) -> Floats:
    i, t = _ages(n)
    return rng.uniform(0.2, 1.0) * (1 - np.exp(-np.clip(t - i, 0, None) / (n * rng.uniform(0.03, 0.5))))


def _wandering(n: int, rng: Rng) -> Floats:
    """The concept is a point on a random walk in k dimensions; the excess is the distance from where it was learned."""
    walk = np.cumsum(rng.standard_t(3, size=(n, int(rng.integers(1, 6)))), axis=0)
    squared = ((walk[:, None, :] - walk[None, :, :]) ** 2).sum(-1)
    distance: Floats = squared ** rng.choice([0.5, 1.0])
    return np.asarray(distance / distance.max() * rng.uniform(0.3, 2))


def _steps(n: int, rng: Rng) -> Floats:
    """Concepts that change at once; a model forgets the old one only as the new one's batches become many."""
    changes = np.sort(rng.choice(np.arange(2, n), size=int(rng.integers(1, 6)), replace=False))
    learning = rng.uniform(0.3, 6)
    excess = np.zeros((n, n))
    for change in changes:
        height = rng.uniform(0.1, 1.2)
        for i in range(n):
            learned = i - change + 1
            left = np.exp(-max(learned, 0) / learning)
            excess[i, change:] += height * left
    return np.minimum(excess, 2.5)


def _seasons(n: int, rng: Rng) -> Floats:
    i, t = _ages(n)
    period = n / rng.uniform(1.5, 8)
    apart = np.abs(np.sin(np.pi * (t - i) / period))
    remembered = np.clip(i / period, 0, 1) * rng.uniform(0, 0.9)
    return rng.uniform(0.1, 0.8) * apart * (1 - remembered)


def _learning(n: int, rng: Rng) -> Floats:
    """No drift: more data makes a better model, as a power of how much there is."""
    i, _ = _ages(n)
    first = rng.uniform(0.5, 8)
    curve = ((i + first) / first) ** -rng.uniform(0.3, 1.0)
    return np.broadcast_to(rng.uniform(0.05, 0.8) * curve, (n, n)).copy()


def _learning_and(other: Callable[[int, Rng], Floats]) -> Callable[[int, Rng], Floats]:
    def both(n: int, rng: Rng) -> Floats:
        return _learning(n, rng) * rng.uniform(0.2, 1) + other(n, rng) * rng.uniform(0.2, 1)

    return both


DRAWN: dict[str, Callable[[int, Rng], Floats]] = {
    "none": _none,
    "linear": _linear,
    "saturating": _saturating,
    "wandering": _wandering,
    "steps": _steps,
    "seasons": _seasons,
    "learning": _learning,
    "learning+linear": _learning_and(_linear),
    "learning+steps": _learning_and(_steps),
    "learning+seasons": _learning_and(_seasons),
    "learning+wandering": _learning_and(_wandering),
}
"""Excess loss of model i on batch t, as a share of the base loss."""


def _difficulty(n: int, rng: Rng) -> Floats:
    """How hard each batch is for every model alike: nothing a retraining could avoid."""
    t = np.arange(n)
    factor = np.ones(n)
    kind = rng.integers(4)
    if kind == 1:
        noise = rng.normal(size=n)
        keep = rng.uniform(0, 0.95)
        for k in range(1, n):
            noise[k] = keep * noise[k - 1] + np.sqrt(1 - keep**2) * noise[k]
        factor = np.exp(rng.uniform(0.03, 0.25) * noise)
    elif kind == 2:
        factor = 1 + rng.uniform(0.05, 0.4) * np.sin(2 * np.pi * (t * rng.uniform(1, 8) / n + rng.random()))
    elif kind == 3:
        factor = np.where(t >= rng.integers(1, n), rng.uniform(0.6, 1.6), 1.0)
    return factor


def drawn(family: str, seed: int) -> Game:
    """A game whose losses are drawn about an excess given by a formula."""
    rng = np.random.default_rng([sorted(DRAWN).index(family), seed])
    n = int(rng.choice([40, 60, 100, 150]))
    rows = np.round(np.exp(rng.uniform(np.log(30), np.log(5000))) * np.exp(rng.normal(0, rng.choice([0, 0.3]), n))) + 5
    base = np.exp(rng.uniform(np.log(0.02), np.log(0.45)))
    excess = DRAWN[family](n, rng)
    easy = np.clip(base * _difficulty(n, rng), 0.002, 0.6)
    rate = np.clip(easy[None, :] * (1 + excess), 0, 0.97)
    unlike = rng.uniform(0.05, 0.4)
    shared = rng.normal(size=n)[None, :]
    own = rng.normal(size=(n, n))
    noise = np.sqrt(rows * rate * (1 - rate)) * (np.sqrt(1 - unlike) * shared + np.sqrt(unlike) * own)
    losses = np.clip(rate * rows + noise, 0, rows[None, :])
    holdout_rows = np.maximum(np.round(rows * 0.25), 5)
    # On i's holdout every model j <= i has what excess it would have at i itself: the newest data.
    at = np.clip(easy[:, None] * (1 + excess.T), 0, 0.97)
    spread = np.sqrt(at * (1 - at) / holdout_rows[:, None])
    common = rng.normal(size=n)[:, None]
    holdout = at + spread * (np.sqrt(1 - unlike) * common + np.sqrt(unlike) * rng.normal(size=(n, n)))
    means = losses / rows
    return Game(
        name=f"{family}/{seed}",
        losses=losses,
        variances=means * (1 - means),
        rows=rows,
        holdout=np.clip(holdout, 0, 1),
        holdout_rows=holdout_rows,
    )


def steady(decay: float, seed: int, *, n: int = 700, rows: int = 500, held: int = 100, rate: float = 0.2) -> Game:
    """A long game in which every model's loss grows by the same share a batch, or by none."""
    rng = np.random.default_rng([7, seed])
    i, t = _ages(n)
    expected = np.clip(rate * (1 + decay * np.clip(t - i, 0, None)), 0, 0.9)

    def measured(mean: Floats, of: int, shared: Floats) -> Floats:
        noise = np.sqrt(0.85) * shared + np.sqrt(0.15) * rng.normal(size=(n, n))
        return np.asarray(mean + np.sqrt(mean * (1 - mean) / of) * noise)

    means = measured(expected, rows, rng.normal(size=(1, n)))
    return Game(
        name=f"steady {decay:g}/{seed}",
        losses=means * rows,
        variances=means * (1 - means),
        rows=np.full(n, float(rows)),
        holdout=measured(expected.T, held, rng.normal(size=(n, 1))),
        holdout_rows=np.full(n, float(held)),
    )
