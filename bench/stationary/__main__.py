"""Simulate the years, and write what was found into bench/README.md, between its own markers.

python -m bench.stationary [--share 0.1] [--seed 1] [--keep]
"""

import argparse
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.stationary import rules, world
from bench.stationary.world import Setting

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- stationary: written by `make bench-stationary` -->", "<!-- end of stationary -->"
SETTINGS = (
    Setting(20, 200, 20_000, 200),
    Setting(20, 200, 2_000, 30),
    Setting(20, 1_000, 5_000, 12),
    Setting(20, 5_000, 20_000, 4),
    Setting(100, 200, 10_000, 8),
)
EVIDENTLY = ((Setting(20, 200, 20_000, 12), 168), (Setting(20, 200, 1_000, 6), 48), (Setting(20, 1_000, 20_000, 6), 48))
"""Each with the checks after which a year without a false alarm is left: Evidently takes 5 ms a column and check."""

DISCOVERIES = Setting(20, 200, 20_000, 20)
SHIFT = 0.5
TRIALS = 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stationary", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the years of each setting (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave bench/README.md as it is")
    args = parser.parse_args()
    began = time.process_time()
    rows = [_daemon(_some(setting, args.share), args.seed) for setting in SETTINGS]
    rows.append(_discoveries(_some(DISCOVERIES, args.share), args.seed))
    for setting, checks in EVIDENTLY:
        rows += _evidently(_some(setting, args.share), checks, args.seed)
    head = ["rule", "columns", "window", "reference", "model-years", "with a false retraining", "95 % interval"]
    text = "\n\n".join(
        [
            f"{datetime.now(UTC).date().isoformat()}; seed {args.seed}; "
            f"{{seconds}} CPU seconds on {os.cpu_count()} cores.",
            _table(head, rows),
            *(_power(SETTINGS[i], max(4, int(TRIALS * args.share)), args.seed) for i in (0, 2)),
        ]
    ).replace("{seconds}", f"{time.process_time() - began:.0f}")
    print(f"\n{text}")
    if not args.keep:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


def _some(setting: Setting, share: float) -> Setting:
    return replace(setting, years=max(2, math.ceil(setting.years * share)))


def _years(setting: Setting, seed: int) -> list[np.random.Generator]:
    sizes = (setting.columns, setting.rows, setting.reference)
    return [np.random.default_rng([seed, *sizes, year]) for year in range(setting.years)]


def _daemon(setting: Setting, seed: int) -> list[str]:
    found = []
    for i, rng in enumerate(_years(setting, seed)):
        year = world.year(setting, rng)
        found.append(rules.false_retraining(setting, year))
        if i == 0 and setting.columns == 20 and setting.reference == 20_000:
            # The hours that are passed over elsewhere change nothing.
            assert rules.false_retraining(setting, year, every_hour=True) == found[0]
    return _row("retrainer, default policy", setting, sum(found), len(found))


def _discoveries(setting: Setting, seed: int) -> list[str]:
    found = [rules.benjamini_hochberg(world.all_chances(setting, rng)) for rng in _years(setting, seed)]
    firsts = [check for check in found if check is not None]
    return _row(f"Benjamini-Hochberg at 5 % a check{_first(firsts)}", setting, len(firsts), len(found))


def _evidently(setting: Setting, checks: int, seed: int) -> list[list[str]]:
    found = [rules.evidently(world.frames(setting, rng, checks), range(checks)) for rng in _years(setting, seed)]
    rows = []
    for i, name in enumerate(("Evidently, half of the columns", "Evidently, any column")):
        firsts = [check for year in found if (check := year[i]) is not None]
        rows.append(_row(f"{name}, {checks} checks only{_first(firsts)}", setting, len(firsts), len(found)))
    return rows


def _first(checks: Sequence[int]) -> str:
    return f"; the first at check {np.median(checks):.0f} (median)" if checks else ""


def _power(setting: Setting, trials: int, seed: int) -> str:
    rng = np.random.default_rng([seed, 7])
    found = []
    for _ in range(trials):
        series = world.draw("normal", setting, rng, hours=3 * world.BATCHES)
        series.hours[world.BATCHES :] += SHIFT  # from the second check on
        found.append(rules.hours_until_found(setting, series, before=1))
    middle, most = np.quantile(found, [0.5, 0.95])
    return (
        f"A shift of {SHIFT:g} standard deviations in one of {setting.columns} columns, window {setting.rows} of which "
        f"{setting.hourly} rows are new each hour, is found by the default policy after {middle:.0f} hours "
        f"(median; 95 % within {most:.0f}; {trials} trials)."
    )


def _row(rule: str, setting: Setting, found: int, years: int) -> list[str]:
    print(rule, setting, found, flush=True)
    low, high = _wilson(found, years)
    numbers = [f"{n:,}" for n in (setting.columns, setting.rows, setting.reference, years)]
    return [rule, *numbers, f"{found / years:.1%}", f"{low:.1%} to {high:.1%}"]


def _wilson(found: int, years: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z, p = 1.96, found / years
    middle = (p + z * z / (2 * years)) / (1 + z * z / years)
    half = z * math.sqrt(p * (1 - p) / years + z * z / (4 * years * years)) / (1 + z * z / years)
    return max(0.0, middle - half), min(1.0, middle + half)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
