"""Checkpoints: one file each, written beside the training and made whole by one rename.

SageMaker copies /opt/ml/checkpoints to S3 file by file, in no stated order: two files that belong together could arrive
apart. It deletes nothing there, so the names take turns: S3 has as many files as the folder, however long a job runs.
There is no random state to keep: every draw is a function of (seed, epoch, step), and the cursor says which.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer import tensors
from trainer.contract import DISK_FULL, OutOfMemoryError
from trainer.progress import say

KEEP = 2
_STATE = "state"  # the JSON lies among the tensors, so that the file's checksum covers it too


@dataclass(frozen=True, slots=True)
class Checkpoint:
    tensors: tensors.Tensors
    state: dict[str, Any]
    slot: int  # which of the names it has


def interval_seconds(write_seconds: float, interruption_seconds: float) -> float:
    """From one checkpoint to the next, so that writing and repeating together cost the least.

    Young, "A first order approximation to the optimum checkpoint interval", CACM 1974; Daly, FGCS 2006, eq. 13. The
    share of time it costs is sqrt(write / (2 * interruption)) for writing, and as much again for repeating.
    """
    return math.sqrt(2 * write_seconds * interruption_seconds)


class Writer:
    """Writes one checkpoint at a time in a thread of its own; an error of that thread is raised by the next call."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        interruption_seconds: float,
        *,
        keep: int = KEEP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.fingerprint, self.keep = folder, fingerprint, keep
        self.interruption_seconds, self.clock = interruption_seconds, clock
        self.write_seconds: float | None = None  # of the last one, from the copy to the rename; None: not one yet
        self.step = self.slot = -1  # of the last checkpoint, written or resumed from
        self._began_at = 0.0
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Path] | None = None

    def due(self, step: int) -> bool:
        """Whether to write now: after the first step, since its time sets the cadence, and never two at a time."""
        if self._writing is not None:
            if not self._writing.done():
                return False
            self.wait()
        if step <= max(self.step, 0):
            return False
        if self.write_seconds is None:
            return True
        return self.clock() - self._began_at >= interval_seconds(self.write_seconds, self.interruption_seconds)

    def write(self, step: int, arrays: Mapping[str, npt.NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Takes ``arrays`` over: they must be copies, which ``state`` need not be. Waits for the checkpoint before."""
        self.wait()
        self._began_at, self.step, self.slot = self.clock(), step, (self.slot + 1) % self.keep
        told = json.dumps({**state, "fingerprint": self.fingerprint, "step": step}).encode()
        file = self.folder / f"checkpoint-{self.fingerprint[:8]}-{self.slot}.safetensors"
        self._writing = self._thread.submit(_write, file, arrays, told, self.keep)

    def wait(self) -> None:
        """Until the checkpoint in hand is on the disk; raises what kept it from getting there."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        file = writing.result()
        self.write_seconds = self.clock() - self._began_at
        say("checkpoint_saved", file=file.name, step=self.step, seconds=self.write_seconds)

    def close(self) -> None:
        """Lets the checkpoint in hand reach the disk; what goes wrong with it is past caring."""
        self._thread.shutdown()


def load_newest(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest readable checkpoint of ``fingerprint`` (same data, hyperparameters and champion), or None."""
    mine = sorted(folder.glob(f"checkpoint-{fingerprint[:8]}-*.safetensors"))
    if others := len(list(folder.glob("checkpoint-*.safetensors"))) - len(mine):
        say("checkpoint_skipped", reason="other_data_or_hyperparameters", files=others)
    newest = None
    for file in mine:
        try:
            arrays, _ = tensors.read(file)
            state = json.loads(arrays.pop(_STATE).tobytes())
            found = Checkpoint(arrays, state, int(file.stem.rpartition("-")[2]))
        except (tensors.UnreadableError, KeyError, ValueError) as error:
            say("checkpoint_skipped", reason="unreadable", detail=str(error))
            continue
        if state["fingerprint"] == fingerprint and (newest is None or state["step"] > newest.state["step"]):
            newest = found
    return newest


def _write(file: Path, arrays: Mapping[str, npt.NDArray[Any]], told: bytes, keep: int) -> Path:
    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensors.write(file, {**arrays, _STATE: np.frombuffer(told, np.uint8)}, {})
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        size = sum(array.nbytes for array in arrays.values()) / 1e6
        advice = f"give a larger volume: {keep + 1} checkpoints of {size:.0f} MB have to fit"
        raise OutOfMemoryError(f"the disk under {folder} is full ({error.strerror}); {advice}") from error
    return file
