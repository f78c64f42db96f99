"""A stream and a seed become a game: every model the stream could have had, scored on every batch it could have served.

Model i is LightGBM on all rows through batch i less the newest tenth, its holdout, as the policies' own default has it.
The seed is the model's, and draws the rows that are kept and where the batches begin.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
from numpy.typing import NDArray

from bench.policies.game import Floats, Game
from bench.policies.streams import ROWS_MIN, WARM, Stream

HOLDOUT_SHARE = 0.1
PRIOR_ROWS = 5.0
"""How many rows of the overall mean a remembered value's mean starts from."""
TREES = 60
PARAMETERS = {
    "num_leaves": 15,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """What the rules are told of a stream under one seed.

    `errors[i, r]` is whether model i guesses row r wrongly, for rows after its training; batch t has the rows from
    `bounds[t]` up to, not with, `bounds[t + 1]`; `features` and `categorical` are those rows' own.
    """

    name: str
    seed: int
    key: str
    errors: NDArray[np.bool_]
    bounds: NDArray[np.int64]
    features: Floats
    names: tuple[str, ...]
    categorical: frozenset[str]
    game: Game

    def rows(self, t: int) -> slice:
        """The rows of batch t."""
        return slice(int(self.bounds[t]), int(self.bounds[t + 1]))


def played(stream: Stream, seed: int, cache: Path) -> Played:
    """The game of a stream and seed, from the cache when it is there."""
    kept, bounds = draw(stream, seed)
    said = f"{stream.spans} {WARM} {stream.keep} {HOLDOUT_SHARE} {ROWS_MIN} {PRIOR_ROWS} {TREES} {PARAMETERS}"
    seen = hashlib.sha256(stream.features[kept].tobytes() + stream.classes[kept].tobytes() + said.encode())
    key = f"{stream.name}-{seed}-{seen.hexdigest()[:16]}"
    path = cache / f"{key}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as found:
            errors = np.unpackbits(found["errors"], axis=1, count=len(kept)).astype(bool)
    else:
        errors = scored(stream, kept, bounds, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, errors=np.packbits(errors, axis=1))
    return Played(
        name=stream.name,
        seed=seed,
        key=key,
        errors=errors,
        bounds=bounds,
        features=stream.features[kept],
        names=stream.names,
        categorical=stream.categorical,
        game=game(f"{stream.name}-{seed}", errors, bounds),
    )


def draw(stream: Stream, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows kept, and where among them each batch begins, with the end of the last."""
    random = np.random.default_rng(seed)
    kept = np.flatnonzero(random.random(len(stream.moment)) < stream.keep)
    first, last = stream.moment[0], stream.moment[-1]
    edges = first + (last - first) / stream.spans * (np.arange(WARM, stream.spans) + random.random() - 0.5)
    bounds = [0]
    for cut in np.searchsorted(stream.moment[kept], edges):
        if cut - bounds[-1] >= ROWS_MIN:
            bounds.append(int(cut))
    if len(kept) - bounds[-1] < ROWS_MIN:
        bounds.pop()
    return kept, np.array([*bounds, len(kept)], dtype=np.int64)


def scored(stream: Stream, kept: NDArray[np.int64], bounds: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """For every model, which of the rows after its training it guesses wrongly."""
    features, classes = stream.features[kept], stream.classes[kept]
    remembered = None if stream.remembered is None else stream.remembered[kept]
    among = int(stream.classes.max()) + 1
    errors = np.zeros((len(bounds) - 1, len(kept)), dtype=bool)
    for i, end in enumerate(bounds[1:]):
        cut = trained_rows(int(end))
        table = features if remembered is None else np.hstack([features, memory(remembered, classes, cut)])
        model = fit(table[:cut], classes[:cut], stream, among, seed)
        guessed = np.asarray(model.predict(table[cut:]))
        errors[i, cut:] = (guessed.argmax(axis=1) if among > 2 else guessed >= 0.5) != classes[cut:]
    return errors


def trained_rows(seen: int) -> int:
    """How many of the rows seen a model is fitted on; the newer ones are its holdout."""
    return int(seen * (1 - HOLDOUT_SHARE))


def fit(table: Floats, classes: NDArray[np.int64], stream: Stream, among: int, seed: int) -> lightgbm.Booster:
    """One model."""
    goal = {"objective": "multiclass", "num_class": among} if among > 2 else {"objective": "binary"}
    columns = [k for k, name in enumerate(stream.names) if name in stream.categorical]
    data = lightgbm.Dataset(table, classes, categorical_feature=columns, free_raw_data=True)
    return lightgbm.train({**PARAMETERS, **goal, "seed": seed}, data, TREES)


def memory(values: NDArray[np.int64], classes: NDArray[np.int64], cut: int) -> Floats:
    """For each row, how often its value came before and its mean class then; from row `cut` on, as it was at `cut`."""
    overall = float(classes[:cut].mean())
    order = np.argsort(values, kind="stable")
    sums = np.zeros((len(values), 2))
    first = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    lengths = np.diff(np.r_[first, len(values)])
    known = (order < cut).astype(float)
    for column, counted in enumerate((known, known * classes[order])):
        running = np.cumsum(counted) - counted
        sums[order, column] = running - np.repeat(running[first], lengths)
    return np.column_stack([sums[:, 0], (sums[:, 1] + PRIOR_ROWS * overall) / (sums[:, 0] + PRIOR_ROWS)])


def game(name: str, errors: NDArray[np.bool_], bounds: NDArray[np.int64]) -> Game:
    """The summed losses of every model on every batch and holdout."""
    running = np.hstack([np.zeros((len(errors), 1)), np.cumsum(errors, axis=1, dtype=np.float64)])
    rows = np.diff(bounds).astype(np.float64)
    losses = running[:, bounds[1:]] - running[:, bounds[:-1]]
    rate = losses / rows
    cuts = np.array([trained_rows(int(end)) for end in bounds[1:]])
    held = bounds[1:] - cuts
    holdout = (running[:, bounds[1:]] - running[:, cuts]).T / held[:, None]
    return Game(
        name=name,
        losses=np.triu(losses, 1),
        variances=np.triu(rate * (1 - rate), 1),
        rows=rows,
        holdout=np.tril(holdout),
        holdout_rows=held.astype(np.float64),
    )
