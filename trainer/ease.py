"""EASE: item-item weights in closed form; the baseline that is hard to beat and the fallback that cannot diverge.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8: with the Gram matrix G = X'X of the
user-item matrix and P = (G + lambda I)^-1, the weights are B = -P / diag(P) with a zero diagonal.
Ours adds three things, each of which can be switched off:

- ``halflife``: a history is weighted towards its end when it is scored, because the next item depends on the last
  sitting more than on the first.
- ``user_exponent`` b and ``item_exponent`` a: users with many items and items with many users count for less,
  G = D_I^-a X' D_U^-b X D_I^-a (Park et al., "Why is Normalization Necessary for Linear Recommenders?", SIGIR 2025).
  Scores stay on the scale of the normalised items, which takes some of an item's popularity out of them.
- ``rank``: only the largest eigenvalues of G are kept; the rest is taken for noise, which on little data it mostly is
  (Cremonesi et al., RecSys 2010, PureSVD). Nothing is inverted then.

MovieLens-100K, 75/25, five seeds of the split, one core of an AMD EPYC: nDCG@10 .4877 +- .0015 with b = 1, a = .25
and rank 20, in 0.09 CPU s, all users served; Steck's own .4799 +- .0019 in 0.32 (`bench/trainer/sets.py`). For the next
item on MovieLens latest-small, 2000-2003, b = .5 loses 7 % and a = .1 gains 1 %: the defaults are Steck's but for the
halflife.

Shapes: U users, I items kept, K neighbours kept an item, R rank, T history, P = T - start + 1 prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer import data, ranking
from trainer.contract import parse_hyperparameters, setting
from trainer.data import FloatArray, IntArray, Interactions, catalogue, index_of, sequences
from trainer.families import Job, Trained
from trainer.popularity import recent_counts
from trainer.progress import say
from trainer.tensors import Tensors

ITEMS_MAX = 20_000  # 1.6 GB of weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    model: str = setting("ease", choices=("ease",))
    generation: int = setting(0, low=0)
    seed: int = setting(0, low=0)  # nothing is drawn; taken so that every family takes it
    regularisation: float = setting(200.0, low=1e-3, high=1e6)
    user_exponent: float = setting(0.0, low=0.0, high=2.0)  # 0 is Steck's own; 1: every user counts the same
    item_exponent: float = setting(0.0, low=0.0, high=1.0)  # 0 is Steck's own; 0.5: every item counts the same
    rank: int = setting(0, low=0, high=20_000)  # 0: all of it
    halflife: float = setting(5.0, low=0.1, high=1e6)  # items; a very long one is Steck's own, unweighted score
    count_min: int = setting(3, low=1, high=1_000_000)
    items_max: int = setting(2500, low=1, high=ITEMS_MAX)  # the inverse: 1.1 CPU s at 2,500, and with the cube
    neighbours: int = setting(200, low=1, high=20_000)
    validation_share: float = setting(0.05, low=0.0, high=0.5)


@dataclass(frozen=True, slots=True)
class Ease:
    item_I: IntArray
    popularity_I: FloatArray
    weight_II: FloatArray
    halflife: float

    def rolling(self, history_T: IntArray, start: int) -> FloatArray:
        """Scores of the next item after each of the prefixes ``history_T[:start]`` to ``history_T[:T]``."""
        decay = np.float32(0.5 ** (1.0 / self.halflife))
        score_PI = np.empty((len(history_T) - start + 1, len(self.item_I)), dtype=np.float32)
        before_S, share_S = history_T[:start], decay ** np.arange(start - 1, -1, -1, dtype=np.float32)
        if start > len(self.item_I):  # else a request of 6 MB, three million times one item, would take 30 GB
            before_S, place_S = np.unique(before_S, return_inverse=True)
            share_S = np.bincount(place_S, share_S).astype(np.float32)
        score_I = share_S @ self.weight_II[before_S]
        score_PI[0] = score_I if start else self.popularity_I
        for row, item in enumerate(history_T[start:], start=1):
            score_I = score_I * decay + self.weight_II[item]
            score_PI[row] = score_I
        return score_PI


def train(job: Job) -> Trained:
    """Fits twice: without the validation rows to measure, then on all rows, the newest ones too."""
    p = job.p
    rows = data.read(*job.paths.learned)
    earlier, validation = data.validation_split(rows, p.validation_share)
    users = ranking.cases_of(earlier, validation)
    metrics = ranking.measure(fit(earlier, p), users) if users else {}
    say("validated", rows=len(rows), **{name: metric["value"] for name, metric in metrics.items()})
    return Trained(
        arrays=tensors_of(fit(rows, p), p.neighbours),
        config={"family": "ease", "halflife": p.halflife},
        metrics=metrics,
        rows=len(rows),
        first_at=int(rows.time_N[0]),
        last_at=int(rows.time_N[-1]),
        parent=None,
    )


def tensors_of(model: Ease, neighbours: int) -> Tensors:
    """The weights of an item as its ``neighbours`` largest: 4 MB instead of 25 at the default size."""
    width = max(1, min(neighbours, len(model.item_I)))
    place_IK = np.argsort(-np.abs(model.weight_II), axis=1, kind="stable")[:, :width]
    return {
        "item_I": model.item_I,
        "popularity_I": model.popularity_I,
        "neighbour_IK": place_IK.astype(np.int32),
        "weight_IK": np.take_along_axis(model.weight_II, place_IK, axis=1),
    }


def load(arrays: Tensors, config: dict[str, Any]) -> Ease:
    item_I, popularity_I = data.catalogue_of(arrays)
    place_IK, weight_IK = arrays["neighbour_IK"], arrays["weight_IK"]
    if len(item_I) > ITEMS_MAX:  # before a matrix of so many rows and columns is made
        raise ValueError(f"{len(item_I)} items; at most {ITEMS_MAX}")
    if weight_IK.dtype != np.float32 or place_IK.dtype != np.int32 or place_IK.shape != weight_IK.shape:
        raise ValueError("neighbour_IK must be int32, weight_IK float32, both of one shape")
    if place_IK.ndim != 2 or len(place_IK) != len(item_I) or np.any((place_IK < 0) | (place_IK >= len(item_I))):
        raise ValueError("neighbour_IK must name places of item_I, a row an item")
    p = parse_hyperparameters(Hyperparameters, {"halflife": str(config["halflife"])})
    weight_II: FloatArray = np.zeros((len(item_I), len(item_I)), dtype=np.float32)
    np.put_along_axis(weight_II, place_IK.astype(np.int64), weight_IK, axis=1)
    return Ease(item_I, popularity_I, weight_II, p.halflife)


def fit(train: Interactions, parameters: Hyperparameters) -> Ease:
    item_I = _frequent_items(train, parameters)
    gram_II = _gram(train, item_I, parameters.user_exponent)
    factor_I = _normalise(gram_II, parameters.item_exponent)
    if 0 < parameters.rank < len(item_I):
        weight_II = low_rank(gram_II, parameters.rank, parameters.regularisation)
    else:
        weight_II = closed_form(gram_II, parameters.regularisation)
    weight_II *= factor_I[:, None]
    _keep_largest(weight_II, parameters.neighbours)
    return Ease(item_I, recent_counts(train, item_I), weight_II, parameters.halflife)


def closed_form(gram_II: FloatArray, regularisation: float) -> FloatArray:
    """The weights; the Gram matrix is used up, because a copy of it is what memory is short of."""
    gram_II[np.diag_indices_from(gram_II)] += np.float32(regularisation)
    weight_II: FloatArray = np.linalg.inv(gram_II)
    weight_II /= -np.diag(weight_II)
    np.fill_diagonal(weight_II, 0.0)
    return weight_II


def low_rank(gram_II: FloatArray, rank: int, regularisation: float) -> FloatArray:
    """``closed_form`` of the Gram matrix's best approximation of this rank.

    With V diag(w) V' that approximation and A = V diag(w / (w + lambda)) V', (V diag(w) V' + lambda I)^-1 is
    (I - A) / lambda, so that B_ij is A_ij / (1 - A_jj).
    """
    w_R, v_IR = _largest_eigenvectors(gram_II, rank)
    weight_II: FloatArray = (v_IR * (w_R / (w_R + np.float32(regularisation)))) @ v_IR.T
    weight_II /= 1.0 - np.diag(weight_II)
    np.fill_diagonal(weight_II, 0.0)
    return weight_II


def _largest_eigenvectors(gram_II: FloatArray, rank: int) -> tuple[FloatArray, FloatArray]:
    """By subspace iteration with ten directions too many (Halko, Martinsson and Tropp, SIAM Review 2011)."""
    width = min(len(gram_II), rank + 10)
    q_IS: FloatArray = np.random.default_rng(0).standard_normal((len(gram_II), width), dtype=np.float32)
    for _ in range(8):
        q_IS = np.linalg.qr(gram_II @ q_IS)[0]
    w_S, v_SS = np.linalg.eigh(q_IS.T @ gram_II @ q_IS)
    return np.maximum(w_S[-rank:], 0.0), q_IS @ v_SS[:, -rank:]


def _frequent_items(train: Interactions, parameters: Hyperparameters) -> IntArray:
    """The most frequent items, ties by id; always at least one."""
    item_I = catalogue(train)
    count_I = np.bincount(index_of(item_I, train.item_N), minlength=len(item_I))
    order_I = np.lexsort((item_I, -count_I))[: parameters.items_max]
    kept_I = order_I[count_I[order_I] >= min(parameters.count_min, int(count_I.max()))]
    return np.sort(item_I[kept_I])


def _gram(train: Interactions, item_I: IntArray, user_exponent: float) -> FloatArray:
    """How many users had both items, a user of n items counting n^-user_exponent, scaled to the trace it has unscaled.

    Users in blocks, so that memory stays at I x I + 1,024 x I.
    """
    gram_II = np.zeros((len(item_I), len(item_I)), dtype=np.float32)
    place_N = index_of(item_I, train.item_N)
    block_UI = np.zeros((1024, len(item_I)), dtype=np.float32)
    row, trace = 0, 0
    for _user, position_T in sequences(train):
        place_T = np.unique(place_N[position_T])
        place_T = place_T[place_T >= 0]
        block_UI[row, place_T] = max(1, len(place_T)) ** (-user_exponent / 2)
        trace += len(place_T)
        row += 1
        if row == len(block_UI):
            gram_II += block_UI.T @ block_UI
            block_UI[:] = 0.0
            row = 0
    gram_II += block_UI[:row].T @ block_UI[:row]
    gram_II *= np.float32(trace / np.trace(gram_II))
    return gram_II


def _normalise(gram_II: FloatArray, item_exponent: float) -> FloatArray:
    """Scales the Gram matrix by n^-item_exponent on both sides, n its diagonal, and keeps its trace; the factors.

    With the trace kept, the regularisation means the same whatever the exponents are.
    """
    count_I = np.diag(gram_II).copy()
    factor_I: FloatArray = count_I ** np.float32(-item_exponent)
    factor_I *= np.sqrt(count_I.sum() / (factor_I**2 * count_I).sum())
    gram_II *= factor_I[:, None]
    gram_II *= factor_I
    return factor_I


def _keep_largest(weight_II: FloatArray, neighbours: int) -> None:
    """Zeroes all but the ``neighbours`` largest weights (by size) of each row."""
    if neighbours >= weight_II.shape[1]:
        return
    for first in range(0, len(weight_II), 256):
        block_BI = weight_II[first : first + 256]
        size_BI = np.abs(block_BI)
        bound_B = np.partition(size_BI, -neighbours, axis=1)[:, -neighbours]
        block_BI[size_BI < bound_B[:, None]] = 0.0
