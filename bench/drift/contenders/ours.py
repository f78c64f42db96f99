"""The daemon's own way: a window is profiled as a stream on a stored grid, and compared with a stored reference.

A column whose certified interval has its threshold in it is decided by Evidently's test on the rows of that column
alone, as the worker does; what Evidently's import then takes is counted.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.drift.rows import pieces
from retrainer.adapters.datasets import formats
from retrainer.adapters.datasets.formats import Asked, Rows, Want
from retrainer.core.policy import Column
from retrainer.drift import columns as drift_columns
from retrainer.drift import values
from retrainer.drift.distances import decided, score
from retrainer.drift.grid import Grid, Spec, choose
from retrainer.drift.p_value import p_value
from retrainer.drift.profile import Builder, Profile, merge
from retrainer.drift.profile import reference as of_batches
from retrainer.drift.stored import dump, load_grid, load_profile

TEST = {"numerical": "wasserstein", "categorical": "jensenshannon"}
NUMBER, NAME = Column(kind="numerical", test="wasserstein"), Column(kind="categorical", test="jensenshannon")
ASIDES: dict[str, object] = {}


def reference(folder: Path, columns: dict[str, str], stored: Path) -> None:
    """The grid, and the profile of the reference on it."""
    sample = (_canonical(rows) for file in pieces(folder) for rows in _stream(file, columns))
    grid = choose(sample, _spec(columns))
    (stored / "grid").write_bytes(dump(grid))
    (stored / "reference").write_bytes(dump(of_batches([_profile(file, grid, columns) for file in pieces(folder)])))


def verdict(reference: Path, current: Path, columns: dict[str, str], stored: Path) -> dict[str, tuple[float, bool]]:
    """The evidence on every column: score, p-value and verdict."""
    grid = load_grid((stored / "grid").read_bytes())
    known = load_profile((stored / "reference").read_bytes())
    seen: Profile | None = None
    for file in pieces(current):
        one = _profile(file, grid, columns)
        seen = merge([seen, one]) if seen else one
    assert seen is not None
    ASIDES.update(straddled=0)
    found = {}
    for name, kind in columns.items():
        declared = NUMBER if kind == "numerical" else NAME
        windows = known.columns[name], seen.columns[name]
        chance, measured = p_value(*windows), score(declared, grid.columns[name], *windows)
        value = measured.value
        if not decided(declared, measured):
            value = _on_rows(name, declared, reference, current)
            ASIDES["straddled"] = int(str(ASIDES["straddled"])) + 1
        told = drift_columns.verdict(name, declared, value, chance)
        found[name] = (told.score, told.drifted)
    return found


def _profile(file: Path, grid: Grid, columns: Mapping[str, str]) -> Profile:
    builder = Builder(grid, _spec(columns), str(file))
    for rows in _stream(file, columns):
        builder.add(_canonical(rows))
    return builder.profile()


def _stream(file: Path, columns: Mapping[str, str]) -> Iterator[Rows]:
    with file.open("rb", buffering=0) as opened:
        yield from formats.stream(opened, "parquet", Asked(_wants(columns)))


def _spec(columns: Mapping[str, str]) -> Spec:
    return {name: "numerical" if kind == "numerical" else "categorical" for name, kind in columns.items()}


def _wants(columns: Mapping[str, str]) -> list[Want]:
    return [(name, "number" if kind == "numerical" else "text") for name, kind in columns.items()]


def _canonical(rows: Rows) -> dict[str, pa.ChunkedArray]:
    return {name: column for (name, _), column in rows.columns.items()}


def _on_rows(name: str, column: Column, reference: Path, current: Path) -> float:
    engine = importlib.import_module("retrainer.adapters.evidently_report")
    found: float = engine.score(column, engine.Windows(_read(name, column, reference), _read(name, column, current)))
    return found


def _read(name: str, column: Column, folder: Path) -> drift_columns.Values:
    parts = [rows.columns for file in pieces(folder) for rows in _stream(file, {name: column.kind})]
    one = values.numbers if column.kind == "numerical" else values.texts
    return np.concatenate([one(part) for columns in parts for part in columns.values()])
