"""What a GPU makes of the trainer, on synthetic tensors; without one it says so.

python -m bench.trainer.gpu [--smoke]

Four figures, each by whole epochs of the real loop (augmentation, optimiser, checkpoints), the first of which compiles
and is left out: a run of airbench94's shape (Jordan, arXiv 2404.00498: 8 epochs of 50,000 images of 32 x 32 in batches
of 2,000), an epoch of the sequence model at MovieLens-1M's shape (6,040 users, 3,706 items, 1,000,209 interactions),
the model FLOPs utilisation of ResNet-18 at 224 x 224 (Chowdhery et al., PaLM, 2022, appendix B: the FLOPs of forward
and backward over the device's peak), and what checkpoints cost. `--smoke` runs tiny sizes on whatever there is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from trainer import cnn, loop, networks, parallel, recommender
from trainer.contract import Paths, StopRequest
from trainer.families import Job

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12}
"""Dense bf16 FLOPs a second, from NVIDIA's data sheets (SXM where there are two)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    airbench: cnn.Hyperparameters
    airbench_rows: int
    residual: cnn.Hyperparameters
    residual_rows: int
    users: int
    items: int
    interactions: int
    sequence: dict[str, Any]


REAL = Sizes(
    airbench=cnn.Hyperparameters(
        epochs=8,
        stem=1,
        width=64,
        batch_rows=2000,
        optimiser="muon",
        flip="alternate",
        rotate=0.0,
        zoom=0.0,
        elastic=0.0,
    ),
    airbench_rows=50_000,
    residual=cnn.Hyperparameters(network="resnet18", pixels=224, width=64, epochs=3, batch_rows=512, elastic=0.0),
    residual_rows=512 * 24,
    users=6040,
    items=3706,
    interactions=1_000_209,
    sequence={
        "epochs": 3,
        "window": 200,
        "dimension": 128,
        "blocks": 2,
        "batch_windows": 128,
        "softmax_items_max": 10_000,
    },
)
SMOKE = Sizes(
    airbench=replace(REAL.airbench, epochs=3, width=4, batch_rows=16),
    airbench_rows=48,
    residual=replace(REAL.residual, width=4, batch_rows=4, pixels=128),
    residual_rows=8,
    users=20,
    items=30,
    interactions=400,
    sequence={"epochs": 3, "window": 16, "dimension": 8, "blocks": 1, "batch_windows": 4, "softmax_items_max": 10_000},
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.trainer.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on a CPU too: shows that it runs, no figure")
    args = parser.parse_args()
    if not args.smoke and not torch.cuda.is_available():
        print("no CUDA device: nothing is measured (--smoke runs tiny sizes on the CPU)")
        return
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for line in figures(SMOKE if args.smoke else REAL, device, Path(folder)):
            print(line, flush=True)


def figures(sizes: Sizes, device: str, folder: Path) -> Iterator[str]:
    images = median(epochs(*classifier(sizes.airbench, sizes.airbench_rows, folder / "a")))
    yield f"airbench's shape: {images * sizes.airbench.epochs:.3f} s for {sizes.airbench.epochs} epochs (aim: 1.3)"
    sequence = median(sequence_epochs(sizes, folder / "b"))
    yield f"sequence model at MovieLens-1M's shape: {sequence:.3f} s an epoch (aim: 0.5)"
    learner, job = classifier(sizes.residual, sizes.residual_rows, folder / "c")
    flops = sizes.residual_rows * training_flops(learner.nets[0], sizes.residual.pixels)
    alone = median(epochs(learner, job))
    peak = next((value for name, value in PEAKS.items() if name in device), None)
    share = f"{flops / alone / peak:.1%} of the peak (aim: 40 %)" if peak else "the device's peak is not known"
    yield f"ResNet-18 at {sizes.residual.pixels} x {sizes.residual.pixels}: {flops / alone / 1e12:.3f} TFLOP/s, {share}"
    kept = median(epochs(*classifier(sizes.residual, sizes.residual_rows, folder / "d"), interruption_seconds=3600.0))
    yield f"checkpoints, interrupted every hour on average: {kept / alone - 1:+.2%} of an epoch (aim: 1 %)"


def classifier(p: cnn.Hyperparameters, rows: int, folder: Path) -> tuple[cnn.Trainer, Job]:
    """A learner on random images of ten classes."""
    draws = np.random.default_rng(0)
    shape = (rows, 3, p.pixels, p.pixels)
    pixel_NCPP = torch.from_numpy(draws.integers(0, 256, shape, dtype=np.uint8))
    feed = cnn.Feed.of(pixel_NCPP, torch.from_numpy(draws.integers(0, 10, rows)))
    net, _ = cnn.start(p, p.width, tuple("0123456789"), None, feed)
    return cnn.Trainer(net, None, feed, p, p.epochs, folder), Job(p=p, paths=Paths(folder), stop=StopRequest())


def epochs(learner: cnn.Trainer, job: Job, interruption_seconds: float = 1e12) -> list[float]:
    """Seconds of each epoch after the first."""
    job = replace(job, p=replace(job.p, interruption_seconds=interruption_seconds))
    return told(lambda: loop.run(learner, job, "synthetic"))


def sequence_epochs(sizes: Sizes, folder: Path) -> list[float]:
    draws = np.random.default_rng(0)
    user_N = draws.integers(0, sizes.users, sizes.interactions)
    item_N = (sizes.items * draws.random(sizes.interactions) ** 2).astype(np.int64)
    moments = pa.array(np.arange(sizes.interactions), pa.timestamp("us", tz="UTC"))
    paths = Paths(folder)
    paths.channel("train").mkdir(parents=True)
    table = pa.table({"user_id": user_N, "item_id": item_N, "timestamp": moments})
    pq.write_table(table, paths.channel("train") / "train.parquet")
    p = recommender.Hyperparameters(**sizes.sequence, validation_share=0.0)
    return told(lambda: recommender.train(Job(p=p, paths=paths, stop=StopRequest())))


def told(train: Callable[[], object]) -> list[float]:
    """What the loop says of its epochs, the first one left out."""
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        train()
    return [float(seconds) for seconds in re.findall(r"^epoch_ended .*seconds=([0-9.e+-]+);", stream.getvalue(), re.M)][
        1:
    ]


def training_flops(net: networks.Net, pixels: int) -> float:
    """Of one image, forward and backward: three times the multiplications and additions of the layers with weights."""
    total = 0

    def count(layer: nn.Module, _given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor), "a convolution or a linear layer"
        places = out.shape[-1] * out.shape[-2] if out.ndim == 4 else 1
        total += 2 * weight.numel() * places

    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        was = net.training
        net.eval()(torch.zeros(1, net.mean.shape[1], pixels, pixels, device=parallel.device()))
        net.train(was)
    for hook in hooks:
        hook.remove()
    return 3.0 * total


if __name__ == "__main__":
    main()
