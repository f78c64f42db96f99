"""A backtest over S3 decides as the daemon did while the same objects came, one by one."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from tests.system import data
from tests.system.house import House, policy
from tests.system.until import until

pytestmark = pytest.mark.system

FEW = 4
MODEL = "lived"
POLICIES = [
    policy(
        MODEL,
        data={"columns": {"rating": {"kind": "numerical", "test": "wasserstein", "threshold": 0.3}}},
        # How much a false alarm may still be is counted in days, and the batches lived through here are seconds apart.
        triggers={
            "volume": {"rows": 1000},
            "drift": {"share": 0.5, "rows_min": 200, "false_alarms_per_year": None},
        },
        guards={"cooldown": "0s"},  # which is lived through in less than a second as well as in half an hour
        gate={"baselines": [], "min_gain": -1},
        backtest={"family": "ease", "parameters": {"regularisation": 5}},
    )
]
BATCHES = [
    data.batch(0),
    data.batch(1, steps=FEW),
    data.batch(2, steps=FEW, rating=7.0),
    data.batch(3, steps=FEW, rating=7.0),
    data.batch(4),
]
TOLD = ("object_created", "evidence_measured", "execution_started", "execution_ended", "schedule_fired")
"""Events that decide. That a report was stored or a job has moved comes whenever it comes, and changes nothing."""


def settled(house: House, batches: int) -> bool:
    """Every object put has been read, nothing is being measured and no execution is on its way."""
    read = [d for d in house.decisions(MODEL) if d["event"]["kind"] == "evidence_measured"]
    state = house.status(MODEL)
    return len(read) >= batches and not state["execution"] and not state["kept"]


def test_a_backtest_over_s3_decides_what_the_live_run_decided(house: House) -> None:
    for number, content in enumerate(BATCHES):
        house.put(f"data/{MODEL}/{number}.parquet", content)
        until(partial(settled, house, number + 1), seconds=180, told=partial(house.story, MODEL))
    lived = [
        (d["event"]["kind"], d["reason"], plain(d["detail"]))
        for d in house.decisions(MODEL)
        if d["event"]["kind"] in TOLD
    ]
    result = backtested(house, "--training-takes", "1m", "--warmup", "1", "--no-optimum")
    steps = [(snake(d["event_kind"]), d["reason"], plain(d["detail"])) for d in result["decisions"]]
    assert [s for s in steps if s[0] in TOLD] == lived
    assert [reason for _, reason, _ in lived].count("retraining") == 4


def backtested(house: House, *given: str) -> dict[str, Any]:
    """What the command writes of a history that lies where the live run left it."""
    policy, history = house.policies / f"{MODEL}.yaml", f"s3://{house.bucket}/data/{MODEL}/"
    files = ["--cache", str(house.folder / "cache"), "--json", str(house.folder / "told.json")]
    done = subprocess.run(
        [sys.executable, "-m", "retrainer", "backtest", str(policy), "--history", history, *files, *given],
        env={**os.environ, **house.environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads((house.folder / "told.json").read_text())["results"][0]
    return told


def snake(kind: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()


def plain(detail: str) -> str:
    """Without what is of its own on each side.

    An execution's name ends in a hash, two trainings score differently, and a backtest resamples only when asked to.
    """
    without = re.sub(r"-g(\d+)-[0-9a-f]{8}", r"-g\1", detail)
    without = re.sub(r" \(95 % interval [^)]*\)", "", without)
    return re.sub(r"(ndcg_at_10|hit_rate_at_10|champion's|gain of) [+-]?\d\.\d{4}", r"\1", without)
