"""The forward pass of ``recommender.py`` in numpy: serving and evaluating go without torch (3.4 CPU s to import).

Same weights, same names, same result to 1e-4 (tests/trainer/test_recommender.py holds the two together).

Shapes: I items, L window, D dimension, H heads, B windows, T history, P = T - start + 1 prefixes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data import FloatArray, IntArray

WINDOWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class SequenceRanker:
    """Ranks by the causal transformer; an empty history by recent popularity."""

    item_I: IntArray
    popularity_I: FloatArray
    weights: Mapping[str, npt.NDArray[Any]]
    heads: int

    def rolling(self, history_T: IntArray, start: int) -> FloatArray:
        """Scores of the next item after each of the prefixes ``history_T[:start]`` to ``history_T[:T]``.

        Only the last L items count. Many prefixes share one window of L items, each seeing at least L / 2 of them.
        """
        score_PI = np.empty((len(history_T) - start + 1, len(self.item_I)), dtype=np.float32)
        row = 0
        if start == 0:
            score_PI[0] = self.popularity_I
            row = 1
        windows, wanted = self._windows(len(history_T), start + row)
        for first in range(0, len(windows), WINDOWS_AT_ONCE):
            chunk = windows[first : first + WINDOWS_AT_ONCE]
            hidden_BLD = self._hidden(np.stack([history_T[begin:end] for begin, end in chunk]))
            for hidden_LD, count in zip(hidden_BLD, wanted[first : first + WINDOWS_AT_ONCE], strict=True):
                score_PI[row : row + count] = hidden_LD[len(hidden_LD) - count :] @ self.weights["item_embedding"].T
                row += count
        if start < len(history_T) or start > 0:
            score_PI[1 if start == 0 else 0 :] += self.weights["item_bias"]
        return score_PI

    def _windows(self, length: int, prefix: int) -> tuple[list[tuple[int, int]], list[int]]:
        """Windows ``[begin, end)`` of equal size that together cover the prefixes, and how many each answers."""
        L = len(self.weights["position_embedding"])
        windows, wanted = [], []
        while prefix <= length:
            end = min(length, max(L, prefix + L // 2))
            begin = max(0, end - L)
            windows.append((begin, end))
            wanted.append(end - prefix + 1)
            prefix = end + 1
        return windows, wanted

    def _hidden(self, index_BL: IntArray) -> FloatArray:
        w = self.weights
        B, L = index_BL.shape
        D = w["item_embedding"].shape[1]
        future_LL = np.triu(np.full((L, L), -np.inf, dtype=np.float32), k=1)
        x_BLD = w["item_embedding"][index_BL] * np.float32(D**0.5) + w["position_embedding"][:L]
        block = 0
        while f"blocks.{block}.qkv.weight" in w:
            name = f"blocks.{block}."
            qkv_BLE = _linear(w, name + "qkv", _norm(w, name + "norm1", x_BLD))
            q, k, v = qkv_BLE.reshape(B, L, 3, self.heads, D // self.heads).transpose(2, 0, 3, 1, 4)
            attention_BHLL = _softmax(q @ k.swapaxes(-1, -2) * np.float32((D // self.heads) ** -0.5) + future_LL)
            mixed_BLD = (attention_BHLL @ v).swapaxes(1, 2).reshape(B, L, D)
            x_BLD = x_BLD + _linear(w, name + "out", mixed_BLD)
            inner_BLF = np.maximum(_linear(w, name + "up", _norm(w, name + "norm2", x_BLD)), np.float32(0))
            x_BLD = x_BLD + _linear(w, name + "down", inner_BLF)
            block += 1
        return _norm(w, "norm", x_BLD)


def _linear(w: Mapping[str, npt.NDArray[Any]], name: str, x: FloatArray) -> FloatArray:
    result: FloatArray = x @ w[name + ".weight"].T + w[name + ".bias"]
    return result


def _norm(w: Mapping[str, npt.NDArray[Any]], name: str, x: FloatArray) -> FloatArray:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    result: FloatArray = centred / np.sqrt(variance + np.float32(1e-5)) * w[name + ".weight"] + w[name + ".bias"]
    return result


def _softmax(x: FloatArray) -> FloatArray:
    exponential = np.exp(x - x.max(axis=-1, keepdims=True))
    result: FloatArray = exponential / exponential.sum(axis=-1, keepdims=True)
    return result
