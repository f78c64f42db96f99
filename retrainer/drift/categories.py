"""Two windows' categories by name, null among them, and what is not known of those that are not counted by name."""

from dataclasses import dataclass

import numpy as np

from retrainer.drift.columns import NULL
from retrainer.drift.counting import Categories
from retrainer.drift.divergences import Bounds, Table
from retrainer.drift.grid import CategoryGrid
from retrainer.drift.values import Ints


@dataclass(frozen=True, slots=True)
class Union:
    """The categories of both windows, each with a row in one of them: `counts` has a row for each window.

    `rest` are the rows of the reference and of the current window whose categories are not all counted exactly; none of
    these categories is among `names`.
    """

    names: tuple[str, ...]
    counts: Ints
    rest: tuple[int, int] = (0, 0)

    @property
    def table(self) -> Table:
        """The same without names."""
        return Table(self.counts, np.array(self.rest, dtype=np.int64)[:, None])

    @property
    def rows(self) -> tuple[int, int]:
        """Of the reference and of the current window, nulls among them."""
        old, new = (int(n) for n in self.counts.sum(axis=1))
        return old + self.rest[0], new + self.rest[1]

    @property
    def unseen(self) -> Bounds:
        """The share of the current rows in a category that the reference does not have, at least and at most.

        Null is none of them: that it appears is for the missing-share test.
        """
        new = int(self.counts[1, (self.counts[0] == 0) & (np.array(self.names, dtype=object) != NULL)].sum())
        least = new if self.rest[0] else new + self.rest[1]
        return least / self.rows[1], (new + self.rest[1]) / self.rows[1]


def union(grid: CategoryGrid, reference: Categories, current: Categories) -> Union:
    """Of two windows, one at least with rows. If either has rows without a name, only the grid's names are exact."""
    windows = reference, current
    by_name = not reference.other and not current.other
    more = tuple({**reference.unseen, **current.unseen}) if by_name else ()
    names = (*grid.names, *more, NULL)
    counts = np.array([[*(w.unseen.get(name, 0) for name in more), w.nulls] for w in windows], np.int64)
    counts = np.concatenate((np.stack([w.counts for w in windows]), counts), axis=1)
    if NULL in names[:-1]:  # a text that reads like our name for null is taken for one
        counts[:, names.index(NULL)] += counts[:, -1]
        counts[:, -1] = 0
    held = np.flatnonzero(counts.sum(axis=0))
    old, new = (0 if by_name else sum(w.unseen.values()) + w.other for w in windows)
    return Union(tuple(names[i] for i in held), counts[:, held], (old, new))
