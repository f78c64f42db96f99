"""MovieLens-100K, and the three ways in which its figures are split.

`set_split` is `python_stratified_split(ratio=0.75)` of microsoft/recommenders: of every user's interactions a random
three quarters train, the rest is the set to find. `leave_one_out` is the field's sequential protocol: each user's last
item is the test, the one before it the validation. `rolling` cuts time, as a retraining does: every interaction after
the cut is a case, ranked given all that its user did before it, by a model of what came before the cut.
Ties within a second are broken as `trainer.data.order_of` breaks them: by a hash of the item, not by the file's order.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data import Interactions, in_order, sequences

MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Settings are chosen with `fit` and `validation`; figures are of a model of `train` on `test`."""

    fit: Interactions
    validation: Interactions
    train: Interactions  # fit and validation together
    test: Interactions


def read(wheel: Path) -> Interactions:
    """All 100,000 ratings as interactions, whatever the rating, from RecBole's wheel: a zip, not imported."""
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as lines:
        table_NC = np.loadtxt(lines, dtype=np.float64, delimiter="\t", skiprows=1)
    user_N, item_N, _rating_N, second_N = table_NC.astype(np.int64).T
    return in_order(user_N, item_N, second_N * 1_000_000)


def set_split(rows: Interactions, seed: int, train_share: float = 0.75) -> tuple[Interactions, Interactions]:
    """`(train, test)`; a user with T interactions keeps round(train_share x T) of them, drawn at random."""
    place_N = np.random.default_rng(seed).random(len(rows))
    kept_N = np.zeros(len(rows), dtype=bool)
    for _user, position_T in sequences(rows):
        drawn_T = position_T[np.argsort(place_N[position_T])]
        kept_N[drawn_T[: round(train_share * len(drawn_T))]] = True
    return rows_where(rows, kept_N), rows_where(rows, ~kept_N)


def leave_one_out(rows: Interactions) -> Split:
    """The last item of each user is the test, the one before it the validation; a user needs three interactions."""
    left_N = np.zeros(len(rows), dtype=np.int64)  # how many of the user's interactions come later
    for _user, position_T in sequences(rows):
        left_N[position_T] = np.arange(len(position_T))[::-1] if len(position_T) > 2 else 2
    return Split(
        fit=rows_where(rows, left_N >= 2),
        validation=rows_where(rows, left_N == 1),
        train=rows_where(rows, left_N >= 1),
        test=rows_where(rows, left_N == 0),
    )


def rolling(rows: Interactions, test_share: float = 0.2) -> Split:
    """The last `test_share` of the interactions by time is the test, as much before it the validation."""
    second, first = (round(len(rows) * (1 - times * test_share)) for times in (1, 2))
    return Split(
        fit=rows.rows(slice(0, first)),
        validation=rows.rows(slice(first, second)),
        train=rows.rows(slice(0, second)),
        test=rows.rows(slice(second, None)),
    )


def rows_where(rows: Interactions, chosen_N: npt.NDArray[np.bool_]) -> Interactions:
    return Interactions(user_N=rows.user_N[chosen_N], item_N=rows.item_N[chosen_N], time_N=rows.time_N[chosen_N])
