"""What a cadence of checkpoints costs on spot machines that really came and went, and how long they stayed.

    python -m bench.trainer.spot [TRACES]

TRACES (by default .cache/spot_traces_v1.npz, or the environment's SPOT_TRACES) is the public artefact of
SkyNomad (NSDI '27, github.com/andylizf/skynomad-artifact, Apache-2.0): 9 AWS zones of 2023, a tick each 195 s, whether
a V100 was to be had; 13 GCP zones of 2025, a tick each 600 s, how many of 16 H100 were. Without it this is left out.

An interruption: of the n machines of a tick m < n are left in the next, and a machine that ran is among the lost with
chance (n - m) / n. The time between interruptions is the time in which there were machines over the sum of these
chances. A job starts at a random moment, runs whenever there is a machine, and begins anew at its last whole checkpoint
after each interruption. Nothing is saved in the notice before one, and training stands still while a checkpoint is
written: both make the cost of checkpoints and of interruptions larger than the trainer's, whose writer is a thread and
which writes at once on SIGTERM. What starting a machine costs is left out, being the same for all.

Young, "A first order approximation to the optimum checkpoint interval", CACM 1974; Daly, FGCS 2006.
"""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.trainer.measured import Row

TRACES = Path(os.environ.get("SPOT_TRACES", ".cache/spot_traces_v1.npz"))
TICK_SECONDS = {"aws23": 195.0, "gcp25": 600.0}

INTERRUPTION_SECONDS = 3600.0
"""The trainer's default of `interruption_seconds`. The median over these zones is 2.7 h, but interruptions come in
swarms: of 0.5, 1, 2.8 and 8.3 hours, an hour cost least, or within a hundredth of it, for five of six jobs, of one
and ten hours and the three sizes below (0.5 h cost two hundredths less for one of an hour with 60 GB)."""

STARTS = 50
"""Jobs a zone and seed."""
SEEDS = 3
WORK_HOURS = 10.0
WRITE_SECONDS = {"0.05 s to write (the demo's recommender)": 0.05, "5 s (5 GB)": 5.0, "60 s (60 GB)": 60.0}
"""At a gigabyte a second, which one NVMe disk takes."""
FIXED_MINUTES = (5, 15, 60)


@dataclass(frozen=True, slots=True)
class Zone:
    """How many machines there were at each tick."""

    name: str
    machines: NDArray[np.int64]
    tick_seconds: float

    @property
    def chances(self) -> NDArray[np.float64]:
        """That a machine which runs in a tick is lost at its end; 0 where there is none."""
        now, then = self.machines[:-1], self.machines[1:]
        return np.where(now > 0, np.maximum(now - then, 0) / np.maximum(now, 1), 0.0)

    def interruption_seconds(self) -> float:
        there = float((self.machines[:-1] > 0).sum()) * self.tick_seconds
        expected = float(self.chances.sum())
        return there / expected if expected else math.inf

    def stretches(self, random: np.random.Generator) -> list[float]:
        """How long a job that begins at a random tick runs each time until it is interrupted, to the trace's end."""
        first = int(random.integers(0, len(self.chances) // 2))
        there, lost = self.machines[first:-1] > 0, random.random(len(self.chances) - first) < self.chances[first:]
        found, length = [], 0.0
        for is_there, is_lost in zip(there.tolist(), lost.tolist(), strict=True):
            length += self.tick_seconds if is_there else 0.0
            if is_lost:
                found.append(length - random.random() * self.tick_seconds)  # when within the tick is not known
                length = 0.0
        return [*found, length]


def zones(traces: Path) -> list[Zone]:
    with np.load(traces, allow_pickle=False) as stored:
        ticks: Mapping[str, int] = json.loads(str(stored["meta"]))
        found = []
        for name, count in ticks.items():
            held = np.unpackbits(stored[name])[:count] if name.startswith("aws") else stored[name][:count]
            found.append(Zone(name, held.astype(np.int64), TICK_SECONDS[name.partition("_")[0]]))
    return found


def young_daly(write_seconds: float, interruption_seconds: float) -> float:
    return math.sqrt(2 * write_seconds * interruption_seconds)


def run(stretches: Sequence[float], work: float, every: float, write: float) -> tuple[float, bool]:
    """Seconds on machines until `work` seconds were done with a checkpoint after each `every`; False: never."""
    used, saved = 0.0, 0.0
    for length in stretches:
        rest = work - saved
        needed = rest + max(math.ceil(rest / every) - 1, 0) * write  # the last one is the model itself
        if needed <= length:
            return used + needed, True
        used += length
        saved += math.floor(length / (every + write)) * every
    return used, False


def rows() -> Iterator[Row]:
    if not TRACES.is_file():
        print(f"spot: {TRACES} is not there; SPOT_TRACES names another place")
        return
    found = zones(TRACES)
    yield from told(found)
    jobs = [drawn(found, seed) for seed in range(SEEDS)]
    for name, write in WRITE_SECONDS.items():
        yield from cadences(jobs, name, write)


def drawn(found: Sequence[Zone], seed: int) -> list[list[float]]:
    """The stretches of every job, STARTS of them in each zone."""
    random = np.random.default_rng(seed)
    return [zone.stretches(random) for zone in found for _ in range(STARTS)]


def told(found: Sequence[Zone]) -> Iterator[Row]:
    """Hours between interruptions: the mean over zones and their spread, by cloud, and the median of all."""
    task = "Spot machines: hours between interruptions"
    for cloud, about in (("aws23", "AWS 2023, V100"), ("gcp25", "GCP 2025, H100")):
        hours = [z.interruption_seconds() / 3600 for z in found if z.name.startswith(cloud)]
        note = f"median {np.median(hours):.1f}, from {min(hours):.1f} to {max(hours):.1f}; one value a zone"
        yield Row(task=task, model=about, metric="hours", values=[h for h in hours if math.isfinite(h)], note=note)


def cadences(jobs: Sequence[Sequence[Sequence[float]]], name: str, write: float) -> Iterator[Row]:
    """A row a cadence, with a value for each seed's jobs."""
    work = WORK_HOURS * 3600
    best = young_daly(write, INTERRUPTION_SECONDS)
    every = {f"Young/Daly, each {best / 60:.1f} min": best}
    every |= {f"each {minutes} min": minutes * 60.0 for minutes in FIXED_MINUTES} | {"none": work}
    for model, seconds in every.items():
        ended = [[run(job, work, seconds, write) for job in seed] for seed in jobs]
        yield Row(
            task=f"Spot machines: machine time lost or spent on checkpoints, as a share of a job of {WORK_HOURS:g} h",
            model=f"{name}: {model}",
            metric="share",
            values=[float(np.mean([used for used, _ in seed])) / work - 1 for seed in ended],
            note=f"{np.mean([done for seed in ended for _, done in seed]):.0%} of the jobs ended within their trace",
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        TRACES = Path(sys.argv[1])
    for each in zones(TRACES):
        print(f"{each.name:35s} {each.interruption_seconds() / 3600:8.1f} h")
