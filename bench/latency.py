"""From the event to StartExecution, while a thousand events a second come in and drift is measured beside it.

Half of the models get the events, and their drift is measured by the real worker against a real reference; the other
half are asked for a retraining again and again. The clock runs from the moment that the stub hands the request out to
the moment that StartExecution arrives there.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.feed import Plan
from bench.house import daemon, running, stub

RATE = 1_000.0
ROWS = 20_000


def latency(seconds: float) -> Mapping[str, float]:
    """Percentiles in milliseconds, how many StartExecutions they are of, and how many measurements there were."""
    folder = Path(tempfile.mkdtemp(prefix="retrainer-bench-"))
    try:
        rows = folder / "rows.parquet"
        _write(rows)
        warm = 20.0
        plan = Plan(messages=int(RATE * (seconds + warm)), rate=RATE, repeated=0.1, probed=25, rows=str(rows))
        with stub(plan) as aws:
            environment = daemon(aws.url, folder, plan.models, pollers="8")
            with running([sys.executable, "-m", "retrainer", "run"], environment, folder / "log") as process:
                time.sleep(seconds + warm)
                assert process.poll() is None, (folder / "log").read_text()[-2_000:]
                seen = aws.end()
        told = (folder / "log").read_text()
    finally:
        if not os.environ.get("BENCH_KEEP"):
            shutil.rmtree(folder)
    found = np.array(seen["latencies"]) * 1000
    assert len(found) > 100, f"only {len(found)} executions were started"
    p50, p99 = np.percentile(found, [50, 99])
    return {
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(found.max()),
        "samples": float(len(found)),
        "kept_up": seen["deleted"] / (RATE * (seconds + warm)),
        "measurements": float(told.count('"kind": "evidence_measured"')),
    }


def _write(path: Path) -> None:
    random = np.random.default_rng(7)
    at = pa.array(np.arange(ROWS) * 1_000_000, pa.timestamp("us"))
    pq.write_table(pa.table({"at": at, "x": random.normal(size=ROWS), "y": random.normal(size=ROWS)}), path)
