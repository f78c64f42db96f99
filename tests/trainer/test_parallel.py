"""Several processes, and the few lines for a GPU as far as a CPU can run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainer.learner import SmallHyperparameters, StopAfter, job_of, trained
from trainer import checkpoint, launch, loop, optimisers, parallel
from trainer.contract import Paths, Resources, TrainerError

ROOT = Path(__file__).parents[2]
STILL = SmallHyperparameters(dropout=0.0)  # dropout draws differ from process to process, so from one number to another


def together(paths: Paths, processes: int, **environment: str) -> None:
    """Trains the small learner in so many processes, as `launch` would."""
    settings = {"SETTINGS": json.dumps({"dropout": 0.0}), "SAGEMAKER_BASE_DIR": str(paths.base), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    run = subprocess.run(
        [*torchrun, "-m", "tests.trainer.learner"],
        cwd=ROOT,
        env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert run.stdout.count("epoch_ended epoch=2;") <= 1, "the first process alone speaks"


@pytest.mark.system
@pytest.mark.parametrize(("given", "threads"), [({}, 1), ({"OMP_NUM_THREADS": "2"}, 2)])
def test_torch_takes_one_thread_on_a_cpu_unless_told_otherwise(given: dict[str, str], threads: int) -> None:
    without = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    asked = "import torch, trainer.parallel; print(torch.get_num_threads())"
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, env=without | given, stdout=subprocess.PIPE, check=True
    )
    assert int(told.stdout) == threads


@pytest.mark.system
def test_a_job_goes_on_with_more_and_with_fewer_workers(tmp_path: Path) -> None:
    """1 -> 2 -> 1 workers. A global batch of 7 is cut into 3 and 4; sums in another order are the only difference."""
    paths = Paths(tmp_path / "parts")
    assert trained(job_of(paths, STILL, StopAfter(13))) is None
    together(paths, 2, STOP_AFTER="25")
    found = checkpoint.load_newest(paths.checkpoints, loop.fingerprint(STILL))
    assert found is not None
    assert found.state["cursor"]["steps_done"] == 37, "13, and 24 steps with one end of an epoch between them"
    parts = trained(job_of(paths, STILL))
    whole = trained(job_of(Paths(tmp_path / "whole"), STILL))
    assert parts is not None
    assert whole is not None
    for name, weight in whole.weights().items():
        np.testing.assert_allclose(parts.weights()[name], weight, rtol=0, atol=1e-6)
    assert parts.heard == pytest.approx(whole.heard, rel=1e-5)


@pytest.mark.parametrize(("rows", "processes"), [(7, 2), (7, 3), (8, 4), (2, 3), (0, 2)])
def test_the_shares_of_a_batch_are_the_batch(rows: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    shares = []
    for rank in range(processes):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(list(range(rows))[parallel.share(rows)])
    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_draws_depend_on_seed_epoch_step_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*key: int) -> float:
        parallel.seed_draws(*key)
        return float(torch.rand(()))

    assert draw(0, 1, 2) == draw(0, 1, 2)
    drawn = [draw(0, 1, 2), draw(0, 2, 1), draw(1, 1, 2), draw(0, 1, 3)]
    monkeypatch.setenv("RANK", "1")
    assert len({*drawn, draw(0, 1, 2)}) == 5


# ---- what starts them


def report(folder: Path, name: str, **told: Any) -> None:
    (folder / name).write_text(json.dumps(told) if told else "")


def test_workers_that_ended_well_make_a_job_that_ended_well_whatever_torchrun_says(tmp_path: Path) -> None:
    """torchrun ends with 1 after a SIGTERM that every worker has handled."""
    for name in ("0", "1"):
        report(tmp_path, name, code=0, kind="", text="", at=1.0)
    assert launch._outcome(tmp_path, 1) == 0


def test_the_first_failure_is_the_jobs(tmp_path: Path) -> None:
    report(tmp_path, "0", code=1, kind="bug", text="RuntimeError: connection closed by peer", at=2.0)
    report(tmp_path, "1", code=4, kind="memory", text="out of memory", at=1.0)
    with pytest.raises(TrainerError, match="out of memory") as raised:
        launch._outcome(tmp_path, 1)
    assert (raised.value.kind, raised.value.exit_code) == ("memory", 4)


def test_a_worker_that_fell_silent_explains_what_the_others_missed(tmp_path: Path) -> None:
    report(tmp_path, "0", code=1, kind="bug", text="RuntimeError: connection closed by peer", at=2.0)
    report(tmp_path, "1")
    with pytest.raises(TrainerError, match="worker 1 was killed"):
        launch._outcome(tmp_path, 1)


def test_no_worker_at_all_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="before it had started a worker"):
        launch._outcome(tmp_path, 1)


def test_each_host_finds_the_first_one_and_its_own_place() -> None:
    command = launch._command(8, Resources(current_host="algo-2", hosts=("algo-1", "algo-2", "algo-3")))
    assert {"--nnodes=3", "--node-rank=1", "--master-addr=algo-1", "--nproc-per-node=8"} <= set(command)
    assert "--standalone" in launch._command(2, Resources())


def test_others_are_started_only_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(tmp_path)
    assert launch.is_needed(2, paths)
    assert not launch.is_needed(1, paths)
    paths.resources.parent.mkdir(parents=True)
    paths.resources.write_text('{"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]}')
    assert launch.is_needed(1, paths)
    monkeypatch.setenv("RANK", "0")
    assert not launch.is_needed(2, paths)


# ---- the lines for a GPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_cpu_neither_compiles_nor_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda _module: pytest.fail("it takes 40 s and saves nothing"))
    net = nn.Linear(2, 2)
    assert parallel.wrap(net, tmp_path) is net
    with parallel.half():
        assert net(torch.ones(1, 2)).dtype == torch.float32
    batch = torch.ones(3)
    assert parallel.to_device(batch) is batch


def test_a_gpu_compiles_and_keeps_what_it_compiled_with_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch, "compile", lambda module: ("compiled", module))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is restored
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    net = nn.Linear(2, 2)
    assert parallel.wrap(net, tmp_path) == ("compiled", net)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")


def test_a_step_in_bfloat16_leaves_weights_and_state_in_full_precision() -> None:
    """As on a GPU, by the CPU's autocast."""
    torch.manual_seed(0)
    net = nn.Linear(8, 8)
    optimiser = optimisers.AdamW(net.named_parameters())
    x_BW = torch.randn(32, 8)
    losses = []
    for _ in range(200):
        with torch.autocast("cpu", torch.bfloat16):
            said_BW = net(x_BW)
            loss: torch.Tensor = (said_BW - x_BW).square().mean()
        assert said_BW.dtype == torch.bfloat16
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step(0.01)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert {t.dtype for t in (*net.parameters(), *optimiser.tensors().values())} == {torch.float32}


# ---- optimisers


def test_adamw_takes_the_steps_of_the_paper() -> None:
    start, slope_S = torch.randn(5, 3), torch.randn(10, 5, 3)
    weight = nn.Parameter(start.clone())
    optimiser = optimisers.AdamW([("weight", weight)], weight_decay=0.01, beta1=0.9, beta2=0.98)
    expected, first, second = start.double(), torch.zeros(5, 3).double(), torch.zeros(5, 3).double()
    for step, slope in enumerate(slope_S, 1):
        weight.grad = slope.clone()
        optimiser.step(0.1)
        assert weight.grad is None
        first, second = 0.9 * first + 0.1 * slope, 0.98 * second + 0.02 * slope**2
        size = (second / (1 - 0.98**step)).sqrt() + 1e-8
        expected = expected * (1 - 0.1 * 0.01) - 0.1 * first / (1 - 0.9**step) / size
    np.testing.assert_allclose(weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_sgd_takes_nesterovs_steps() -> None:
    start, slope_S = torch.randn(5, 3), torch.randn(10, 5, 3)
    weight = nn.Parameter(start.clone())
    optimiser = optimisers.SGD([("weight", weight)], momentum=0.9, weight_decay=0.05)
    expected, velocity = start.double(), torch.zeros(5, 3).double()
    for slope in slope_S:
        weight.grad = slope.clone()
        optimiser.step(0.1)
        decayed = slope + 0.05 * expected
        velocity = 0.9 * velocity + decayed
        expected = expected - 0.1 * (decayed + 0.9 * velocity)
    np.testing.assert_allclose(weight.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (8, 2, 3, 3)])
def test_muon_moves_in_all_directions_alike(shape: tuple[int, ...]) -> None:
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    _, values, _ = torch.linalg.svd(optimisers.orthogonalised(slope.reshape(len(slope), -1), 5))
    assert values.min() > 0.6
    assert values.max() < 1.3
    weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    optimiser = optimisers.Muon([("weight", weight)])
    weight.grad = slope
    optimiser.step(0.0)
    assert float(weight.detach().norm()) == pytest.approx(len(slope) ** 0.5, rel=1e-5)


def test_muon_refuses_vectors() -> None:
    with pytest.raises(ValueError, match="give vectors to SGD or AdamW"):
        optimisers.Muon([("bias", nn.Parameter(torch.zeros(3)))])
