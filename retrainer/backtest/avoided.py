"""What each retraining was good for: the loss that its predecessor would have had in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from retrainer.backtest.results import Result, Retraining

Learned = tuple[int, ...]
"""The indexes of the batches that a model was trained on."""


class Scored(Protocol):
    """Models that can be scored on any batch; see models.Models."""

    def losses(self, learned: Learned, scored: Sequence[int]) -> list[tuple[float, int]]:
        """The sum of losses and the number of labels on each batch."""
        ...


def with_avoided(result: Result, models: Scored, learned: Mapping[int, Learned]) -> Result:
    """The result with `avoided` at every promoted retraining but the first; `learned` is each generation's manifest."""
    told: list[Retraining] = []
    champion: int | None = None
    for retraining in result.retrainings:
        if retraining.promoted_at is not None:
            if champion is not None and not retraining.first:
                retraining = replace(
                    retraining, avoided=_avoided(result, models, learned[champion], retraining.generation)
                )
            champion = retraining.generation
        told.append(retraining)
    return replace(result, retrainings=tuple(told))


def _avoided(result: Result, models: Scored, before: Learned, generation: int) -> float:
    own = [s for s in result.served if s.generation == generation]
    theirs = models.losses(before, [s.index for s in own])
    return sum(loss for loss, _ in theirs) - sum(s.loss_sum or 0.0 for s in own)
