"""Rolling next-item evaluation: for every held-out interaction, rank all items given what the user consumed before.

Every model answers the same cases. A case is a held-out interaction with an item the user had not consumed before; the
items of the history are taken out of the ranking, equal scores are ordered by item id, and an item the model does not
know counts as a miss. Full ranking: sampled metrics are never comparable (Krichene and Rendle, KDD 2020).

Shapes: U users with cases, T one user's interactions, P prefixes, I items of one model, S bootstrap samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trainer.data import FloatArray, IntArray, Interactions, index_of, order_of, sequences

CUTOFF = 10
METRIC_NAMES = ("ndcg_at_10", "hit_rate_at_10")
BOOTSTRAP_SAMPLES = 1000
CONFIDENCE = 0.95

Metrics = dict[str, dict[str, float]]


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


def cases(train: Interactions, holdout: Interactions) -> list[UserCases]:
    """The users of the holdout with at least one case, by user id."""
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
    return found


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
        above_I = score_I > score_I[target]
        above_I[:target] |= score_I[:target] == score_I[target]
        rank_C[case] = 1 + np.count_nonzero(above_I) - np.count_nonzero(above_I[np.unique(history_K[:known])])
    return rank_C


def measure(ranker: Ranker, users: list[UserCases], seed: int = 0) -> Metrics:
    """``{metric: {value, low, high}}``: the mean over cases, and its bootstrap interval over users."""
    if not users:
        return {name: {"value": 0.0, "low": 0.0, "high": 0.0} for name in METRIC_NAMES}
    total_UM = np.array([_sums(ranks(ranker, user)) for user in users])
    count_U = np.array([len(user.position_C) for user in users], dtype=np.float64)
    return summarise(total_UM, count_U, seed)


def _sums(rank_C: IntArray) -> tuple[float, float]:
    hit_C = (rank_C >= 1) & (rank_C <= CUTOFF)
    return float(np.sum(1.0 / np.log2(1.0 + rank_C[hit_C]))), float(np.count_nonzero(hit_C))


def summarise(total_UM: npt.NDArray[np.float64], count_U: npt.NDArray[np.float64], seed: int) -> Metrics:
    value_M = total_UM.sum(axis=0) / count_U.sum()
    draws = np.random.default_rng(seed)
    times_SU = draws.multinomial(len(count_U), np.full(len(count_U), 1 / len(count_U)), size=BOOTSTRAP_SAMPLES)
    sample_SM = (times_SU @ total_UM) / (times_SU @ count_U)[:, None]
    tail = 100 * (1 - CONFIDENCE) / 2
    low_M, high_M = np.percentile(sample_SM, [tail, 100 - tail], axis=0)
    return {
        name: {"value": float(value_M[m]), "low": float(low_M[m]), "high": float(high_M[m])}
        for m, name in enumerate(METRIC_NAMES)
    }
