"""Killed a hundred times, stopped, out of disk: the weights are those of an undisturbed job, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.trainer.conftest import cycle, lay_out
from tests.trainer.test_cnn import rows
from trainer.contract import Paths

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
KILLS = 100
OFTEN = {"interruption_seconds": "0"}  # a checkpoint as soon as the one before is written, so that kills meet many
SASREC = {
    "model": "sasrec",
    "epochs": "12",
    "patience": "99",
    "dimension": "16",
    "window": "16",
    "validation_share": "0.1",
}
CNN = {"model": "cnn", "pixels": "16", "colour": "grey", "width": "4", "batch_rows": "16", "validation_share": "0.2"}
FAMILIES = {"sasrec": SASREC, "cnn": CNN | {"epochs": "12", "distil_width": "4", "epochs_distil": "4"}}


def laid_out(folder: Path, family: str, **more: str) -> Paths:
    paths = lay_out(Paths(folder), FAMILIES[family] | OFTEN | more, cycle(users=60))
    if family == "cnn":
        pq.write_table(rows(120), paths.channel("train") / "train.parquet")
    return paths


def environment(paths: Paths) -> dict[str, str]:
    return {**os.environ, "SAGEMAKER_BASE_DIR": str(paths.base), "OMP_NUM_THREADS": "1"}


def begun(paths: Paths) -> tuple[subprocess.Popen[str], str]:
    """A training process that has just said that its first checkpoint is on the disk, and all that it has said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "train"],
        cwd=ROOT,
        env=environment(paths),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("checkpoint_saved"):
            return process, said
    raise AssertionError(f"it ended without a checkpoint: {said} {process.communicate()[1]}")


def weights_of(paths: Paths) -> str:
    return str(json.loads((paths.model / "manifest.json").read_text())["weights_sha256"])


def newest(paths: Paths) -> Path:
    return max(paths.checkpoints.glob("checkpoint-*.safetensors"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hundred_kills_leave_no_trace_in_the_weights(tmp_path: Path, family: str) -> None:
    laid_out(tmp_path, family)
    command = [sys.executable, "-m", "tests.trainer.killed", str(tmp_path), str(KILLS), "0"]
    run = subprocess.run(
        command, cwd=ROOT, env=environment(Paths(tmp_path)), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["killed"] == KILLS
    assert told["torn"] > 0, "no kill came while a checkpoint was being written"
    assert told["resumed"] > KILLS // 2
    assert set(told["parts"]) == {told["whole"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_real_process_is_killed_then_stopped_and_loses_no_step(tmp_path: Path, family: str) -> None:
    long = {"epochs": "60"}
    whole, parts = (laid_out(tmp_path / name, family, **long) for name in ("whole", "parts"))
    killed, _ = begun(parts)
    killed.kill()
    killed.communicate()
    stopped, said = begun(parts)
    assert "resumed" in said
    stopped.send_signal(signal.SIGTERM)
    signalled = time.monotonic()
    said, _ = stopped.communicate()
    took = time.monotonic() - signalled
    assert stopped.returncode == 0
    assert "train_stopped" in said
    assert not parts.model.exists()
    assert took < 10, "seconds on a machine however busy; 2 on one that is not"
    for paths in (whole, parts):
        subprocess.run([sys.executable, "-m", "trainer", "train"], cwd=ROOT, env=environment(paths), check=True)
    assert weights_of(parts) == weights_of(whole)


def test_sigterm_before_anything_is_learnt_ends_the_process_at_once(tmp_path: Path) -> None:
    paths = laid_out(tmp_path, "sasrec")
    fifo = paths.hyperparameters
    fifo.unlink()
    os.mkfifo(fifo)  # it waits here to be told what to do
    process = subprocess.Popen([sys.executable, "-m", "trainer", "train"], cwd=ROOT, env=environment(paths))
    with fifo.open("wb"):  # opens when the other side reads
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not paths.failure.exists()


def test_a_full_disk_is_told_in_the_failure_file(tmp_path: Path) -> None:
    paths = laid_out(tmp_path, "cnn")
    killed, _ = begun(paths)
    killed.kill()
    killed.communicate()
    folder = newest(paths).name.rpartition("-")[0]
    for file in paths.checkpoints.iterdir():
        file.unlink()
    (paths.checkpoints / f".{folder}-0.safetensors.tmp").symlink_to("/dev/full")
    run = subprocess.run([sys.executable, "-m", "trainer", "train"], cwd=ROOT, env=environment(paths), check=False)
    assert run.returncode == 4
    told = paths.failure.read_text()
    assert told.startswith("memory\n")
    assert f"the disk under {paths.checkpoints} is full" in told


def test_a_worker_that_is_killed_ends_the_job_and_is_named(tmp_path: Path) -> None:
    paths = laid_out(tmp_path, "cnn", workers="2", epochs="200")
    process, _ = begun(paths)
    (torchrun,) = psutil.Process(process.pid).children()
    workers = {worker.environ()["RANK"]: worker for worker in torchrun.children()}
    workers["1"].kill()
    _, complained = process.communicate(timeout=120)
    assert process.returncode == 1, complained
    assert paths.failure.read_text() == "bug\nworker 1 was killed, by hand or by the kernel for want of memory"


def test_two_workers_are_stopped_by_one_signal_and_one_goes_on(tmp_path: Path) -> None:
    paths = laid_out(tmp_path, "cnn", workers="2", epochs="200")
    process, _ = begun(paths)
    process.send_signal(signal.SIGTERM)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    assert said.count("train_stopped") == 1
    assert not paths.failure.exists()
    settings = json.loads(paths.hyperparameters.read_text()) | {"workers": "1"}
    paths.hyperparameters.write_text(json.dumps(settings))
    alone, said = begun(paths)
    alone.send_signal(signal.SIGTERM)
    alone.communicate()
    assert "resumed" in said
    assert alone.returncode == 0
