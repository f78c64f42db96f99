"""Measure, draw bench/drift.svg, and write the figures into bench/README.md, between markers of their own.

python -m bench.drift [usual | long | huge | small] [--rows 100000000] [--rounds 3] [--keep]

`usual` is `make bench-drift`; `long` is Evidently's preset on 5,000,000 rows, ten CPU minutes and 9 GB of memory;
`huge` is a window larger than memory, read as a stream; `small` measures little of all and writes nothing.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import telling
from bench.drift import plot
from bench.drift.rows import Size
from bench.drift.runs import ROOT, Found, available, measure, room
from bench.telling import load

PICTURE = ROOT / "bench" / "drift.svg"
NAMES = {
    "ours": "retrainer, stored profile",
    "preset": "Evidently, DataDriftPreset",
    "registered": "Evidently, its tests called directly",
    "nanny": "NannyML, univariate, fitted",
    "by_scipy": "scipy, ks_2samp and chi2_contingency",
}
MAIN = Size(1_000_000, 25, 1_000_000)
EVERYONE = tuple(NAMES)
USUAL = {
    Size(100_000, 25, 100_000): EVERYONE,
    MAIN: EVERYONE,
    Size(5_000_000, 50, 1_000_000): ("ours",),
    Size(100_000, 1_000, 100_000): ("ours", "registered", "nanny", "by_scipy"),
}
CURVE = {
    Size(10_000, 25, 10_000): EVERYONE,
    Size(5_000_000, 25, 1_000_000): ("ours",),
    Size(100_000, 5, 100_000): EVERYONE,
    Size(100_000, 100, 100_000): EVERYONE,
}
SMALL = {Size(20_000, 10, 20_000): ("ours", "registered", "by_scipy")}
LONG = {Size(5_000_000, 25, 5_000_000): ("ours", "registered", "preset")}
HUGE_COLUMNS, HUGE_REFERENCE = 50, 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("which", nargs="?", default="usual", choices=("usual", "long", "huge", "small"))
    parser.add_argument("--rows", type=int, default=100_000_000, help="of the huge window (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender; the median counts")
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers/bin/python"), help="where NannyML is")
    parser.add_argument("--keep", action="store_true", help="leave bench/README.md and the drawing as they are")
    args = parser.parse_args()
    began, before = time.monotonic(), load()
    huge = Size(args.rows, HUGE_COLUMNS, HUGE_REFERENCE)
    plans: Mapping[str, Mapping[Size, Sequence[str]]]
    plans = {"usual": USUAL, "long": LONG, "small": SMALL, "huge": {huge: ("ours",)}}
    plan = plans[args.which]
    found = [f for size, names in plan.items() for f in _measured(size, names, args)]
    curve = [f for size, names in CURVE.items() for f in _measured(size, names, args)] if args.which == "usual" else []
    machine = telling.machine(("evidently", "pandas", "pyarrow", "numpy", "scipy"))
    text = "\n\n".join(
        [
            f"{machine}. Load at the start {before}, at the end {load()}; {time.monotonic() - began:.0f} seconds.",
            *(_table(size, [f for f in found if f.size == size]) for size in plan),
            *([_curve([*found, *curve])] if curve else []),
        ]
    )
    print(f"\n{text}")
    if args.keep or args.which == "small":
        return
    telling.write(f"drift, {args.which}", text)
    if curve:
        every = [*found, *curve]
        rows = [f for f in every if f.size.columns == MAIN.columns]
        columns = [f for f in every if f.size.rows == 100_000]
        plot.draw(PICTURE, rows, columns, NAMES)


def _measured(size: Size, names: Sequence[str], args: argparse.Namespace) -> list[Found]:
    room(size)
    print(f"{size}:", flush=True)
    rounds = {n: 1 if _once(n, size) else args.rounds for n in available(names, args.peers)}
    return measure(size, rounds, args.peers)


def _once(name: str, size: Size) -> bool:
    """Whether a single run has to do: where others only give a point of the curve, and where one takes minutes."""
    slow = size.rows * size.columns > 5_000_000 and (name == "preset" or size.columns >= 1_000)
    return name != "ours" and (size in CURVE or slow)


def _table(size: Size, found: Sequence[Found]) -> str:
    judge = next((f for name in ("registered", "preset") for f in found if f.contender == name), None)
    ours = next(f for f in found if f.contender == "ours")
    rows = [_row(f, ours, judge) for f in found]
    head = ["", "CPU s of a verdict", "ratio", "peak MB", "the reference once, CPU s", "imports, CPU s / MB"]
    head += ["columns judged as Evidently's tests do", "largest difference of scores"]
    facts = f"of {ours.asides['straddled']} columns the rows had to be asked, {ours.stored_bytes / 1e6:.1f} MB stored"
    return f"**{size}**, a reference of {size.reference:,} rows; {facts}\n\n{telling.table(head, rows)}"


def _row(found: Found, ours: Found, judge: Found | None) -> list[str]:
    once = _figure(found.reference_s) if found.stored_bytes else "-"
    told = [_figure(found.cpu_s), f"{found.cpu_s / ours.cpu_s:.1f}", f"{found.peak_mb:.0f}", once]
    told.append(f"{found.imports_s:.1f} / {found.base_mb:.0f}")
    return [f"{NAMES[found.contender]} ({found.runs})", *told, *_agreement(found, judge)]


def _agreement(found: Found, judge: Found | None) -> tuple[str, str]:
    if judge is None:
        return "-", "-"
    equal = sum(found.scores[name][1] == drifted for name, (_, drifted) in judge.scores.items())
    share = f"{equal} of {len(judge.scores)}"
    if found.contender in ("nanny", "by_scipy"):
        return share, "other tests"
    return share, f"{max(abs(found.scores[name][0] - score) for name, (score, _) in judge.scores.items()):.1e}"


def _figure(seconds: float) -> str:
    """Three digits."""
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _curve(found: Sequence[Found]) -> str:
    """CPU seconds a million values, so that what grows faster than the window is seen."""
    sizes = sorted({f.size for f in found}, key=lambda s: (s.columns, s.rows))
    cost = {(f.contender, f.size): f.cpu_s / (f.size.rows * f.size.columns / 1e6) for f in found}
    rows = [[NAMES[n], *(f"{cost[n, s]:.3f}" if (n, s) in cost else "-" for s in sizes)] for n in NAMES]
    title = "**CPU seconds a million values** of the current window (drawn in `drift.svg`)"
    return f"{title}\n\n{telling.table(['', *map(str, sizes)], rows)}"


if __name__ == "__main__":
    main()
