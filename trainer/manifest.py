"""Where a model comes from: all that is needed to train it again, and to know what it was trained by."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.contract import Paths, read_resources
from trainer.families import Trained

CHANNELS = ("train", "holdout", "champion")


def of(p: Any, trained: Trained, paths: Paths, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The manifest without ``weights_sha256``, which ``artefact.save`` adds."""
    return {
        "generation": p.generation,
        "seed": p.seed,
        "hyperparameters": {name: str(value) for name, value in dataclasses.asdict(p).items()},
        "validation": trained.metrics,
        "data": data(paths, trained, environment),
        "parent_weights_sha256": trained.parent,
        "hardware": hardware(paths),
        "training_job": environment.get("TRAINING_JOB_NAME"),
        "git_revision": environment.get("GIT_REVISION") or revision(),
    }


def data(paths: Paths, trained: Trained, environment: Mapping[str, str]) -> dict[str, Any]:
    """A container sees files and not where they lie: the training job's Environment says that (DATA_URI_<CHANNEL>)."""
    return {
        "rows": trained.rows,
        "first_at": moment(trained.first_at),
        "last_at": moment(trained.last_at),
        "manifest_uri": environment.get("DATA_MANIFEST_URI"),
        "manifest_sha256": environment.get("DATA_MANIFEST_SHA256"),
        "channels": {
            name: {"uri": environment.get(f"DATA_URI_{name.upper()}"), "files": files(paths.channel(name))}
            for name in CHANNELS
        },
    }


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """``{path: {sha256, bytes}}`` of every file of a channel."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        found[file.relative_to(folder).as_posix()] = {"sha256": checksum, "bytes": file.stat().st_size}
    return found


def hardware(paths: Paths) -> dict[str, Any]:
    """torch and the GPU are asked only where training has imported torch."""
    torch = sys.modules.get("torch")
    gpus = torch.cuda.device_count() if torch else 0
    resources = read_resources(paths.resources)
    return {
        "instance_type": resources.instance_type,
        "hosts": len(resources.hosts),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch and gpus else None,
        "gpus": gpus,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__ if torch else None,
    }


def revision() -> str | None:
    """The commit of the checkout this runs from, with -dirty for changed files; an image has GIT_REVISION instead."""
    describe = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def moment(microseconds: int) -> str:
    return str(np.datetime64(microseconds, "us")) + "Z"
