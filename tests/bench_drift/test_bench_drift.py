"""The benchmark of a verdict on drift: its rows, its measured runs, and the bounds of the simulated years."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.drift import plot, rows
from bench.drift.__main__ import NAMES
from bench.drift.contenders import ours
from bench.drift.rows import Size
from bench.drift.runs import Found, windows
from bench.stationary import rules, world
from bench.stationary.world import MIX, Setting


def test_a_window_of_many_pieces_has_the_first_ones_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE_ROWS", 100)
    monkeypatch.setattr(rows, "PIECES_MAX", 2)
    folder = rows.write(tmp_path / "current", 450, 5, seed=1, shifted=True)
    held = [pq.read_table(file) for file in rows.pieces(folder)]
    assert [table.num_rows for table in held] == [100, 100, 100, 100, 50]
    assert held[2].equals(held[0])
    assert held[3].equals(held[1])
    assert not held[1].equals(held[0])


def test_columns_that_are_shifted_are_told_from_those_that_are_not(tmp_path: Path) -> None:
    with windows(Size(20_000, 8, 20_000)) as folder:
        columns = json.loads((folder / "columns.json").read_text())
        ours.reference(folder / "reference", columns, tmp_path)
        found = ours.verdict(folder / "reference", folder / "current", columns, tmp_path)
    assert list(found) == list(columns)
    assert found["c7"][0] == pytest.approx(0.3, abs=0.05)
    assert found["c7"][1]
    assert not any(found[name][1] for name in ("c0", "c1", "c3", "c6"))


def test_the_drawing_has_a_line_for_every_contender(tmp_path: Path) -> None:
    def found(name: str, size: Size) -> Found:
        figures = dict.fromkeys(("cpu_s", "peak_mb", "reference_s", "reference_mb", "imports_s", "base_mb"), 1.0)
        return Found(contender=name, size=size, runs=1, stored_bytes=0, scores={}, asides={}, **figures)

    by_rows = [found(name, Size(size, 25, size)) for name in NAMES for size in (1_000, 100_000)]
    by_columns = [found(name, Size(1_000, size, 1_000)) for name in NAMES for size in (5, 100)]
    plot.draw(tmp_path / "drift.svg", by_rows, by_columns, NAMES)
    assert (tmp_path / "drift.svg").read_text().count("<polyline") == 2 * len(NAMES)


@pytest.mark.parametrize("shape", dict.fromkeys(MIX))
def test_an_hour_that_is_passed_over_has_no_smaller_p_value(shape: world.Shape) -> None:
    setting = Setting(1, 200, 2_000, 1, hours=40)
    series = world.draw(shape, setting, np.random.default_rng(1))
    known = world.known(shape, series.reference)
    least = world.chances(series, known.profile.inflation, upper=True)
    exactly = np.array([known.p_value(series.window(hour)) for hour in range(setting.hours)])
    assert np.all(least <= exactly * (1 + 1e-9))


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    p_values = np.array([[0.01, 0.02, 0.9, 0.9], [0.02, 0.03, 0.9, 0.9], [0.02, 0.02, 0.9, 0.9]])
    found = rules.benjamini_hochberg(p_values)
    assert found.tolist() == [[True, True, False, False], [False] * 4, [True, True, False, False]]
