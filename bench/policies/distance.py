"""How far a batch's features are from a champion's training rows: Jensen-Shannon, column by column."""

import numpy as np
from numpy.typing import NDArray

from bench.policies.game import Floats
from bench.policies.matrices import Played, trained_rows

BINS = 10
CATEGORIES_MAX = 120


class Distances:
    """Every (champion, batch, how many batches together) at once; numbers are cut at the first batch's deciles."""

    def __init__(self, played: Played) -> None:
        self._played = played
        self._cuts = [trained_rows(int(end)) for end in played.bounds[1:]]
        first = played.features[: played.bounds[1]]
        self._counts = [
            _running(column, first[:, k], played.names[k] in played.categorical)
            for k, column in enumerate(played.features.T)
        ]
        self._known: dict[tuple[int, int, int], Floats] = {}

    def of(self, model: int, t: int, width: int, over: str) -> float:
        """The mean over the columns, or the most, of batch t and the `width - 1` before it against a model's rows."""
        key = (model, t, width)
        if key not in self._known:
            start, end = int(self._played.bounds[max(t + 1 - width, 0)]), int(self._played.bounds[t + 1])
            each = [_jensen_shannon(c[self._cuts[model]], c[end] - c[start]) for c in self._counts]
            self._known[key] = np.array([np.mean(each), np.max(each)])
        return float(self._known[key][1 if over == "most" else 0])


def _running(column: Floats, first: Floats, categorical: bool) -> NDArray[np.int32]:
    """`result[r, b]`: how many of the first r rows lie in bin b; the last bin is for nulls."""
    if categorical:
        codes = np.where(np.isnan(column), -1, np.minimum(column, CATEGORIES_MAX)).astype(int)
        size = CATEGORIES_MAX + 2
    else:
        known = first[~np.isnan(first)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.zeros(1)
        codes = np.where(np.isnan(column), -1, np.searchsorted(edges, column, side="right"))
        size = len(edges) + 2
    hot = np.zeros((len(column) + 1, size), dtype=np.int32)
    hot[np.arange(len(column)) + 1, codes] = 1
    return np.cumsum(hot, axis=0, dtype=np.int32)


def _jensen_shannon(one: NDArray[np.int32], other: NDArray[np.int32]) -> float:
    p, q = one / max(one.sum(), 1), other / max(other.sum(), 1)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
    return float(np.sqrt(max(parts.sum() / 2, 0.0)))
