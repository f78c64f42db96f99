"""How soon a known change in one column of a hundred is found, and what else a rule finds before it comes.

Every check is hourly, on the newest eight batches; the first eight checks come before the change, so that a rule which
alarms anyway is seen to. The rules are asked about the same rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.stationary import rules, world
from bench.stationary.world import BATCHES, Floats, Known, Series, Setting, Shape

SETTINGS = (Setting(100, 1_000, 20_000, 0), Setting(100, 10_000, 20_000, 0))
BEFORE, AFTER = 8, 16
WITHIN_ROWS = 2_000
TRIALS, TRIALS_EVIDENTLY = 30, 3
WHOLE_CHECKS = (0, BEFORE - 1, BEFORE + BATCHES - 1, BEFORE + AFTER - 1)
"""Evidently takes 5 to 15 ms a column and check: it has fewer trials, and is asked about all columns at these only."""

COUNTING = 1e-4
"""A p-value above it never counts among a hundred columns, whatever the column's score."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shift:
    """What happens to a column of this shape."""

    name: str
    shape: Shape
    made: Callable[[Floats, np.random.Generator], Floats]


def _some(values: Floats, value: float, rng: np.random.Generator) -> Floats:
    return np.where(rng.random(values.shape) < 0.05, value, values)


SHIFTS = (
    Shift("mean + 0.5 sigma", "normal", lambda rows, _: rows + 0.5),
    Shift("variance x 1.5", "normal", lambda rows, _: rows * np.sqrt(1.5)),
    Shift("a new category with 5 %", "10 categories", lambda rows, rng: _some(rows, 10.0, rng)),
    Shift("nulls 0 to 5 %", "normal", lambda rows, rng: _some(rows, np.nan, rng)),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A hundred columns that stay as they are, then one for each of SHIFTS."""

    columns: Sequence[Series]

    @property
    def known(self) -> list[Known]:
        return [world.known(s.shape, s.reference) for s in self.columns]


@dataclass(frozen=True, slots=True)
class Alarms:
    """Of one trial, check by check: whether the rule alarms at all, and whether it does so of the changed column."""

    at_all: Flags
    rightly: Flags


Rule = Mapping[str, Sequence[Alarms]]
"""By the name of a shift, trial by trial."""


def table(share: float, seed: int, peers: Path) -> tuple[Sequence[str], list[list[str]]]:
    """The head and the rows: one for each window, shift and rule."""
    head = ["change in one of 100 columns", "rule", "window", "new rows a check", "trials", "alarms before it"]
    head += [f"found within {WITHIN_ROWS:,} rows", "rows until it is found, median", "95 %"]
    rows = []
    for setting in SETTINGS:
        trials = [_trial(setting, np.random.default_rng([seed, setting.rows, i])) for i in range(_times(TRIALS, share))]
        some = trials[: _times(TRIALS_EVIDENTLY, share)]
        found = {**_ours(setting, trials), **_evidently(setting, some), **_nannyml(setting, some, peers)}
        for shift in SHIFTS:
            rows += [_row(shift.name, rule, setting, alarms[shift.name]) for rule, alarms in found.items()]
    return head, rows


def _times(count: int, share: float) -> int:
    return max(2, int(count * share))


def _trial(setting: Setting, rng: np.random.Generator) -> Trial:
    columns = world.frames(setting, rng, BEFORE + AFTER)
    shifted = []
    for shift in SHIFTS:
        series = world.draw(shift.shape, setting, rng, BEFORE + AFTER)
        rows = series.hours.copy()
        rows[BEFORE + BATCHES - 1 :] = shift.made(rows[BEFORE + BATCHES - 1 :], rng)
        shifted.append(Series(shift.shape, series.reference, rows))
    return Trial([*columns, *shifted])


def _with(columns: int, table: Flags | Floats, shift: int) -> Floats:
    """The columns of a table as they are when the first one is that of the shift."""
    found: Floats = np.column_stack((table[:, columns + shift], table[:, 1:columns])).astype(np.float64)
    return found


def _ours(setting: Setting, trials: Sequence[Trial]) -> dict[str, Rule]:
    """The default policy by its own p-values, scores and decide; and the same p-values by another rule."""
    default: dict[str, list[Alarms]] = {shift.name: [] for shift in SHIFTS}
    discovered: dict[str, list[Alarms]] = {shift.name: [] for shift in SHIFTS}
    for trial in trials:
        told, checks = trial.known, range(BEFORE + AFTER)
        p_values = np.array(
            [[k.p_value(s.window(h)) for k, s in zip(told, trial.columns, strict=True)] for h in checks]
        )
        for i, shift in enumerate(SHIFTS):
            mine = _with(setting.columns, p_values, i)
            columns = [setting.columns + i, *range(1, setting.columns)]
            decided = _decided(setting, mine, [trial.columns[c] for c in columns], [told[c] for c in columns])
            default[shift.name].append(Alarms(decided, decided))
            found = rules.benjamini_hochberg(mine)
            discovered[shift.name].append(_alarms(found))
    return {"retrainer, default policy": default, "Benjamini-Hochberg at 5 % a check": discovered}


def _decided(setting: Setting, p_values: Floats, columns: Sequence[Series], told: Sequence[Known]) -> Flags:
    """The daemon's decisions."""
    daemon = rules.Daemon(setting, [series.shape for series in columns])
    found = []
    for hour, row in enumerate(p_values):
        counting = [i for i, chance in enumerate(row.tolist()) if chance < COUNTING]
        effects = {i: told[i].score(columns[i].window(hour)) for i in counting}
        found.append(daemon.check(hour, dict(enumerate(row.tolist())), effects))
    return np.array(found)


def _evidently(setting: Setting, trials: Sequence[Trial]) -> dict[str, Rule]:
    whole: dict[str, list[Alarms]] = {shift.name: [] for shift in SHIFTS}
    some: dict[str, list[Alarms]] = {shift.name: [] for shift in SHIFTS}
    for trial in trials:
        flags = np.zeros((BEFORE + AFTER, len(trial.columns)), np.bool_)
        for (hour, i), _ in np.ndenumerate(flags):
            if hour in WHOLE_CHECKS or i >= setting.columns:
                series = trial.columns[i]
                flags[hour, i] = rules.flagged(series.shape, series.reference, series.window(hour))
        for i, shift in enumerate(SHIFTS):
            mine = _with(setting.columns, flags, i) > 0
            half = mine.mean(axis=1) >= rules.SHARE
            whole[shift.name].append(Alarms(half, half))
            some[shift.name].append(_alarms(mine))
    return {"Evidently, half of the columns": whole, "Evidently, any column": some}


def _nannyml(setting: Setting, trials: Sequence[Trial], peers: Path) -> dict[str, Rule]:
    if not peers.exists():
        return {}
    found: dict[str, list[Alarms]] = {shift.name: [] for shift in SHIFTS}
    for alerts in rules.nannyml(((t.columns, BEFORE + AFTER) for t in trials), setting.window, peers):
        for i, shift in enumerate(SHIFTS):
            mine = _with(setting.columns, alerts, i) > 0
            found[shift.name].append(_alarms(mine))
    return {"NannyML, any column": found}


def _alarms(flags: Flags) -> Alarms:
    """Of a rule that alarms when any column is flagged; the first is the one that has changed."""
    return Alarms(np.asarray(flags.any(axis=1)), flags[:, 0])


def _row(shift: str, rule: str, setting: Setting, alarms: Sequence[Alarms]) -> list[str]:
    before = float(np.mean([a.at_all[:BEFORE].any() for a in alarms]))
    after = [a.rightly[BEFORE:] for a in alarms]
    delays = [setting.hourly * (1 + int(np.argmax(a))) if a.any() else np.inf for a in after]
    soon = float(np.mean(np.array(delays) <= WITHIN_ROWS))
    print(shift, rule, setting.rows, f"{before:.0%}", f"{soon:.0%}", flush=True)
    numbers = [f"{n:,}" for n in (setting.rows, setting.hourly, len(alarms))]
    return [shift, rule, *numbers, f"{before:.0%}", f"{soon:.0%}", *_delays(delays)]


def _delays(delays: Sequence[float]) -> Iterator[str]:
    """The median and the 95 % quantile, each a delay that was seen."""
    for share in (0.5, 0.95):
        at = sorted(delays)[int(np.ceil(share * len(delays))) - 1]
        yield f"{at:,.0f}" if np.isfinite(at) else "not found"
