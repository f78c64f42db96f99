"""One measured run, a process of its own: `python -m bench.drift.measured CONTENDER STEP --...` prints a line of JSON.

STEP is `reference` (what can be done once and stored) or `verdict`. Imports and a first call on a few rows are told
apart; CPU is user and system time by the kernel's count, of all threads; memory is the highest resident size since the
step began (VmHWM, set back through clear_refs) above that after the imports. It runs under other environments, too, so
this module imports nothing that Python does not have.
"""

import argparse
import importlib
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

CONTENDERS = ("ours", "preset", "registered", "nanny", "by_scipy")


class Contender(Protocol):
    """What a module of bench/drift/contenders has. `columns` are kinds by name; a verdict is [score, drifted]."""

    TEST: dict[str, str]

    def reference(self, folder: Path, columns: dict[str, str], stored: Path) -> None:
        """Whatever of the reference can be computed once, written to the folder `stored`."""

    def verdict(
        self, reference: Path, current: Path, columns: dict[str, str], stored: Path
    ) -> dict[str, tuple[float, bool]]:
        """The score of every column, and whether it has drifted."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.drift.measured", description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("step", choices=("reference", "verdict"))
    for name in ("reference", "current", "stored", "warm"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="a folder")
    args = parser.parse_args()
    columns = json.loads((args.reference.parent / "columns.json").read_text())
    began = _cpu()
    contender: Any = importlib.import_module(f"bench.drift.contenders.{args.contender}")
    imported, base = _cpu() - began, _status("VmRSS")
    _warm_up(contender, args.warm)
    print(json.dumps({"imports_s": imported, "base_mb": base, **_measured(contender, columns, args, base)}))


def _measured(contender: Contender, columns: dict[str, str], args: argparse.Namespace, base: float) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident size starts anew
    began, since = _cpu(), time.monotonic()
    scores = {}
    if args.step == "reference":
        args.stored.mkdir(exist_ok=True)
        contender.reference(args.reference, columns, args.stored)
    else:
        scores = contender.verdict(args.reference, args.current, columns, args.stored)
    found = {"cpu_s": _cpu() - began, "wall_s": time.monotonic() - since, "peak_mb": _status("VmHWM") - base}
    return {**found, "scores": scores, "asides": getattr(contender, "ASIDES", {})}


def _warm_up(contender: Contender, warm: Path) -> None:
    columns = json.loads((warm / "columns.json").read_text())
    with tempfile.TemporaryDirectory() as stored:
        contender.reference(warm / "reference", columns, Path(stored))
        contender.verdict(warm / "reference", warm / "current", columns, Path(stored))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _status(name: str) -> float:
    """Megabytes, by the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


if __name__ == "__main__":
    main()
