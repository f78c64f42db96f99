"""From exec to ready, and what the daemon costs when nothing happens."""

import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil

from bench.feed import Plan
from bench.house import Cost, daemon, running, stub


def start(idle_seconds: float) -> Mapping[str, float]:
    """Seconds to /readyz, CPU seconds of them, then resident memory and the share of a core while idle."""
    folder = Path(tempfile.mkdtemp(prefix="retrainer-bench-"))
    try:
        with stub(Plan(messages=0)) as aws:
            environment = daemon(aws.url, folder, 1)
            ready = f"http://127.0.0.1:{environment['RETRAINER_HTTP_PORT']}/readyz"
            began = time.monotonic()
            with running([sys.executable, "-m", "retrainer", "run"], environment, folder / "log") as process:
                while not _answers(ready):
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.01)
                at_ready = Cost.of(process)
                time.sleep(5)
                before = Cost.of(process)
                time.sleep(idle_seconds)
                after = Cost.of(process)
                memory = psutil.Process(process.pid).memory_info().rss / 1e6
        return {
            "ready_seconds": at_ready.at - began,
            "ready_cpu_seconds": at_ready.cpu_seconds,
            "idle_mb": memory,
            "idle_share": (after.cpu_seconds - before.cpu_seconds) / (after.at - before.at),
        }
    finally:
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - the URL is ours
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
