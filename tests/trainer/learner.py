"""A learner of the tests' own, as small as one can be: it repeats what it hears, through dropout.

`python -m tests.trainer.learner` trains it, alone or as one of torchrun's processes, and writes its weights to
`$SAGEMAKER_BASE_DIR/weights.safetensors`; `$SETTINGS` are `SmallHyperparameters` as JSON, `$STOP_AFTER` see `main`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer import loop, optimisers, parallel, tensors
from trainer.contract import Paths, StopRequest
from trainer.families import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallHyperparameters:
    seed: int = 0
    epochs: int = 3
    steps: int = 20
    batch: int = 7
    width: int = 8
    dropout: float = 0.1
    learning_rate: float = 0.01
    breaks_at: int = -1  # the step of all epochs at which a weight becomes no number
    interruption_seconds: float = 1e9
    workers: int = 0


class StopAfter(StopRequest):
    """Is received when asked for the n-th time; the loop asks before each step and after the last of an epoch."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


class Small:
    loss_max = 100.0

    def __init__(self, p: SmallHyperparameters, job: Job) -> None:
        torch.manual_seed(p.seed)
        self.p, self.learning_rate = p, p.learning_rate
        self.net = nn.Linear(p.width, p.width)
        self.forward = parallel.wrap(self.net, job.paths.checkpoints)
        self.optimiser = optimisers.AdamW(self.net.named_parameters())
        self.heard: list[float] = []
        self.x_NW = torch.zeros(0)

    def epochs(self) -> int:
        return self.p.epochs

    def steps(self, epoch: int) -> int:
        return self.p.steps

    def begin_epoch(self, epoch: int) -> None:
        draws = np.random.default_rng([self.p.seed, epoch])
        self.x_NW = torch.from_numpy(draws.normal(size=(self.p.steps * self.p.batch, self.p.width)).astype(np.float32))

    def step(self, epoch: int, step: int) -> Tensor:
        p = self.p
        parallel.seed_draws(p.seed, epoch, step)
        x_BW = self.x_NW[step * p.batch : (step + 1) * p.batch][parallel.share(p.batch)]
        said_BW = self.forward(torch.dropout(x_BW, p.dropout, train=True))
        loss: Tensor = (said_BW - x_BW).square().mean(1).sum() * parallel.size() / p.batch
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(self.learning_rate)
        if epoch * p.steps + step == p.breaks_at:
            self.net.weight.data[0, 0] = torch.nan
        return loss.detach()

    def end_epoch(self, epoch: int) -> Mapping[str, float]:
        weight = float(self.net.weight.detach().square().mean())
        self.heard.append(weight)
        return {"weight": weight}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return loop.named(net=self.net.state_dict(), adam=self.optimiser.tensors()), {"heard": self.heard}

    def restore(self, tensors: Mapping[str, Tensor], notes: dict[str, Any]) -> None:
        loop.fill(self.state()[0], tensors)
        self.heard = notes["heard"]

    def weights(self) -> tensors.Tensors:
        return {name: t.numpy().copy() for name, t in self.net.state_dict().items()}


def job_of(paths: Paths, p: SmallHyperparameters, stop: StopRequest | None = None) -> Job:
    return Job(p=p, paths=paths, stop=StopRequest() if stop is None else stop)


def trained(job: Job) -> Small | None:
    """None when it was stopped."""
    small = Small(job.p, job)
    return small if loop.run(small, job, loop.fingerprint(job.p)) else None


def main() -> int:
    paths, p = Paths.from_environment(), SmallHyperparameters(**json.loads(os.environ["SETTINGS"]))
    # With STOP_AFTER the first process alone is stopped: the others have to hear of it.
    stop = StopAfter(int(os.environ["STOP_AFTER"])) if parallel.rank() == 0 and "STOP_AFTER" in os.environ else None
    parallel.begin()
    small = trained(job_of(paths, p, stop))
    parallel.end()
    if small is not None and parallel.rank() == 0:
        tensors.write(paths.base / "weights.safetensors", small.weights(), {"heard": small.heard, **asdict(p)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
