"""Streams of losses that stay as they are or rise, and what each detector makes of them."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors.detectors import ANY_LOSS, OURS, ZERO_ONE, Made, Remembered, alarm
from bench.telling import table, wilson

Losses = NDArray[np.float64]
Draw = Callable[[np.random.Generator, Losses], Losses]
"""Losses of these means."""

LABELS = 10_000
STEADY, RISEN = 0.20, 0.30
BEFORE, AFTER = 5_000, 5_000
RAMP = 1_000
WINDOW = 500
"""KSWIN knows no more than its last 100 labels, so what comes long before the change is left out for it."""

STREAMS, OF_OURS, TRIALS = 250, 600, 250


@dataclass(frozen=True, slots=True)
class Setting:
    """What a row of the table is about."""

    draw: Draw
    steady: float = STEADY
    risen: float = RISEN
    before: int = BEFORE


def zero_one(random: np.random.Generator, means: Losses) -> Losses:
    """Errors and none."""
    return (random.random(len(means)) < means).astype(float)


def gamma(random: np.random.Generator, means: Losses) -> Losses:
    """Losses as skewed as absolute errors often are: a gamma distribution of shape 2."""
    return random.gamma(2.0, means / 2.0)


def uneven(random: np.random.Generator, means: Losses) -> Losses:
    """Errors whose rate differs from batch of 50 to batch, by 0.03 (standard deviation)."""
    rates = means + np.repeat(random.normal(0.0, 0.03, math.ceil(len(means) / 50)), 50)[: len(means)]
    return zero_one(random, np.clip(rates, 0.0, 1.0))


def tables(share: float, seed: int) -> list[str]:
    """Of 0/1 losses, of real-valued ones, and of ours where it is harder."""
    head = ["false alarms in 10,000 labels", "95 % interval", "abrupt: median", "95 %", "missed"]
    head += ["gradual: median", "95 %", "missed", "CPU us a label"]
    rises = Setting(zero_one), Setting(gamma)
    return [
        "**Errors of 0 and 1**",
        table(["detector", *head], _rows(OURS | ANY_LOSS | ZERO_ONE, rises[0], share, seed)),
        "**Real-valued losses** (gamma, shape 2)",
        table(["detector", *head], _rows(OURS | ANY_LOSS, rises[1], share, seed)),
        "**Ours elsewhere**",
        table(["stream", *head], _elsewhere(share, seed)),
    ]


def _elsewhere(share: float, seed: int) -> Iterator[list[str]]:
    label, batch = OURS.items()
    for name, made, setting in (
        ("0.20 to 0.30 after 2,000 labels, label by label", label, Setting(zero_one, before=2_000)),
        ("0.02 to 0.04, label by label", label, Setting(zero_one, 0.02, 0.04)),
        ("0.50 to 0.65, label by label", label, Setting(zero_one, 0.50, 0.65)),
        ("0.20 to 0.22 (within the margin), label by label", label, Setting(zero_one, 0.20, 0.22)),
        ("0.20 to 0.30, uneven batches of 50", batch, Setting(uneven)),
    ):
        (row,) = _rows(dict([made]), setting, share, seed)
        yield [name, *row[1:]]


def _rows(detectors: Mapping[str, Made], setting: Setting, share: float, seed: int) -> Iterator[list[str]]:
    for name, made in detectors.items():
        count = max(4, round(share * (OF_OURS if name in OURS else STREAMS)))
        trials = max(4, round(share * TRIALS))
        with Remembered():
            alarms = sum(_false_alarm(made, setting, seed, k) for k in range(count))
            before = WINDOW if name == "KSWIN" else setting.before
            waits = [[_wait(made, setting, before, ramp, seed, k) for k in range(trials)] for ramp in (0, RAMP)]
        low, high = wilson(alarms, count)
        row = [name, f"{alarms / count:.1%}", f"{low:.1%} to {high:.1%}"]
        row += [cell for wait in waits for cell in _delays(wait)]
        row.append(f"{_cpu(made, setting, 500 if name == 'KSWIN' else 20_000):.1f}")
        print(*row, sep=" | ", flush=True)
        yield row


def _false_alarm(made: Made, setting: Setting, seed: int, k: int) -> bool:
    random = np.random.default_rng([seed, 1, k])
    return alarm(made(k), setting.draw(random, np.full(LABELS, setting.steady)).tolist()) is not None


def _wait(made: Made, setting: Setting, before: int, ramp: int, seed: int, k: int) -> float:
    """Labels from the beginning of the rise to the first alarm; an alarm before it is a false one, and play goes on."""
    random = np.random.default_rng([seed, 2, ramp, k])
    risen = np.full(AFTER, setting.risen)
    risen[:ramp] = np.linspace(setting.steady, setting.risen, ramp)
    losses = setting.draw(random, np.concatenate((np.full(before, setting.steady), risen))).tolist()
    detector = made(k)
    for loss in losses[:before]:
        detector.update(loss)
    return alarm(detector, losses[before:]) or math.inf


def _delays(waits: list[float]) -> list[str]:
    found = sorted(waits)
    middle, most = (found[math.ceil(q * len(found)) - 1] for q in (0.5, 0.95))
    missed = sum(math.isinf(wait) for wait in waits) / len(waits)
    return [*("never" if math.isinf(x) else f"{x:.0f}" for x in (middle, most)), f"{missed:.1%}"]


def _cpu(made: Made, setting: Setting, labels: int) -> float:
    """The least of three times, as it comes."""
    losses = setting.draw(np.random.default_rng(0), np.full(labels, setting.steady)).tolist()
    took = []
    for _ in range(3):
        detector = made(0)
        began = time.process_time()
        for loss in losses:
            detector.update(loss)
        took.append(time.process_time() - began)
    return min(took) / labels * 1e6
