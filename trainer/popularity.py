"""Popularity and recent popularity: the comparators every model has to beat, and the fallback for an unknown user.

On a split by time recent popularity is hard to beat (nDCG@10 .216 on MovieLens-100K, above every trained model), so a
gate without it proves nothing. Shapes: N interactions, I items, T history, P = T - start + 1 prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.data import FloatArray, IntArray, Interactions, catalogue, index_of

RECENT_SHARE = 0.1  # of the rows, by time


@dataclass(frozen=True, slots=True)
class Popularity:
    """Ranks by one fixed score an item, whoever asks."""

    item_I: IntArray
    popularity_I: FloatArray

    def rolling(self, history_T: IntArray, start: int) -> FloatArray:
        return np.broadcast_to(self.popularity_I, (len(history_T) - start + 1, len(self.item_I)))


def popularity(train: Interactions) -> Popularity:
    item_I = catalogue(train)
    return Popularity(item_I, _counts(train, item_I))


def recent_popularity(train: Interactions, share: float = RECENT_SHARE) -> Popularity:
    """Counts among the last ``share`` of the rows; overall counts, scaled below one, order the rest."""
    item_I = catalogue(train)
    return Popularity(item_I, recent_counts(train, item_I, share))


def recent_counts(train: Interactions, item_I: IntArray, share: float = RECENT_SHARE) -> FloatArray:
    recent = train.rows(slice(len(train) - max(1, int(len(train) * share)), None))
    return _counts(recent, item_I) + _counts(train, item_I) / np.float32(len(train) + 1)


def _counts(interactions: Interactions, item_I: IntArray) -> FloatArray:
    place_N = index_of(item_I, interactions.item_N)
    return np.bincount(place_N[place_N >= 0], minlength=len(item_I)).astype(np.float32)
