"""Simulate the years, and write what was found into bench/README.md, between its own markers.

python -m bench.stationary [--share 0.1] [--seed 1] [--only years,power] [--keep]
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import telling
from bench.stationary import calibration, power, rules, world
from bench.stationary.world import Setting
from bench.telling import table, wilson
from retrainer.core.policy import DriftTrigger

SETTINGS = (
    Setting(1, 200, 20_000, 400),
    Setting(20, 100, 20_000, 10),
    Setting(20, 200, 20_000, 100),
    Setting(20, 200, 2_000, 20),
    Setting(20, 1_000, 5_000, 12),
    Setting(20, 10_000, 20_000, 2),
    Setting(20, 100_000, 100_000, 4, hours=730),
    Setting(100, 200, 10_000, 100),
    Setting(200, 1_000, 20_000, 2),
)
PEERS = ((Setting(20, 200, 20_000, 12), 168), (Setting(20, 200, 1_000, 6), 48), (Setting(20, 1_000, 20_000, 6), 48))
"""Each with the checks after which a year without a false alarm is left: Evidently takes 5 ms a column and check."""

ROWS_MIN = DriftTrigger().rows_min
DISCOVERIES = Setting(20, 200, 20_000, 20)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stationary", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the years, windows and trials (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="years,calibration,power", help="(%(default)s); writes nothing if not all")
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers/bin/python"), help="where NannyML is")
    parser.add_argument("--keep", action="store_true", help="leave bench/README.md as it is")
    args = parser.parse_args()
    began = _cpu()
    tables = {"years": _years_table, "calibration": _calibration_table, "power": _power_table}
    told = [tables[name](args) for name in args.only.split(",")]
    first = f"{telling.machine()}; seed {args.seed}; {_cpu() - began:.0f} CPU seconds."
    text = "\n\n".join([first, *told])
    print(f"\n{text}")
    if not args.keep and len(told) == len(tables):
        telling.write("stationary", text)


def _years_table(args: argparse.Namespace) -> str:
    rows = [_daemon(_some(setting, args.share), args.seed) for setting in SETTINGS]
    rows.append(_discoveries(_some(DISCOVERIES, args.share), args.seed))
    for setting, checks in PEERS:
        rows += _evidently(_some(setting, args.share), checks, args.seed)
        rows += _nannyml(_some(setting, args.share), checks, args.seed, args.peers)
    head = ["rule", "columns", "window", "reference", "years", "with a false retraining", "95 % interval"]
    return f"**False retrainings in years of hourly checks**\n\n{table(head, rows)}"


def _calibration_table(args: argparse.Namespace) -> str:
    title = (
        "**P-values on data that does not change**: per cent of windows with p <= 0.01 / with p <= 0.001 / "
        "that Evidently's default calls drifted"
    )
    return f"{title}\n\n{table(*calibration.table(args.share, args.seed))}"


def _power_table(args: argparse.Namespace) -> str:
    return f"**Known changes**\n\n{table(*power.table(args.share, args.seed, args.peers))}"


def _cpu() -> float:
    """Of this process and those it has waited for."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system


def _some(setting: Setting, share: float) -> Setting:
    return replace(setting, years=max(2, math.ceil(setting.years * share)))


def _years(setting: Setting, seed: int) -> list[np.random.Generator]:
    sizes = (setting.columns, setting.rows, setting.reference)
    return [np.random.default_rng([seed, *sizes, year]) for year in range(setting.years)]


def _daemon(setting: Setting, seed: int) -> list[str]:
    found = []
    few = " (its rows_min: 200)" if setting.rows < ROWS_MIN else ""
    for i, rng in enumerate(_years(setting, seed)):
        year = world.year(setting, rng)
        found.append(rules.false_retraining(setting, year))
        if i == 0 and setting.columns == 20 and setting.reference == 20_000:
            # The hours that are passed over elsewhere change nothing.
            assert rules.false_retraining(setting, year, every_hour=True) == found[0]
    return _row(f"retrainer, default policy{few}", setting, sum(found), len(found))


def _discoveries(setting: Setting, seed: int) -> list[str]:
    found = [rules.benjamini_hochberg(world.all_chances(setting, rng)).any(axis=1) for rng in _years(setting, seed)]
    firsts = [int(np.argmax(met)) + 1 for met in found if met.any()]
    return _row(f"Benjamini-Hochberg at 5 % a check{_first(firsts)}", setting, len(firsts), len(found))


def _evidently(setting: Setting, checks: int, seed: int) -> list[list[str]]:
    found = [rules.evidently(world.frames(setting, rng, checks), range(checks)) for rng in _years(setting, seed)]
    rows = []
    for i, name in enumerate(("Evidently, half of the columns", "Evidently, any column")):
        firsts = [check for year in found if (check := year[i]) is not None]
        rows.append(_row(f"{name}, {checks} checks only{_first(firsts)}", setting, len(firsts), len(found)))
    return rows


def _nannyml(setting: Setting, checks: int, seed: int, python: Path) -> list[list[str]]:
    if not python.exists():
        return []
    years = ((world.frames(setting, rng, checks), checks) for rng in _years(setting, seed))
    found = [alerts.any(axis=1) for alerts in rules.nannyml(years, setting.window, python)]
    firsts = [int(np.argmax(met)) + 1 for met in found if met.any()]
    return [_row(f"NannyML, any column, {checks} checks only{_first(firsts)}", setting, len(firsts), len(found))]


def _first(checks: Sequence[int]) -> str:
    return f"; the first at check {np.median(checks):.0f} (median)" if checks else ""


def _row(rule: str, setting: Setting, found: int, years: int) -> list[str]:
    print(rule, setting, found, f"{_cpu():.0f} CPU s", flush=True)
    low, high = wilson(found, years)
    numbers = [f"{n:,}" for n in (setting.columns, setting.rows, setting.reference)]
    numbers.append(f"{years:,}" if setting.hours == world.HOURS else f"{years:,} x {setting.hours} hours")
    return [rule, *numbers, f"{found / years:.1%}", f"{low:.1%} to {high:.1%}"]


if __name__ == "__main__":
    main()
