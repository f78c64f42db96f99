"""How often a p-value is small although nothing has changed, and how often Evidently's default calls that drift.

Windows are drawn one by one, independent of each other, against references of 20,000 rows in fifty batches. A p-value
is right when at most one in a hundred is below 0.01, and one in a thousand below 0.001.
"""

from collections.abc import Sequence

import numpy as np

from bench.stationary.rules import flagged
from bench.stationary.world import Floats, Shape, drawn, known

SHAPES: tuple[Shape, ...] = (
    "normal",
    "lognormal",
    "autocorrelated",
    "2 categories",
    "10 categories",
    "50 categories",
    "500 categories",
)
WINDOWS = (100, 1_000, 10_000, 100_000)
LEVELS = (0.01, 0.001)
REFERENCES, REFERENCE_ROWS = 40, 20_000
WINDOWS_MAX, ROWS_MAX = 10_000, 40_000_000
"""Of each shape and size; of large windows as many as have so many rows."""

FLAGGED = 80
"""Windows that Evidently's default is asked about: 5 to 40 ms each."""


def table(share: float, seed: int) -> tuple[Sequence[str], list[list[str]]]:
    """The head and the rows: for each size of window three shares in per cent, and one row a shape."""
    head = ["column", *(f"{rows:,} rows" for rows in WINDOWS)]
    return head, [[shape, *(_cell(shape, rows, share, seed) for rows in WINDOWS)] for shape in SHAPES]


def _cell(shape: Shape, rows: int, share: float, seed: int) -> str:
    rng = np.random.default_rng([seed, SHAPES.index(shape), rows])
    windows = max(REFERENCES, int(share * min(WINDOWS_MAX, ROWS_MAX // rows)))
    found, flags = [], []
    for number in range(REFERENCES):
        reference = drawn(shape, REFERENCE_ROWS, rng)
        told = known(shape, reference)
        found += [told.p_value(_window(shape, rows, rng)) for _ in range(windows // REFERENCES)]
        if number % (REFERENCES // 10) == 0:
            flags += [
                flagged(shape, reference, _window(shape, rows, rng)) for _ in range(max(1, int(share * FLAGGED / 10)))
            ]
    told_shares = [f"{100 * float(np.mean(np.array(found) <= level)):.2f}" for level in LEVELS]
    print(shape, rows, len(found), told_shares, f"{np.mean(flags):.0%}", flush=True)
    return f"{' / '.join(told_shares)} / {100 * float(np.mean(flags)):.0f}"


def _window(shape: Shape, rows: int, rng: np.random.Generator) -> Floats:
    return drawn(shape, rows, rng)
