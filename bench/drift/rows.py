"""Rows to measure: parquet files in a folder, in pieces and row groups, so that none of it is ever whole in memory.

Of every five columns one is normal, one lognormal, one of whole numbers, one rounded to two places with a hundredth of
its values missing, and one of twelve uneven categories. Some columns of the current window are shifted, by less and by
more than what a threshold of 0.1 standard deviations lets pass.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Kind = Literal["numerical", "categorical"]
PIECE_ROWS = 1_000_000
GROUP_ROWS = 131_072
PIECES_MAX = 10
"""A window of more pieces has these again and again, as links: another gigabyte would say nothing new."""

SHAPES = ("normal", "lognormal", "whole", "rounded", "category")
SHIFTS = (0.0, 0.0, 0.05, 0.0, 0.09, 0.11, 0.0, 0.3)
SHARES = np.array([0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.04, 0.03, 0.02, 0.01, 0.007, 0.003])


@dataclass(frozen=True, slots=True)
class Size:
    """Rows of the current window, columns, and rows of the reference."""

    rows: int
    columns: int
    reference: int

    def __str__(self) -> str:
        return f"{_short(self.rows)} x {self.columns:,}"


def kinds(columns: int) -> dict[str, Kind]:
    """The columns by name."""
    return {f"c{i}": "categorical" if _shape(i) == "category" else "numerical" for i in range(columns)}


def write(folder: Path, rows: int, columns: int, *, seed: int, shifted: bool) -> Path:
    """A window of so many rows; returns its folder."""
    folder.mkdir(parents=True)
    starts = range(0, rows, PIECE_ROWS)
    for piece, start in enumerate(starts):
        to = folder / f"{piece:05}.parquet"
        if piece >= PIECES_MAX and rows - start >= PIECE_ROWS:
            os.link(folder / f"{piece % PIECES_MAX:05}.parquet", to)
            continue
        _write(to, min(PIECE_ROWS, rows - start), columns, np.random.default_rng([seed, piece]), shifted)
    return folder


def pieces(folder: Path) -> list[Path]:
    """The files of a window, in order."""
    return sorted(folder.glob("*.parquet"))


def _short(count: int) -> str:
    return f"{count // 1_000_000}M" if count % 1_000_000 == 0 else f"{count // 1_000}k"


def _shape(i: int) -> str:
    return SHAPES[i % len(SHAPES)]


def _write(to: Path, rows: int, columns: int, rng: np.random.Generator, shifted: bool) -> None:
    writer = None
    for start in range(0, rows, GROUP_ROWS):
        count = min(GROUP_ROWS, rows - start)
        table = pa.table(dict(_columns(count, columns, rng, shifted)))
        writer = writer or pq.ParquetWriter(to, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _columns(rows: int, columns: int, rng: np.random.Generator, shifted: bool) -> Iterator[tuple[str, pa.Array]]:
    for i in range(columns):
        shift = SHIFTS[i % len(SHIFTS)] if shifted else 0.0
        yield f"c{i}", _DRAWN[_shape(i)](rows, rng, shift)


def _normal(rows: int, rng: np.random.Generator, shift: float) -> pa.Array:
    return pa.array(rng.normal(shift, 1.0, rows))


def _lognormal(rows: int, rng: np.random.Generator, shift: float) -> pa.Array:
    return pa.array(np.exp(rng.normal(0.0, 0.5, rows)) + shift * 0.604)


def _whole(rows: int, rng: np.random.Generator, shift: float) -> pa.Array:
    return pa.array(rng.poisson(9.0 + 3.0 * shift, rows))


def _rounded(rows: int, rng: np.random.Generator, shift: float) -> pa.Array:
    values = np.round(rng.normal(20.0 + 5.0 * shift, 5.0, rows), 2)
    return pa.array(values, mask=rng.random(rows) < 0.01)


def _category(rows: int, rng: np.random.Generator, shift: float) -> pa.Array:
    shares: NDArray[np.float64] = SHARES.copy()
    shares[:2] += (-0.5 * shift * shares[0], 0.5 * shift * shares[0])
    codes = rng.choice(len(shares), rows, p=shares).astype(np.int8)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([f"name {n}" for n in range(len(shares))]))


_DRAWN = {"normal": _normal, "lognormal": _lognormal, "whole": _whole, "rounded": _rounded, "category": _category}
