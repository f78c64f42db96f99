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

from trainer import ease
from trainer.data import FloatArray, IntArray, catalogue_of, index_of
from trainer.ease import Ease
from trainer.tensors import Tensors

WINDOWS_AT_ONCE = 256
WIDE = "wide."  # what the names of EASE's tensors begin with
BLEND_MAX = 1000.0


@dataclass(frozen=True, slots=True)
class SequenceRanker:
    """Ranks by the causal transformer and ``blend`` times the wide part; an empty history by recent popularity."""

    item_I: IntArray
    popularity_I: FloatArray
    weights: Mapping[str, npt.NDArray[Any]]
    heads: int
    wide: Ease | None = None  # of some of the items
    blend: float = 0.0

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
        self._add_wide(score_PI, history_T, start)
        return score_PI

    def _add_wide(self, score_PI: FloatArray, history_T: IntArray, start: int) -> None:
        """To every row but that of the empty history; items which the wide part does not know stay as they are."""
        if self.wide is None or self.blend == 0:
            return
        place_T = index_of(self.wide.item_I, self.item_I[history_T])
        before_P = np.r_[0, np.cumsum(place_T >= 0)][start:]  # items that it knows, prefix by prefix
        wide_PJ = self.wide.rolling(place_T[place_T >= 0], int(before_P[0]))[before_P - before_P[0]]
        wide_PJ[before_P == 0] = 0.0
        score_PI[:, index_of(self.item_I, self.wide.item_I)] += np.float32(self.blend) * wide_PJ

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
            x_BLD = x_BLD + _sigmoid(_linear(w, name + "gate1", x_BLD)) * _linear(w, name + "out", mixed_BLD)
            left_BLF, right_BLF = np.split(_linear(w, name + "up", _norm(w, name + "norm2", x_BLD)), 2, axis=-1)
            inner_BLF = left_BLF * _sigmoid(left_BLF) * right_BLF
            x_BLD = x_BLD + _sigmoid(_linear(w, name + "gate2", x_BLD)) * _linear(w, name + "down", inner_BLF)
            block += 1
        return _norm(w, "norm", x_BLD)


def load(arrays: Tensors, config: dict[str, Any]) -> SequenceRanker:
    item_I, popularity_I = catalogue_of(arrays)
    beside = {name: array for name, array in arrays.items() if name.startswith(WIDE)}
    weights = {name: arrays[name] for name in arrays.keys() - beside.keys() - {"item_I", "popularity_I"}}
    if {name: array.shape for name, array in weights.items()} != _shapes(weights, len(item_I)):
        raise ValueError("the weights are not those of a transformer over item_I")
    if any(array.dtype != np.float32 for array in weights.values()):
        raise ValueError("the weights must be float32")
    heads, blend = config["heads"], config["blend"]
    if type(heads) is not int or heads < 1 or weights["item_embedding"].shape[1] % heads:
        raise ValueError(f"heads is {heads}; it must divide the dimension")
    if type(blend) not in (int, float) or not 0 <= blend <= BLEND_MAX:
        raise ValueError(f"blend is {blend}; it must be a number from 0 to {BLEND_MAX}")
    wide = ease.load({name.removeprefix(WIDE): array for name, array in beside.items()}, config) if beside else None
    if wide is not None and not np.isin(wide.item_I, item_I).all():
        raise ValueError("the wide part has items that item_I has not")
    return SequenceRanker(item_I, popularity_I, weights, heads, wide, float(blend))


def _shapes(w: Mapping[str, npt.NDArray[Any]], items: int) -> dict[str, tuple[int, ...]]:
    """What every weight's shape must be, given the dimension, the window and the number of blocks."""
    L, D = w["position_embedding"].shape
    layers = {"norm1": (D,), "norm2": (D,), "qkv": (3 * D, D), "up": (4 * D, D), "down": (D, 2 * D)}
    layers |= dict.fromkeys(("out", "gate1", "gate2"), (D, D))
    blocks = range(sum(name.endswith(".qkv.weight") for name in w))
    every = {"norm": (D,)} | {f"blocks.{n}.{name}": shape for n in blocks for name, shape in layers.items()}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in every.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in every.items()}
    return shapes | {"item_embedding": (items, D), "position_embedding": (max(L, 1), max(D, 1)), "item_bias": (items,)}


def _linear(w: Mapping[str, npt.NDArray[Any]], name: str, x: FloatArray) -> FloatArray:
    result: FloatArray = x @ w[name + ".weight"].T + w[name + ".bias"]
    return result


def _norm(w: Mapping[str, npt.NDArray[Any]], name: str, x: FloatArray) -> FloatArray:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    result: FloatArray = centred / np.sqrt(variance + np.float32(1e-5)) * w[name + ".weight"] + w[name + ".bias"]
    return result


def _sigmoid(x: FloatArray) -> FloatArray:
    result: FloatArray = 0.5 + 0.5 * np.tanh(0.5 * x)  # which cannot overflow
    return result


def _softmax(x: FloatArray) -> FloatArray:
    exponential = np.exp(x - x.max(axis=-1, keepdims=True))
    result: FloatArray = exponential / exponential.sum(axis=-1, keepdims=True)
    return result
