"""MovieLens-100K, 75/25: of every user's ratings a random quarter is to be found, ten items each (`splits.set_split`).

The best published nDCG@10 of this protocol is .475 (BiVAE, 22.7 s on a GPU; microsoft/recommenders, README).
Settings are the best of SEARCHED on validation rows, a quarter of each user's training rows; only `rows` looks at the
test rows. `python -m bench.trainer.sets` plays the search again (three CPU minutes).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bench.trainer import splits
from bench.trainer.measured import MOVIELENS_100K, Row, items_of, seconds_into, set_scores
from trainer import ease
from trainer.data import Interactions
from trainer.popularity import popularity
from trainer.ranking import Ranker, recommend

SEEDS = range(5)
ALL = ease.Hyperparameters(count_min=1, items_max=2500, neighbours=2500, halflife=1e6)
STECK = replace(ALL, regularisation=600.0)
OURS = replace(ALL, user_exponent=1.0, item_exponent=0.25, rank=20, regularisation=800.0)
SEARCHED_STECK = {"regularisation": (200.0, 300.0, 400.0, 600.0, 800.0)}
SEARCHED = {
    "user_exponent": (0.5, 0.75, 1.0),
    "item_exponent": (0.2, 0.25),
    "rank": (16, 20, 24),
    "regularisation": (400.0, 600.0, 800.0),
}


def rows() -> Iterator[Row]:
    ratings = splits.read(MOVIELENS_100K)
    models: dict[str, Callable[[Interactions], Ranker]] = {
        "EASE, normalised, rank 20": partial(ease.fit, parameters=OURS),
        "EASE, Steck's own": partial(ease.fit, parameters=STECK),
        "popularity": popularity,
    }
    for name, fit in models.items():
        row = Row(task="ML-100K sets, 75/25", model=name, metric="nDCG@10")
        for seed in SEEDS:
            _measure(fit, *splits.set_split(ratings, seed), row)
        yield row


def _measure(fit: Callable[[Interactions], Ranker], train: Interactions, test: Interactions, row: Row) -> None:
    history, wanted = items_of(train), items_of(test)
    with seconds_into(row.cpu_seconds):
        model = fit(train)
    found = [np.array(recommend(model, history[user], 10)["items"]) for user in wanted]
    row.add(set_scores(found, wanted.values()))


def search() -> None:
    """Prints every point: the mean over the seeds of the validation rows' figure."""
    ratings = splits.read(MOVIELENS_100K)
    for start, searched in ((STECK, SEARCHED_STECK), (OURS, SEARCHED)):
        for values in itertools.product(*searched.values()):
            settings: dict[str, Any] = dict(zip(searched, values, strict=True))
            fit = partial(ease.fit, parameters=replace(start, **settings))
            row = Row(task="", model="", metric="")
            for seed in SEEDS:
                train, _ = splits.set_split(ratings, seed)
                _measure(fit, *splits.set_split(train, seed), row)
            print(f"{settings}: {np.mean(row.values):.4f}, {np.mean(row.cpu_seconds):.2f} CPU s", flush=True)


if __name__ == "__main__":
    search()
