"""A model: ``model.safetensors`` (tensors), ``config.json`` (shape), ``manifest.json`` (its origin), and code/.

No pickle can hide in it: only these names are accepted, in a directory and in an archive. code/ is for AWS's own
PyTorch image (``inference.py``) and tells by what source a model was made; this trainer neither unpacks nor runs it.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer import tensors
from trainer.contract import DISK_FULL, ArtefactError, HyperparameterError
from trainer.families import FAMILIES

FORMAT = 1
NAMES = ("model.safetensors", "config.json", "manifest.json")
CODE_FOLDERS = ("code", "code/trainer")
# By pattern, since a model outlives the release that wrote it and the files that release had.
CODE_NAME = re.compile(r"code/(inference\.py|requirements\.txt|trainer/[a-z0-9_]{1,40}\.py)")
BYTES_MAX = 20_000_000_000
# What inference.py needs beside the torch of AWS's image: the trainer extra of pyproject.toml.
REQUIREMENTS = "numpy>=2,<3\npillow>=12,<14\npyarrow>=25,<26\nsafetensors>=0.8,<1\n"
# RuntimeError is torch's own word.
UNFIT = (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, RuntimeError, HyperparameterError)
ALLOWED = f"a model is {', '.join(NAMES)} and code/"


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model: what predicts, what it is, where it comes from."""

    predictor: Any
    config: dict[str, Any]
    manifest: dict[str, Any]


def save(
    folder: Path, arrays: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any], manifest: Mapping[str, Any]
) -> str:
    """Writes the files; returns the weights' digest, which the manifest carries as ``weights_sha256``."""
    folder.mkdir(parents=True, exist_ok=True)
    checksum = tensors.write(folder / NAMES[0], arrays, {"format": FORMAT})
    _write_json(folder / NAMES[1], {"format": FORMAT, **config})
    _write_json(folder / NAMES[2], {"format": FORMAT, "weights_sha256": checksum, **manifest})
    _write_code(folder / "code")
    return checksum


def _write_code(folder: Path) -> None:
    """The whole package, so that nothing that inference.py needs can be missing."""
    source = Path(__file__).parent
    (folder / "trainer").mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("*.py")):
        shutil.copyfile(file, folder / "trainer" / file.name)
    shutil.copyfile(source / "inference.py", folder / "inference.py")
    (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")


def load(folder: Path) -> Model:
    """Raises ArtefactError for anything but the files of a model, each as this trainer writes them."""
    found = sorted(folder.rglob("*")) if folder.is_dir() else []
    refused = [str(path.relative_to(folder)) for path in found if not _is_allowed(path, folder)]
    if refused or not found:
        raise ArtefactError(f"{folder}: holds {', '.join(refused) or 'nothing'}; {ALLOWED}")
    return read(folder)


def _is_allowed(path: Path, folder: Path) -> bool:
    name = path.relative_to(folder).as_posix()
    if path.is_symlink():
        return False
    return name in CODE_FOLDERS if path.is_dir() else path.is_file() and _is_name(name)


def _is_name(name: str) -> bool:
    return name in NAMES or CODE_NAME.fullmatch(name) is not None


def read(folder: Path) -> Model:
    """``load`` for a folder that may hold other things as well: AWS's image leaves its own beside the model."""
    config, manifest = _read_json(folder / NAMES[1]), _read_json(folder / NAMES[2])
    try:
        arrays, _header = tensors.read(folder / NAMES[0])
    except tensors.UnreadableError as error:
        raise ArtefactError(str(error)) from error
    if manifest.get("weights_sha256") != tensors.digest(arrays):
        raise ArtefactError(f"{folder}: manifest.json belongs to other weights")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ArtefactError(f"{folder}: a weight is no number")
    name = str(config.get("family"))
    if name not in FAMILIES:
        raise ArtefactError(f"{folder}: config.json says family '{name}'; known are {', '.join(FAMILIES)}")
    try:
        return Model(import_module(FAMILIES[name].loads).load(arrays, config), config, manifest)
    except UNFIT as error:
        raise ArtefactError(f"{folder}: config.json and model.safetensors do not fit each other: {error!r}") from error


def load_archive(archive: Path) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        return load(unpack(archive, Path(folder)))


def unpack(archive: Path, folder: Path) -> Path:
    """Extracts the three files of ``model.tar.gz`` into ``folder`` (created), which must be empty.

    code/ stays in the archive. Links, other names, a name twice and more than BYTES_MAX are refused as they are met.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            size = 0
            seen: set[str] = set()
            for member in tar:
                name = member.name.removeprefix("./")
                size += member.size
                _check_member(archive, member, name, size)
                if name in seen:
                    raise ArtefactError(f"{archive}: '{member.name}' is in it twice")
                seen.add(name)
                if name in NAMES:
                    _extract(tar, member, folder / name)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        raise ArtefactError(f"{archive}: not a readable model archive (truncated?): {error}") from error
    return folder


def _check_member(archive: Path, member: tarfile.TarInfo, name: str, size: int) -> None:
    is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.size >= 0
    allowed = name in (".", *CODE_FOLDERS) if member.isdir() else is_file and _is_name(name)
    if not allowed:
        raise ArtefactError(f"{archive}: '{member.name}' is refused; {ALLOWED}")
    if size > BYTES_MAX:
        raise ArtefactError(f"{archive}: more than {BYTES_MAX} bytes unpacked")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> None:
    # By hand: tarfile's own filters came with Python 3.11.4, and Debian 12 has 3.11.2.
    content = tar.extractfile(member)
    assert content is not None, "a regular file has a content"
    with file.open("xb") as target:
        shutil.copyfileobj(content, target)


def find_archive(folder: Path) -> Path | None:
    """The one ``model.tar.gz`` under a channel; None where the channel says there is no champion."""
    archives = sorted(folder.rglob("*.tar.gz")) if folder.is_dir() else []
    if len(archives) > 1:
        raise ArtefactError(
            f"{folder}: {len(archives)} archives where one is expected: {', '.join(map(str, archives))}"
        )
    return archives[0] if archives else None


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    tensors.write_bytes(file, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{file}: not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ArtefactError(f"{file}: not of format {FORMAT}")
    return value
