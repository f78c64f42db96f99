"""One safetensors file with a JSON object in its header, written atomically and checked when read; never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

Tensors = dict[str, npt.NDArray[Any]]


class UnreadableError(Exception):
    """The file is truncated, corrupt, or no safetensors file at all."""


def digest(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and bytes: equal if and only if the weights are bit-identical."""
    summary = hashlib.sha256()
    for name in sorted(tensors):
        array = np.require(tensors[name], requirements="C")
        summary.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        summary.update(array.data.cast("B") if array.size else b"")
    return summary.hexdigest()


def write(file: Path, tensors: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]) -> str:
    """Writes to a temporary name, syncs, renames; returns the digest of the tensors."""
    contiguous = {name: np.require(array, requirements="C") for name, array in tensors.items()}
    checksum = digest(contiguous)
    metadata = {"header": json.dumps(header, sort_keys=True), "sha256": checksum}
    write_bytes(file, save(contiguous, metadata=metadata))
    return checksum


def write_bytes(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(file: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the header; raises UnreadableError where the checksum or anything else does not hold."""
    try:
        with safe_open(str(file), framework="np") as stored:
            metadata = stored.metadata() or {}
            tensors: Tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        header = json.loads(metadata["header"])
        if metadata["sha256"] != digest(tensors):
            raise UnreadableError(f"{file}: its checksum does not match its tensors")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"{file}: not a safetensors file of this trainer: {error!r}") from error
    if not isinstance(header, dict):
        raise UnreadableError(f"{file}: its header is not an object")
    return tensors, header
