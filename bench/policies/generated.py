"""Synthetic games with real models: river's generators, concepts mixed in time, every model scored on every batch."""

from collections.abc import Callable, Iterator
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from river.datasets import synth
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.policies.game import Floats, Game

Stream = Callable[[int], Any]
Labels = NDArray[np.int64]

CONCEPTS: dict[str, Stream] = {
    "sea": lambda k: synth.SEA(variant=k % 4, noise=0.1, seed=7 + k),
    "agrawal": lambda k: synth.Agrawal(classification_function=k % 10, perturbation=0.05, seed=7 + k),
    "stagger": lambda k: synth.STAGGER(classification_function=k % 3, seed=7 + k),
    "sine": lambda k: synth.Sine(classification_function=k % 4, has_noise=True, seed=7 + k),
    "mixed": lambda k: synth.Mixed(classification_function=k % 2, seed=7 + k),
    "led": lambda k: synth.LEDDrift(
        noise_percentage=0.15, n_drift_features=2 * (k % 4), irrelevant_features=True, seed=7
    ),
}
DRIFTING: dict[str, Stream] = {
    "rbf": lambda k: synth.RandomRBFDrift(
        n_classes=3,
        n_features=8,
        n_centroids=15,
        change_speed=0.0002 * 10 ** (k % 3),
        n_drift_centroids=10,
        seed_model=k,
        seed_sample=k,
    ),
    "hyperplane": lambda k: synth.Hyperplane(
        n_features=8, n_drift_features=5, mag_change=0.0005 * 5 ** (k % 3), noise_percentage=0.08, seed=k
    ),
    "rbf-still": lambda k: synth.RandomRBF(n_classes=3, n_features=8, n_centroids=30, seed_model=k, seed_sample=k),
}
SCHEDULES = ("abrupt", "gradual", "recurring", "still")


def _rows(stream: Any, count: int) -> Iterator[tuple[list[float], int]]:
    for x, y in stream.take(count):
        yield [float(v) for v in x.values()], int(y)


def _stream(family: str, count: int, seed: int, rng: np.random.Generator) -> tuple[Floats, Labels]:
    if family in DRIFTING:
        pairs = list(_rows(DRIFTING[family](seed), count))
    else:
        name, schedule = family.split("-")
        parts = int(rng.integers(2, 5)) if schedule != "still" else 1
        concepts = [list(_rows(CONCEPTS[name](seed + k), count)) for k in range(parts)]
        position = np.arange(count) / count
        which: NDArray[Any] = np.zeros(count)
        if schedule == "abrupt":
            which = np.searchsorted(np.sort(rng.random(parts - 1)), position)
        elif schedule == "gradual":
            which = np.clip(np.round(position * parts - 0.5 + rng.normal(0, 0.35, count)), 0, parts - 1)
        elif schedule == "recurring":
            which = (position * parts * rng.integers(2, 4)).astype(int) % parts
        pairs = [concepts[int(w)][k] for k, w in enumerate(which)]
    return np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])


def _fit(model: str, x: Floats, y: Labels) -> Any:
    if len(np.unique(y)) < 2:
        only = y[0]
        return lambda z: np.full(len(z), only)
    if model == "lightgbm":
        made = lightgbm.LGBMClassifier(n_estimators=30, num_leaves=15, min_child_samples=10, verbose=-1, n_jobs=1)
    else:
        made = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    made.fit(x, y)
    if model != "lightgbm":
        return made.predict
    # The booster itself: scikit-learn's checks of every small batch would take longer than the prediction.
    booster, classes = made.booster_, made.classes_

    def predict(z: Floats) -> Labels:
        scores = np.asarray(booster.predict(z))
        return np.asarray(classes[(scores > 0.5).astype(int) if scores.ndim == 1 else scores.argmax(1)])

    return predict


def generated(family: str, model: str, seed: int, window: int | None = None) -> Game:
    """A game on a generated stream; with `window`, models learn from that many newest batches only."""
    rng = np.random.default_rng([seed, *family.encode()])
    n = int(rng.choice([40, 60, 80]))
    size = int(np.exp(rng.uniform(np.log(40), np.log(600))))
    first = int(rng.integers(1, 6)) * size
    x, y = _stream(family, first + (n - 1) * size, seed, rng)
    edges = [0, first, *(first + size * np.arange(1, n))]
    held = max(8, size // 4)
    losses, holdout = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        start = 0 if window is None else edges[max(0, i + 1 - window)]
        predict = _fit(model, x[start : edges[i + 1] - held], y[start : edges[i + 1] - held])
        wrong = predict(x[edges[0] :]) != y
        for t in range(n):
            losses[i, t] = wrong[edges[t] : edges[t + 1]].sum()
            holdout[t, i] = wrong[edges[t + 1] - held : edges[t + 1]].mean()
    rows = np.diff(edges).astype(float)
    means = losses / rows
    return Game(
        name=f"{family}/{model}/{window or 'all'}/{seed}",
        losses=losses,
        variances=means * (1 - means),
        rows=rows,
        holdout=holdout,
        holdout_rows=np.full(n, float(held)),
    )
