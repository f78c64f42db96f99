"""The lines for a GPU where there is none: on one that is pretended, and compiled and in bfloat16 on the CPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainer.conftest import pack
from tests.trainer.test_fault_tolerance import FAMILIES, ROOT, begun, environment, laid_out
from trainer import tensors
from trainer.contract import Paths
from trainer.networks import Net

pytestmark = pytest.mark.system
CPU, GPU = "trainer", "tests.trainer.pretended_gpu"


def train(module: str, paths: Paths) -> str:
    """What it said."""
    command = [sys.executable, "-m", module, "train"]
    run = subprocess.run(command, cwd=ROOT, env=environment(paths), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_a_warm_start_that_begins_on_a_cpu_and_goes_on_on_a_gpu_gives_the_same_model(
    tmp_path: Path, family: str
) -> None:
    """But for how attention rounds: each device has its own kernel."""
    champion, whole, parts = (laid_out(tmp_path / name, family) for name in ("champion", "whole", "parts"))
    train(CPU, champion)
    for paths in (whole, parts):
        pack(champion.model, paths.channel("champion") / "model.tar.gz")
    assert "warm_start" in train(CPU, whole)
    killed, _ = begun(parts)
    killed.kill()
    killed.communicate()
    assert "resumed" in train(GPU, parts)
    ours, theirs = (tensors.read(paths.model / "model.safetensors")[0] for paths in (parts, whole))
    assert ours.keys() == theirs.keys()
    assert max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours) < 1e-3


def gradients(net: nn.Module, called: Any, x: Tensor, *, half: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = called(x).float().square().mean()
    loss.backward()
    found = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    net.zero_grad()
    return found


@pytest.mark.skipif(shutil.which("g++") is None, reason="on a CPU torch compiles with g++")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_compiled_and_in_bfloat16_the_gradients_point_where_they_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    net, x = Net("fast", 3, 32, 10, 8, 2), torch.randint(0, 256, (8, 3, 32, 32)).float()
    net.look_at(x)
    plain_G, halved_G = gradients(net, net, x, half=False), gradients(net, torch.compile(net), x, half=True)
    assert torch.isfinite(halved_G).all()
    assert float(torch.cosine_similarity(plain_G, halved_G, dim=0)) > 0.95
