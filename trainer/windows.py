"""What a sequence model is fed: histories cut into windows, and after a warm start only some of these.

Shapes: T one user's history, L window, B windows.
"""

from __future__ import annotations

import math

import numpy as np

from trainer.data import IntArray


def cut(sequences: list[IntArray], L: int, padding: int, draws: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Every sequence cut at random into pieces of at most L + 1 items that share their ends; rows shuffled.

    Also each piece's user and the place of its last item there: [B, 2].
    """
    pieces, places = [], []
    for user, index_T in enumerate(sequences):
        steps = len(index_T) - 1
        if steps < 1:
            continue
        cuts = np.arange(draws.integers(1, L + 1), steps, L) if steps > L else np.zeros(0, dtype=np.int64)
        for begin, end in zip(np.r_[0, cuts], np.r_[cuts, steps], strict=True):
            piece_L = np.full(L + 1, padding, dtype=np.int64)
            piece_L[: end - begin + 1] = index_T[begin : end + 1]
            pieces.append(piece_L)
            places.append((user, end))
    if not pieces:
        return np.zeros((0, L + 1), dtype=np.int64), np.zeros((0, 2), dtype=np.int64)
    order_B = draws.permutation(len(pieces))
    return np.stack(pieces)[order_B], np.array(places)[order_B]


def with_replay(place_B2: IntArray, old_U: list[int], replay: float, draws: np.random.Generator) -> IntArray:
    """Which windows a warm start learns from: those with new rows, and ``replay`` old ones for each, in their order."""
    is_new_B = place_B2[:, 1] >= np.array(old_U)[place_B2[:, 0]]
    if not is_new_B.any():
        return np.arange(len(place_B2))
    old = np.flatnonzero(~is_new_B)
    again = draws.permutation(old)[: math.ceil(replay * np.count_nonzero(is_new_B))]
    return np.sort(np.r_[np.flatnonzero(is_new_B), again])
