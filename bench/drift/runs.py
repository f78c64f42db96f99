"""Each contender measured in processes of its own, in turns, on windows written to a temporary folder."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.drift import rows
from bench.drift.rows import Size

ROOT = Path(__file__).resolve().parents[2]
WARM = Size(2_000, 5, 2_000)
"""What every process measures first, and is not told."""

STORES = ("ours", "nanny")
"""Those that compute something of the reference once; the others read it for every verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one contender took for one size; the verdict's figures are medians of `runs` processes."""

    contender: str
    size: Size
    runs: int
    cpu_s: float
    peak_mb: float
    reference_s: float
    reference_mb: float
    imports_s: float
    base_mb: float
    stored_bytes: int
    scores: Mapping[str, tuple[float, bool]] = field(repr=False)
    asides: Mapping[str, Any] = field(repr=False)


@contextmanager
def windows(size: Size) -> Iterator[Path]:
    """A folder with both windows of this size and the small ones to warm up on; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-drift-") as name:
        folder = Path(name)
        for to, wanted in ((folder, size), (folder / "warm", WARM)):
            rows.write(to / "reference", wanted.reference, wanted.columns, seed=1, shifted=False)
            rows.write(to / "current", wanted.rows, wanted.columns, seed=2, shifted=True)
            (to / "columns.json").write_text(json.dumps(rows.kinds(wanted.columns)))
        yield folder


def measure(size: Size, rounds: Mapping[str, int], peers: Path) -> list[Found]:
    """Every contender, so many rounds of it; in each round they take turns. `peers`: NannyML's python."""
    with windows(size) as folder:
        once = {name: _run(name, "reference", folder, peers) for name in rounds if name in STORES}
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in rounds}
        for turn in range(max(rounds.values())):
            for name in rounds:
                if turn < rounds[name]:
                    told[name].append(_run(name, "verdict", folder, peers))
        return [_found(name, size, once.get(name, {}), told[name], folder) for name in rounds]


def available(contenders: Sequence[str], peers: Path) -> list[str]:
    """Those that can run here: NannyML needs its environment, which `make bench-drift` builds."""
    return [name for name in contenders if name != "nanny" or peers.exists()]


def _found(name: str, size: Size, once: Mapping[str, Any], told: Sequence[Mapping[str, Any]], folder: Path) -> Found:
    median = {key: statistics.median(t[key] for t in told) for key in ("cpu_s", "peak_mb", "imports_s", "base_mb")}
    stored = sum(f.stat().st_size for f in _stored(name, folder).rglob("*") if f.is_file())
    scores = {column: (float(score), bool(drifted)) for column, (score, drifted) in told[0]["scores"].items()}
    return Found(
        contender=name,
        size=size,
        runs=len(told),
        **median,
        reference_s=once.get("cpu_s", 0.0),
        reference_mb=once.get("peak_mb", 0.0),
        stored_bytes=stored,
        scores=scores,
        asides=told[0]["asides"],
    )


def _run(name: str, step: str, folder: Path, peers: Path) -> dict[str, Any]:
    python = str(peers) if name == "nanny" else sys.executable
    paths = {"reference": folder / "reference", "current": folder / "current"}
    paths |= {"stored": _stored(name, folder), "warm": folder / "warm"}
    command = [python, "-m", "bench.drift.measured", name, step, *(f"--{k}={v}" for k, v in paths.items())]
    # One thread each: the machine is shared, and the count is of CPU seconds.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} {step} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {name} {step}: {found['cpu_s']:.2f} CPU s, {found['peak_mb']:.0f} MB", flush=True)
    return found


def _stored(name: str, folder: Path) -> Path:
    return folder / f"stored-{name}"


def room(size: Size) -> None:
    """Refuse a size that would not leave a quarter of the disk's free space."""
    distinct = min(size.rows, rows.PIECES_MAX * rows.PIECE_ROWS) + size.reference
    needed, free = distinct * size.columns * 8, shutil.disk_usage(tempfile.gettempdir()).free
    if needed > 0.75 * free:
        raise SystemExit(f"{size} needs {needed >> 30} GiB in {tempfile.gettempdir()}, {free >> 30} are free")
