"""The real process: the metric lines, how little serving imports, how it ends. Signals: test_fault_tolerance.py."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainer import train
from trainer.contract import Paths, StopRequest
from trainer.progress import METRIC_DEFINITIONS

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """``start("train", paths, NAME="value")``; whatever still lives at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: str, paths: Paths, **more: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(paths.base), "OMP_NUM_THREADS": "1", **more}
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    """Lines of output up to the first that holds ``word``; pytest's own time limit is the end of the process."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(f"the process ended without saying {word!r}: {lines}")


@pytest.mark.parametrize(
    ("hyperparameters", "names"),
    [
        (
            {"model": "sasrec", "epochs": "2", "dimension": "16"},
            {"ndcg_at_10", "hit_rate_at_10", "train_loss", "epoch"},
        ),
        ({"model": "ease"}, {"ndcg_at_10", "hit_rate_at_10"}),
    ],
)
def test_sagemakers_regexes_find_what_a_job_says(
    job: Callable[..., Paths], start: Start, hyperparameters: dict[str, str], names: set[str]
) -> None:
    said, _ = start("train", job("one", **hyperparameters)).communicate(timeout=120)
    found = {metric["Name"]: re.findall(metric["Regex"], said) for metric in METRIC_DEFINITIONS}
    assert {name for name, values in found.items() if values} == names
    assert all(float(value) >= 0 for values in found.values() for value in values)


def test_serving_listens_where_it_is_told_without_torch_and_stops_on_sigterm(
    job: Callable[..., Paths], start: Start
) -> None:
    paths = job("one", model="sasrec", epochs="1", dimension="16")
    train.main(paths, StopRequest())
    server = start("serve", paths, SAGEMAKER_BIND_TO_HOST="127.0.0.1", SAGEMAKER_BIND_TO_PORT="0")
    port = read_until(server, "serving")[-1].split("port=")[1].rstrip(";\n")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=30) as response:
        assert response.status == 200
    mapped = Path(f"/proc/{server.pid}/maps")
    assert not mapped.exists() or "libtorch" not in mapped.read_text()
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=30)
    assert server.returncode == 0


def test_a_truncated_file_ends_the_job_with_its_class_and_name(job: Callable[..., Paths], start: Start) -> None:
    paths = job("one", model="ease")
    file = paths.channel("train") / "train.parquet"
    file.write_bytes(file.read_bytes()[:300])
    process = start("train", paths)
    process.communicate(timeout=120)
    assert process.returncode == 2
    assert paths.failure.read_text().startswith("data\n")
    assert "train.parquet" in paths.failure.read_text()
