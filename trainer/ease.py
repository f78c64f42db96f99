"""EASE: item-item weights in closed form; the baseline that is hard to beat and the fallback that cannot diverge.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8: with the Gram matrix G = X'X of the
user-item matrix and P = (G + lambda I)^-1, the weights are B = -P / diag(P) with a zero diagonal.
Ours differs in one thing: a history is weighted towards its end when it is scored (``halflife``), because the next item
depends on the last sitting more than on the first.

Shapes: U users, I items kept, K neighbours kept an item, T history, P = T - start + 1 prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.contract import setting
from trainer.data import FloatArray, IntArray, Interactions, catalogue, index_of, sequences
from trainer.popularity import recent_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class EaseHyperparameters:
    model: str = setting("ease", choices=("ease",))
    generation: int = setting(0, low=0)
    seed: int = setting(0, low=0)  # nothing is drawn; taken so that every family takes it
    regularisation: float = setting(200.0, low=1e-3, high=1e6)
    halflife: float = setting(5.0, low=0.1, high=1e6)  # items; a very long one is Steck's own, unweighted score
    count_min: int = setting(3, low=1, high=1_000_000)
    items_max: int = setting(2500, low=1, high=20_000)  # the inverse takes 1.1 CPU s at 2,500 and grows with the cube
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
        age_S = np.arange(start - 1, -1, -1, dtype=np.float32)
        score_I = (decay**age_S) @ self.weight_II[history_T[:start]]
        score_PI[0] = score_I if start else self.popularity_I
        for row, item in enumerate(history_T[start:], start=1):
            score_I = score_I * decay + self.weight_II[item]
            score_PI[row] = score_I
        return score_PI


def train(train: Interactions, parameters: EaseHyperparameters) -> Ease:
    item_I = _frequent_items(train, parameters)
    gram_II = _gram(train, item_I)
    weight_II = closed_form(gram_II, parameters.regularisation)
    _keep_largest(weight_II, parameters.neighbours)
    return Ease(item_I, recent_counts(train, item_I), weight_II, parameters.halflife)


def closed_form(gram_II: FloatArray, regularisation: float) -> FloatArray:
    """The weights; the Gram matrix is used up, because a copy of it is what memory is short of."""
    gram_II[np.diag_indices_from(gram_II)] += np.float32(regularisation)
    weight_II: FloatArray = np.linalg.inv(gram_II)
    weight_II /= -np.diag(weight_II)
    np.fill_diagonal(weight_II, 0.0)
    return weight_II


def _frequent_items(train: Interactions, parameters: EaseHyperparameters) -> IntArray:
    """The most frequent items, ties by id; always at least one."""
    item_I = catalogue(train)
    count_I = np.bincount(index_of(item_I, train.item_N), minlength=len(item_I))
    order_I = np.lexsort((item_I, -count_I))[: parameters.items_max]
    kept_I = order_I[count_I[order_I] >= min(parameters.count_min, int(count_I.max()))]
    return np.sort(item_I[kept_I])


def _gram(train: Interactions, item_I: IntArray) -> FloatArray:
    """How many users had both items: users in blocks, so that memory stays at I x I + 1,024 x I."""
    gram_II = np.zeros((len(item_I), len(item_I)), dtype=np.float32)
    place_N = index_of(item_I, train.item_N)
    block_UI = np.zeros((1024, len(item_I)), dtype=np.float32)
    row = 0
    for _user, position_T in sequences(train):
        place_T = place_N[position_T]
        block_UI[row, place_T[place_T >= 0]] = 1.0
        row += 1
        if row == len(block_UI):
            gram_II += block_UI.T @ block_UI
            block_UI[:] = 0.0
            row = 0
    gram_II += block_UI[:row].T @ block_UI[:row]
    return gram_II


def _keep_largest(weight_II: FloatArray, neighbours: int) -> None:
    """Zeroes all but the ``neighbours`` largest weights (by size) of each row."""
    if neighbours >= weight_II.shape[1]:
        return
    for first in range(0, len(weight_II), 256):
        block_BI = weight_II[first : first + 256]
        size_BI = np.abs(block_BI)
        bound_B = np.partition(size_BI, -neighbours, axis=1)[:, -neighbours]
        block_BI[size_BI < bound_B[:, None]] = 0.0
