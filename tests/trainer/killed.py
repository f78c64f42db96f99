"""Kills a training job with SIGKILL again and again: `python -m tests.trainer.killed FOLDER KILLS SEED`.

FOLDER/input is a training job's. Every start is a fork of this process, which has imported torch and read nothing. The
signal is sent when the job has asked so often whether to stop, and hits it wherever it is by then: in a step, in the
thread that writes a checkpoint, in a validation. One in four is sent from within a write, before what was written is
synced and has its name. Says what came of it as one JSON object.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from trainer import train
from trainer.contract import Paths, StopRequest

ASKS_MAX = 16
SYNCS_MAX = 8  # two of each file
IMPORTED = ("pyarrow.dataset", "trainer.cnn", "trainer.recommender", "trainer.rows")  # else by each child for itself


class Beacon(StopRequest):
    """Never received; says through a pipe that it was asked."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self.pipe = pipe

    def __bool__(self) -> bool:
        os.write(self.pipe, b".")
        return False


def start(paths: Paths, *, asks: int | None = None, syncs: int | None = None) -> int:
    """The status of a child that trained until it had asked, or would sync, so often; with neither, to its end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if syncs is not None:
            kill_at_sync(syncs)
        os.dup2(os.open(paths.base / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os._exit(train.main(paths, Beacon(writer)))
    os.close(writer)
    left = asks
    while left is None or left > 0:
        heard = os.read(reader, 1000 if left is None else left)
        if not heard:
            break  # it has ended
        left = left if left is None else left - len(heard)
    os.close(reader)
    if asks is not None:
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def kill_at_sync(number: int) -> None:
    """Has this process killed by the call of that number, from 1, instead of synced."""
    calls, sync = itertools.count(1), os.fsync

    def killing(file: int) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(file)

    os.fsync = killing  # type: ignore[assignment]


def laid_out(folder: Path, name: str) -> Paths:
    paths = Paths(folder / name)
    paths.base.mkdir()
    (paths.base / "input").symlink_to(folder / "input")
    return paths


def weights_of(paths: Paths) -> str:
    return str(json.loads((paths.model / "manifest.json").read_text())["weights_sha256"])


def main(folder: Path, kills: int, seed: int) -> int:
    whole = laid_out(folder, "whole")
    if start(whole) != 0:
        return 1
    draws = np.random.default_rng(seed)
    parts, killed, torn, digests = laid_out(folder, "parts-0"), 0, 0, []
    while killed < kills:
        if draws.random() < 0.25:
            status = start(parts, syncs=int(draws.integers(1, SYNCS_MAX)))
        else:
            status = start(parts, asks=int(draws.integers(1, ASKS_MAX)))
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            killed += 1
            torn += any(parts.checkpoints.glob(".*.tmp"))
        elif status == 0:
            digests.append(weights_of(parts))
            parts = laid_out(folder, f"parts-{len(digests)}")
        else:
            return 1
    if start(parts) != 0:
        return 1
    said = "".join(log.read_text() for log in folder.glob("parts-*/log"))
    told = {"whole": weights_of(whole), "parts": [*digests, weights_of(parts)], "killed": killed, "torn": torn}
    sys.stdout.write(json.dumps({**told, "resumed": said.count("resumed ")}))
    return 0


if __name__ == "__main__":
    for module in IMPORTED:
        import_module(module)
    Image.preinit()
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
