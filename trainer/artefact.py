"""A model directory: ``model.safetensors`` (tensors), ``config.json`` (shape), ``manifest.json`` (its origin).

Nothing else is accepted: no pickle can hide in it. An archive is unpacked by tarfile's ``data`` filter, and only these
names.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer import tensors
from trainer.contract import ArtefactError
from trainer.data import FloatArray
from trainer.ease import Ease
from trainer.evaluate import Ranker
from trainer.recommender_numpy import SequenceRanker

FORMAT = 1
NAMES = ("model.safetensors", "config.json", "manifest.json")
BYTES_MAX = 20_000_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model: what ranks, what it is, where it comes from."""

    ranker: Ranker
    config: dict[str, Any]
    manifest: dict[str, Any]


def save(
    folder: Path, arrays: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any], manifest: Mapping[str, Any]
) -> str:
    """Writes the three files; returns the weights' digest, which the manifest carries as ``weights_sha256``."""
    folder.mkdir(parents=True, exist_ok=True)
    checksum = tensors.write(folder / NAMES[0], arrays, {"format": FORMAT})
    _write_json(folder / NAMES[1], {"format": FORMAT, **config})
    _write_json(folder / NAMES[2], {"format": FORMAT, "weights_sha256": checksum, **manifest})
    return checksum


def load(folder: Path) -> Model:
    """Raises ArtefactError for anything but the three files, each as this trainer writes them."""
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if found != sorted(NAMES):
        raise ArtefactError(f"{folder}: holds {', '.join(found) or 'nothing'}; a model is exactly {', '.join(NAMES)}")
    config, manifest = _read_json(folder / NAMES[1]), _read_json(folder / NAMES[2])
    try:
        arrays, _header = tensors.read(folder / NAMES[0])
    except tensors.UnreadableError as error:
        raise ArtefactError(str(error)) from error
    if manifest.get("weights_sha256") != tensors.digest(arrays):
        raise ArtefactError(f"{folder}: manifest.json belongs to other weights")
    try:
        return Model(_ranker(arrays, config), config, manifest)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ArtefactError(f"{folder}: config.json and model.safetensors do not fit each other: {error!r}") from error


def unpack(archive: Path, folder: Path) -> Path:
    """Extracts ``model.tar.gz`` into ``folder`` (created); refuses any member but the three regular files."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            members = [member for member in tar if member.name not in (".", "./")]
            for member in members:
                if not member.isfile() or member.name.removeprefix("./") not in NAMES:
                    raise ArtefactError(f"{archive}: '{member.name}' is refused; a model is exactly {', '.join(NAMES)}")
            if sum(member.size for member in members) > BYTES_MAX:
                raise ArtefactError(f"{archive}: more than {BYTES_MAX} bytes unpacked")
            # By hand: tarfile's own filters came with Python 3.11.4, and Debian 12 has 3.11.2.
            for member in members:
                content = tar.extractfile(member)
                assert content is not None, "a regular file has a content"
                with (folder / member.name.removeprefix("./")).open("wb") as target:
                    shutil.copyfileobj(content, target)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ArtefactError(f"{archive}: not a readable model archive (truncated?): {error}") from error
    return folder


def find_archive(folder: Path) -> Path | None:
    """The one ``model.tar.gz`` under a channel; None where the channel says there is no champion."""
    archives = sorted(folder.rglob("*.tar.gz")) if folder.is_dir() else []
    if len(archives) > 1:
        raise ArtefactError(
            f"{folder}: {len(archives)} archives where one is expected: {', '.join(map(str, archives))}"
        )
    return archives[0] if archives else None


def ease_tensors(model: Ease, neighbours: int) -> dict[str, npt.NDArray[Any]]:
    """The weights of an item as its ``neighbours`` largest: 4 MB instead of 25 at the default size."""
    width = max(1, min(neighbours, len(model.item_I)))
    place_IK = np.argsort(-np.abs(model.weight_II), axis=1, kind="stable")[:, :width]
    return {
        "item_I": model.item_I,
        "popularity_I": model.popularity_I,
        "neighbour_IK": place_IK.astype(np.int32),
        "weight_IK": np.take_along_axis(model.weight_II, place_IK, axis=1),
    }


def _ranker(arrays: tensors.Tensors, config: dict[str, Any]) -> Ranker:
    weights = dict(arrays)
    item_I, popularity_I = weights.pop("item_I"), weights.pop("popularity_I")
    if item_I.dtype != np.int64 or popularity_I.shape != item_I.shape or not np.all(np.diff(item_I) > 0):
        raise ValueError("item_I must be ascending int64, popularity_I of the same length")
    if config["family"] == "ease":
        weight_II: FloatArray = np.zeros((len(item_I), len(item_I)), dtype=np.float32)
        np.put_along_axis(weight_II, weights["neighbour_IK"].astype(np.int64), weights["weight_IK"], axis=1)
        return Ease(item_I, popularity_I, weight_II, float(config["halflife"]))
    if config["family"] == "sasrec":
        if len(weights["item_embedding"]) != len(item_I):
            raise ValueError("item_embedding and item_I differ in length")
        return SequenceRanker(item_I, popularity_I, weights, int(config["heads"]))
    raise ValueError(f"unknown family {config['family']!r}")


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    tensors.write_bytes(file, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{file}: not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ArtefactError(f"{file}: not of format {FORMAT}")
    return value
