"""The problem "which item next": for every held-out interaction, rank all items given what the user consumed before.

Every model answers the same cases. A case is a held-out interaction with an item the user had not consumed before; the
items of the history are taken out of the ranking, equal scores are ordered by item id, and an item the model does not
know counts as a miss. Full ranking: sampled metrics are never comparable (Krichene and Rendle, KDD 2020).

Shapes: U users with cases, T one user's interactions, P prefixes, I items of one model, C cases, K items of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trainer import bootstrap, data
from trainer.bootstrap import Metrics, Scores
from trainer.contract import BadRequestError
from trainer.data import FloatArray, IntArray, Interactions, index_of, order_of, sequences
from trainer.popularity import Popularity, popularity, recent_popularity
from trainer.quality import entries

CUTOFF = 10
METRIC_NAMES = ("ndcg_at_10", "hit_rate_at_10")
ITEMS_MAX = 1000
LOWEST = float(np.finfo(np.float32).min)


class Ranker(Protocol):
    """What can be evaluated and served: scores over ``item_I`` after each prefix of a history of known items."""

    @property
    def item_I(self) -> IntArray: ...  # noqa: N802 - shapes in names

    @property
    def popularity_I(self) -> FloatArray: ...  # noqa: N802

    def rolling(self, history_T: IntArray, start: int) -> FloatArray: ...


@dataclass(frozen=True, slots=True)
class UserCases:
    """One user's interactions in order; the cases are the items at ``position_C`` given all before them."""

    item_T: IntArray
    position_C: IntArray


@dataclass(frozen=True, slots=True)
class Cases:
    """The users of the holdout with at least one case, by user id; ``train`` is what the baselines count."""

    users: list[UserCases]
    train: Interactions
    rows_held_out: int

    def __len__(self) -> int:
        return sum(len(user.position_C) for user in self.users)


def cases(train: Path, holdout: Path, config: Mapping[str, Any]) -> Cases:
    return cases_of(data.read(train), data.read(holdout))


def cases_of(train: Interactions, holdout: Interactions) -> Cases:
    user_N, item_N, time_N = (
        np.concatenate([getattr(train, name), getattr(holdout, name)]) for name in ("user_N", "item_N", "time_N")
    )
    order_N = order_of(user_N, item_N, time_N)
    both = Interactions(user_N=user_N[order_N], item_N=item_N[order_N], time_N=time_N[order_N])
    held_out_N = order_N >= len(train)
    found = []
    for _user, position_T in sequences(both):
        item_T = both.item_N[position_T]
        first_T = np.zeros(len(item_T), dtype=bool)
        first_T[np.unique(item_T, return_index=True)[1]] = True
        position_C = np.flatnonzero(first_T & held_out_N[position_T])
        if len(position_C):
            found.append(UserCases(item_T, position_C))
    return Cases(found, train, len(holdout))


def ranks(ranker: Ranker, user: UserCases) -> IntArray:
    """The rank (from 1) of each case's item among the items not yet consumed; 0 where the model does not know it."""
    place_T = index_of(ranker.item_I, user.item_T)
    known_T = np.concatenate([[0], np.cumsum(place_T >= 0)])  # how many known items stand before each position
    history_K = place_T[place_T >= 0]
    start, stop = int(known_T[user.position_C[0]]), int(known_T[user.position_C[-1]])
    score_PI = ranker.rolling(history_K[:stop], start)
    rank_C = np.zeros(len(user.position_C), dtype=np.int64)
    for case, position in enumerate(user.position_C):
        target = place_T[position]
        if target < 0:
            continue
        known = int(known_T[position])
        score_I = score_PI[known - start]
        above_I = ~(score_I <= score_I[target])  # what is no number stands above all, and as a target below all
        above_I[:target] |= score_I[:target] == score_I[target]
        rank_C[case] = 1 + np.count_nonzero(above_I) - np.count_nonzero(above_I[np.unique(history_K[:known])])
    return rank_C


def score(predictor: Ranker, cases: Cases) -> Scores:
    """A unit is a user: one user's cases are alike, and to resample them singly would promise too much."""
    total_UM = np.array([_sums(ranks(predictor, user)) for user in cases.users]).reshape(-1, len(METRIC_NAMES))
    return Scores(total_UM, np.array([len(user.position_C) for user in cases.users], dtype=np.float64))


def measure(predictor: Ranker, cases: Cases) -> Metrics:
    return bootstrap.intervals(score(predictor, cases), METRIC_NAMES)


def _sums(rank_C: IntArray) -> tuple[float, float]:
    hit_C = (rank_C >= 1) & (rank_C <= CUTOFF)
    return float(np.sum(1.0 / np.log2(1.0 + rank_C[hit_C]))), float(np.count_nonzero(hit_C))


def baselines(cases: Cases) -> dict[str, Popularity]:
    return {"popularity": popularity(cases.train), "recent_popularity": recent_popularity(cases.train)}


def quality(predictor: Ranker, cases: Cases, metrics: Metrics) -> dict[str, Any]:
    """SageMaker has no group for rankings: one of our own, of the same shape."""
    return {
        "ranking_metrics": entries(metrics),
        "dataset": {"item_count": len(cases), "users": len(cases.users)},
        "catalogue": {"items": len(predictor.item_I)},
    }


# ---- answers


def answer(predictor: Ranker, request: dict[str, Any]) -> list[dict[str, Any]]:
    """``{"instances": [{"user_id": 1, "history": [ids, oldest first]}], "k": 10}``; user_id and k are optional."""
    instances, k = request.get("instances"), request.get("k", 10)
    if not isinstance(instances, list):
        raise BadRequestError('give {"instances": [{"user_id": 1, "history": [1, 2]}], "k": 10}')
    if not _is_integer(k) or not 1 <= k <= ITEMS_MAX:
        raise BadRequestError(f"'k' must be a whole number from 1 to {ITEMS_MAX}")
    histories = [_history(number, instance) for number, instance in enumerate(instances)]
    return [recommend(predictor, history_T, k) for history_T in histories]


def _history(number: int, instance: Any) -> IntArray:
    if not isinstance(instance, dict):
        raise BadRequestError(f"instances[{number}] must be an object with 'history'")
    history = instance.get("history", [])
    if not isinstance(history, list) or not all(_is_integer(item) and abs(item) < 2**63 for item in history):
        raise BadRequestError(f"instances[{number}].history must be a list of item ids (whole numbers), oldest first")
    return np.array(history, dtype=np.int64)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def recommend(predictor: Ranker, history_T: IntArray, k: int) -> dict[str, Any]:
    """The ``k`` best items the user has not had; fewer when the catalogue is smaller."""
    item_I = predictor.item_I
    place_T = index_of(item_I, history_T)
    place_T = place_T[place_T >= 0]
    last_I = predictor.rolling(place_T, len(place_T))[0]
    score_I = np.nan_to_num(last_I.astype(np.float32), nan=LOWEST)  # JSON has no infinity
    score_I[place_T] = -np.inf
    count = min(k, len(item_I) - len(np.unique(place_T)))
    bound = np.partition(score_I, -count)[-count] if count else np.inf
    among_C = np.flatnonzero(score_I >= bound) if count else np.zeros(0, dtype=np.int64)
    best_K = among_C[np.lexsort((item_I[among_C], -score_I[among_C]))][:count]
    return {"items": item_I[best_K].tolist(), "scores": [round(float(score), 6) for score in score_I[best_K]]}
