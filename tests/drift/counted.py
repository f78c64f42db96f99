"""Profiles of single columns, made as the daemon makes them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from retrainer.drift.counting import (
    CHUNK,
    Categories,
    Numbers,
    count_categories,
    count_numbers,
    merge_categories,
    merge_numbers,
    no_categories,
    no_numbers,
)
from retrainer.drift.grid import CategoryGrid, NumberGrid, category_grid, number_grid
from retrainer.drift.p_value import inflation
from retrainer.drift.values import Values

Held = NumberGrid | CategoryGrid
GRID_ROWS = 200_000


def grid(values: Values) -> Held:
    """As chosen from the first rows of these."""
    some = values[:GRID_ROWS]
    return category_grid(some) if values.dtype == object else number_grid(np.asarray(some, np.float64))


def count(held: Held, values: Values) -> Numbers | Categories:
    """The values as one batch."""
    if isinstance(held, CategoryGrid):
        words, names = pa.array(values, pa.string()).dictionary_encode(), pa.array(held.names, pa.large_string())
        return merge_categories([no_categories(len(held.names)), count_categories(words, names)])
    chunks = (np.array(values[at : at + CHUNK], np.float64) for at in range(0, len(values), CHUNK))
    return merge_numbers([no_numbers(len(held.edges) + 1), *(count_numbers(chunk, held.edges) for chunk in chunks)])


def reference(held: Held, values: Values, batches: Sequence[int]) -> Numbers | Categories:
    """The values as batches of so many rows."""
    edges = [0, *np.cumsum(batches).tolist()]
    parts = [count(held, values[a:b]) for a, b in pairwise(edges)]
    numbers = [part for part in parts if isinstance(part, Numbers)]
    names = [part for part in parts if isinstance(part, Categories)]
    whole = merge_numbers(numbers) if numbers else merge_categories(names)
    return replace(whole, inflation=inflation(parts))
