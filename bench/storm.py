"""A storm: a million events, nine of ten said before, over fifty models. What the daemon's memory does meanwhile."""

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from bench.feed import Plan
from bench.house import Cost, daemon, running, stub


def storm(events: int) -> Mapping[str, float]:
    """Resident memory (MB) after a tenth, at half and at the end, events a second, CPU an event."""
    marks = (events // 10, events // 2, events)
    folder = Path(tempfile.mkdtemp(prefix="retrainer-bench-"))
    try:
        with stub(Plan(messages=events, repeated=0.9, marks=marks)) as queue:
            environment = daemon(queue.url, folder, 50, pollers="8")
            with running([sys.executable, "-m", "bench.daemon"], environment, folder / "log") as process:
                seen = []
                for mark in marks:
                    queue.wait_for(mark, process, seconds=60 + events / 500)
                    memory = psutil.Process(process.pid).memory_info().rss / 1e6
                    seen.append((Cost.of(process), memory))
                    print(f"  {mark:9} events {memory:7.1f} MB", flush=True)
        first, last = seen[0][0], seen[-1][0]
        count = marks[-1] - marks[0]
        return {
            "start_mb": seen[0][1],
            "half_mb": seen[1][1],
            "end_mb": seen[2][1],
            "a_second": count / (last.at - first.at),
            "cpu_us": (last.cpu_seconds - first.cpu_seconds) / count * 1e6,
        }
    finally:
        shutil.rmtree(folder)
