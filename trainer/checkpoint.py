"""Checkpoints: one file each, so that one rename makes it whole; a corrupt newest falls back to the one before.

SageMaker copies /opt/ml/checkpoints to S3 file by file, in no stated order: two files that belong together could arrive
apart. There is no random state to keep: every draw is a function of (seed, epoch, step), and the cursor says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from trainer import tensors
from trainer.progress import say

KEEP = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    tensors: tensors.Tensors
    state: dict[str, Any]


def save(
    folder: Path, step: int, arrays: Mapping[str, npt.NDArray[Any]], state: Mapping[str, Any], keep: int = KEEP
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"checkpoint-{step:010d}.safetensors"
    tensors.write(file, arrays, state)
    for old in _newest_first(folder)[keep:]:
        old.unlink(missing_ok=True)
    return file


def load_newest(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest readable checkpoint whose state carries ``fingerprint`` (same data, same hyperparameters), or None."""
    for file in _newest_first(folder):
        try:
            arrays, state = tensors.read(file)
        except tensors.UnreadableError as error:
            say("checkpoint_skipped", reason="unreadable", detail=str(error))
            continue
        if state.get("fingerprint") != fingerprint:
            say("checkpoint_skipped", reason="other_data_or_hyperparameters", file=file.name)
            continue
        return Checkpoint(arrays, state)
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)
