"""The trainer's figures, beside their peers; written into bench/README.md. `make bench-trainer` runs it.

python -m bench.trainer [sets sequences vision flights drift spot peers] [--keep]

Rows are kept under .cache/trainer as soon as a part is done, so that parts may be run one by one; the table has all of
them, the newest of each part.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev

from bench import telling
from bench.trainer.measured import Row

PARTS = ("sets", "sequences", "vision", "flights", "drift", "spot", "peers")
KEPT = Path(".cache/trainer")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.trainer", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="part", help=f"{' '.join(PARTS)} (all)")
    parser.add_argument("--keep", action="store_true", help="leave bench/README.md as it is")
    args = parser.parse_args()
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f"{' '.join(unknown)} is no part; give some of {' '.join(PARTS)}")
    KEPT.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        if find_spec(f"bench.trainer.{part}") is None:
            print(f"{part}: not there")
            continue
        print(f"{part}: (load {telling.load()})", flush=True)
        measure(part)
    text = section()
    print(f"\n{text}")
    if not args.keep:
        telling.write("trainer", text)


def measure(part: str) -> None:
    """Keeps every row as soon as it is there: a part may take an hour."""
    rows: list[Row] = []
    for row in import_module(f"bench.trainer.{part}").rows():
        told = f"{row.metric} {spread(row.values)}, CPU s {spread(row.cpu_seconds)}"
        print(f"  {row.task}, {row.model}: {told}", flush=True)
        rows.append(row)
        kept(part).write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}))


def kept(part: str) -> Path:
    return KEPT / f"{part}.json"


def machine() -> str:
    threads = f"OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    return telling.machine(("numpy", "torch", "scikit-learn"), threads)


def section() -> str:
    """A table a task, the parts in their order; a sentence for each machine that any part was measured on."""
    told = [json.loads(kept(part).read_text()) for part in PARTS if kept(part).exists()]
    machines = list(dict.fromkeys(part["machine"] for part in told))
    by_task: dict[str, list[Row]] = {}
    for part in told:
        for row in part["rows"]:
            by_task.setdefault(row["task"], []).append(Row(**row))
    return "\n\n".join(["; ".join(machines) + ".", *(f"**{task}**\n\n{table(rows)}" for task, rows in by_task.items())])


def table(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over seeds; the ratio is to the best peer of the task in the same metric."""
    lines = []
    for row in rows:
        peers = [r for r in rows if r.note.startswith("peer") and r.metric == row.metric and r.values]
        best = max(peers, key=lambda r: mean(r.values), default=None)
        ratio = f"{mean(row.values) / mean(best.values):.2f}" if best and row.values else "-"
        cost = f"{mean(row.cpu_seconds) / mean(best.cpu_seconds):.2g}" if best and row.cpu_seconds else "-"
        name = row.model if row.note.startswith("peer") else f"**{row.model}**"
        seeds = str(max(len(row.values), len(row.cpu_seconds)))
        users = " to ".join(f"{end:.4f}" for end in row.interval) or "-"
        lines.append(
            [name, row.metric, spread(row.values), seeds, users, spread(row.cpu_seconds), ratio, cost, row.note]
        )
    head = ["model", "metric", "mean ± sd", "seeds", "95 %, one seed", "CPU s", "of the best peer", "its CPU s", "note"]
    return telling.table(head, lines)


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, to four digits where the figure is a share and three otherwise."""
    if not values:
        return "-"
    form = ".4f" if abs(mean(values)) <= 1 else ".3g"
    told = f"{mean(values):{form}}"
    return f"{told} ± {stdev(values):{'.4f' if form == '.4f' else '.2g'}}" if len(values) > 1 else told


if __name__ == "__main__":
    main()
