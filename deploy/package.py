"""Assembles the Lambda code: the steps, what they share with the daemon (the gate, and how batches are profiled), and
nothing else.

    python deploy/package.py            # fills deploy/build/steps, which the template's CodeUri names

The directory is made anew each time and its content is a function of the sources alone; `archive` makes of it the same
bytes on every machine, so that a deployment without a change is no change.
"""

import io
import shutil
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "deploy" / "build" / "steps"
READING = "formats rows parquet_file csv_file json_lines capture monitor profiles remembered s3_file"
COUNTING = "values keys grid derived sample span counting two_sample p_value profile stored"
SHARED = (
    "retrainer/core/gate.py",
    "retrainer/core/window.py",
    *(f"retrainer/adapters/datasets/{name}.py" for name in READING.split()),
    *(f"retrainer/drift/{name}.py" for name in COUNTING.split()),
)
EMPTY = tuple(
    f"retrainer/{package}__init__.py" for package in ("", "core/", "adapters/", "adapters/datasets/", "drift/")
)
"""The packages' own __init__ files belong to the daemon; here they only have to exist."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip entry can carry."""


def assemble(target: Path = BUILD) -> Path:
    """Fill `target` (emptied first) and return it."""
    shutil.rmtree(target, ignore_errors=True)
    for source in sorted((ROOT / "deploy" / "steps").glob("*.py")):
        _copy(source, target / "steps" / source.name)
    for name in SHARED:
        _copy(ROOT / name, target / name)
    for name in EMPTY:
        (target / name).touch()
    return target


def archive(directory: Path) -> bytes:
    """The directory as a zip file, byte for byte reproducible."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in sorted(directory.rglob("*.py")):
            entry = zipfile.ZipInfo(path.relative_to(directory).as_posix(), EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            bundle.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


if __name__ == "__main__":
    sys.stdout.write(f"{assemble()}\n")
