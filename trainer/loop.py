"""The training loop of every model that learns in steps: cursor, checkpoints, stopping, resuming, divergence.

A model is a ``Learner``. Its draws are functions of (seed, epoch, step), so its tensors, its notes and the cursor are
the whole state, and a job killed at any step ends with the same weights, bit for bit (one CPU process, one thread).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt
import torch
from safetensors.numpy import load, save
from torch import Tensor

from trainer import checkpoint, parallel
from trainer.contract import DivergedError
from trainer.progress import say

if TYPE_CHECKING:
    from trainer.families import Job

GPU_STEPS_UNCHECKED = 50  # reading a loss makes the host wait for the GPU


class Learner(Protocol):
    learning_rate: float  # of the step under way; named when it diverges
    loss_max: float  # beyond it the training has run away

    def epochs(self) -> int:
        """How many; may shrink while training."""

    def steps(self, epoch: int) -> int:
        """How many; asked after ``begin_epoch``."""

    def begin_epoch(self, epoch: int) -> None:
        """Cuts, shuffles; also called when resuming in mid-epoch, so it changes nothing that ``state`` gives."""

    def step(self, epoch: int, step: int) -> Tensor:
        """One step of the optimiser; the loss, detached and not waited for."""

    def end_epoch(self, epoch: int) -> Mapping[str, float]:
        """Validates, selects; what to say of it beside the loss."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that changes while training: tensors (on any device, not copied), and notes that JSON can hold."""

    def restore(self, tensors: Mapping[str, Tensor], notes: dict[str, Any]) -> None:
        """The inverse of ``state``; the tensors are on the CPU."""


@dataclass(slots=True)
class Cursor:
    """What comes next; ``loss_sum`` is over the steps of this epoch."""

    epoch: int = 0
    step: int = 0
    steps_done: int = 0  # of all epochs
    loss_sum: float = 0.0


def run(learner: Learner, job: Job, fingerprint: str) -> bool:
    """Trains to the end: True. On SIGTERM writes a checkpoint of the very step: False.

    ``fingerprint``: of all that decides the result (rows, hyperparameters, champion); only its checkpoints are used.
    """
    job.stop.is_asked = True
    writer = checkpoint.Writer(job.paths.checkpoints, fingerprint, job.p.interruption_seconds)
    at = _resumed(learner, writer, fingerprint)
    try:
        while at.epoch < learner.epochs():
            began = time.perf_counter()
            if not _epoch(learner, job, writer, at):
                return False
            told = {"train_loss": at.loss_sum / at.step} if at.step else {}
            told |= learner.end_epoch(at.epoch)
            at.epoch, at.step, at.loss_sum = at.epoch + 1, 0, 0.0
            say("epoch_ended", epoch=at.epoch, of=learner.epochs(), **told, seconds=time.perf_counter() - began)
        writer.wait()
        return True
    finally:
        writer.close()


def _epoch(learner: Learner, job: Job, writer: checkpoint.Writer, at: Cursor) -> bool:
    """The rest of the epoch at the cursor; False when told to stop. Asked before the first step and after the last."""
    learner.begin_epoch(at.epoch)
    steps = learner.steps(at.epoch)
    unchecked: list[Tensor] = []
    while True:
        # Every process leaves at the same step; the first one's clock says when a checkpoint is due.
        stop, due = parallel.anyone(bool(job.stop), parallel.rank() == 0 and writer.due(at.steps_done))
        patience = GPU_STEPS_UNCHECKED if parallel.device().type == "cuda" else 1
        if stop or due or at.step == steps or len(unchecked) >= patience:
            _check(learner, at, unchecked)
        if due or (stop and at.steps_done != writer.step):
            _save(learner, writer, at)
        if stop:
            writer.wait()
            return False
        if at.step == steps:
            return True
        unchecked.append(learner.step(at.epoch, at.step))
        at.step, at.steps_done = at.step + 1, at.steps_done + 1


def _check(learner: Learner, at: Cursor, unchecked: list[Tensor]) -> None:
    if not unchecked:
        return
    losses = parallel.mean(torch.stack(unchecked).tolist())
    for step, loss in enumerate(losses, at.step - len(losses)):
        if not loss <= learner.loss_max:
            raise _diverged(f"the loss is {loss}", learner, at.epoch, step)
    at.loss_sum += sum(losses)
    unchecked.clear()


def _diverged(what: str, learner: Learner, epoch: int, step: int) -> DivergedError:
    rate = f"{learner.learning_rate:.6g}"
    return DivergedError(
        f"{what} at epoch {epoch}, step {step}, learning rate {rate}; give a learning_rate below {rate}"
    )


# ---- what a checkpoint holds


def _save(learner: Learner, writer: checkpoint.Writer, at: Cursor) -> None:
    if parallel.rank() > 0:
        return
    tensors, notes = learner.state()
    arrays = _copied(tensors)
    # A step can have a sound loss and leave weights that are no numbers: the sound checkpoint before must stay.
    if not all(torch.isfinite(torch.from_numpy(a).sum()) for a in arrays.values()):
        raise _diverged("a weight is no number", learner, at.epoch, at.step - 1)
    writer.write(at.steps_done, arrays, {"cursor": asdict(at), "notes": notes})


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    """On the CPU, through pinned memory from a GPU, which then waits once; bfloat16, unknown to numpy, as float32."""
    copies = {}
    for name, tensor in tensors.items():
        exact = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        copies[name] = torch.empty(exact.shape, dtype=exact.dtype, pin_memory=exact.is_cuda)
        copies[name].copy_(exact, non_blocking=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {name: copy.numpy() for name, copy in copies.items()}


def _resumed(learner: Learner, writer: checkpoint.Writer, fingerprint: str) -> Cursor:
    """The cursor to go on from, with the learner as it was there. Every process takes what the first one finds."""
    found = checkpoint.load_newest(writer.folder, fingerprint) if parallel.rank() == 0 else None
    if found:
        writer.slot = found.slot  # so that it is not what the next one replaces
    state = json.loads(parallel.first_bytes(json.dumps(found.state if found else None).encode()))
    if state is None:
        return Cursor()
    arrays = found.tensors if found else {}
    if parallel.size() > 1:
        arrays = load(parallel.first_bytes(save(arrays) if found else b""))
    learner.restore({name: torch.from_numpy(array) for name, array in arrays.items()}, state["notes"])
    at = Cursor(**state["cursor"])
    writer.step = at.steps_done
    say("resumed", epoch=at.epoch, step=at.step)
    return at


def fingerprint(p: Any, *inputs: str | None) -> str:
    """Of a job: digests of its input, the hyperparameters that may not change from start to start, and the source.

    Another release of the trainer may draw otherwise, and keep other tensors.
    """
    decides = {name: value for name, value in asdict(p).items() if name not in ("workers", "interruption_seconds")}
    source = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))))
    told = json.dumps([decides, *inputs, source.hexdigest()], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def named(**groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For ``Learner.state``: ``named(net=net.state_dict(), adam=optimiser.tensors())``."""
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


@torch.no_grad()
def fill(into: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """For ``Learner.restore``: copies a checkpoint's tensors into those of ``named``."""
    for name, tensor in into.items():
        tensor.copy_(saved[name])
