"""What differs when several processes train one model, or a GPU does: all of it is here, and one CPU process skips it.

Data parallel by torchrun: every process walks through the same global batches and takes its slice of each, so the
batches, and with them a checkpoint, do not depend on how many processes there are.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

# On a CPU torch would take a thread a core, and none would have enough to do: with two of them nets of the size of the
# demonstrations took five to nine times the CPU time of one, and other weights, as sums come in another order. A large
# net may gain: give OMP_NUM_THREADS, which torch reads itself, or `workers`. numpy's threads (EASE) are its own.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)


def rank() -> int:
    """Of this process among all of them (torchrun's variables); 0 alone writes and speaks."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@functools.cache
def device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def begin() -> None:
    """Finds the other processes; what is said between CPU tensors goes by gloo and makes no GPU wait."""
    if size() > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(device())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


# ---- the network and its batches


def wrap(net: nn.Module, checkpoints: Path) -> Any:
    """The module to call in a training step: with averaged gradients, compiled where there is a GPU.

    Compiling costs 40 s cold on a CPU and saves nothing there. Its cache travels with the checkpoints.
    """
    wrapped: Any = net
    if size() > 1:
        wrapped = nn.parallel.DistributedDataParallel(net, [device()] if device().type == "cuda" else None)
    if device().type == "cuda":
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(checkpoints / "compiled"))
        wrapped = torch.compile(wrapped)
    return wrapped


def half() -> torch.autocast:
    """bfloat16 where there is a GPU, and nothing on a CPU."""
    return torch.autocast(device().type, torch.bfloat16, enabled=device().type == "cuda")


def share(rows: int) -> slice:
    """This process's part of a global batch of so many rows; the parts differ by one row at most.

    Gradients are averaged over processes and parts may differ, so ``sum over the part * size() / count of the batch``
    is the loss that gives exactly the mean over the batch.
    """
    return slice(rows * rank() // size(), rows * (rank() + 1) // size())


def to_device(batch: Tensor) -> Tensor:
    """By way of pinned memory, so that the host need not wait; what is there already, as it is."""
    if batch.device == device():
        return batch
    return batch.pin_memory().to(device(), non_blocking=True)


def seed_draws(*key: int) -> None:
    """Makes the step's torch draws (dropout) a function of (seed, epoch, step), and of the process.

    Draws that all processes must share come from numpy: ``np.random.default_rng([seed, epoch, step])``.
    """
    seed = int(np.random.SeedSequence([*key, rank()]).generate_state(1)[0])
    # torch.manual_seed would format a stack trace at each call where there is no GPU.
    torch.default_generator.manual_seed(seed)
    if device().type == "cuda":
        torch.cuda.manual_seed(seed)


# ---- agreeing


def anyone(*questions: bool) -> list[bool]:
    """Whether any process answers yes, question by question; the same answer everywhere."""
    if size() == 1:
        return list(questions)
    answers = torch.tensor(questions, dtype=torch.uint8)
    dist.all_reduce(answers, dist.ReduceOp.MAX)
    return [bool(answer) for answer in answers.tolist()]


def mean(values: list[float]) -> list[float]:
    """Over processes, value by value."""
    if size() == 1:
        return values
    together = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(together)
    return [value / size() for value in together.tolist()]


def firsts(values: list[float]) -> list[float]:
    """What the first process has: a metric that decides must be one number, and validation rounds per process."""
    if size() == 1:
        return values
    told = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(told, 0)
    return [float(value) for value in told.tolist()]


def first_bytes(content: bytes) -> bytes:
    """What the first process has, whatever this one gives."""
    if size() == 1:
        return content
    length = torch.tensor([len(content)])
    dist.broadcast(length, 0)
    told = torch.zeros(int(length), dtype=torch.uint8)
    if rank() == 0:
        told = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else told
    dist.broadcast(told, 0)
    return told.numpy().tobytes()
