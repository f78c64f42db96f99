"""Several processes for one training job: ``train`` starts torchrun, and tells of it what one process would tell.

torchrun ends with 1 after a SIGTERM that every worker has handled, and with 1 for whatever fails, so the workers report
for themselves. Nothing here imports torch: it is the parent, or the first lines of a worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from trainer import contract
from trainer.contract import Paths, Resources, StopRequest, TrainerError

SHUTDOWN_SECONDS = 110  # what torchrun leaves its workers; SageMaker kills after 120
POLL_SECONDS = 0.1
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PORT = "29500"  # torchrun's own default, where MASTER_PORT does not say otherwise; between hosts only
_REPORTS = "TRAINER_REPORTS"


def is_needed(workers: int, paths: Paths) -> bool:
    """Whether ``train`` has to start others; never in a process that torchrun started."""
    if "RANK" in os.environ:
        return False
    return len(contract.read_resources(paths.resources).hosts) > 1 or _processes(workers) > 1


def main(workers: int, paths: Paths, stop: StopRequest) -> int:
    """The exit code of this machine's workers together; raises the error of the one that failed first."""
    with tempfile.TemporaryDirectory() as reports:
        resources = contract.read_resources(paths.resources)
        environment = {**os.environ, _REPORTS: reports, "SAGEMAKER_BASE_DIR": str(paths.base)}
        if resources.network_interface:
            environment |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), resources.network_interface)
        processes = _processes(workers)
        stop.is_asked = True
        child = subprocess.Popen(_command(processes, resources), env=environment, preexec_fn=_die_with_parent)
        told = False
        while child.poll() is None:
            # A worker that has not begun would die of the signal, and leave the others waiting for it.
            if stop and not told and len(list(Path(reports).iterdir())) == processes:
                child.terminate()
                told = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(POLL_SECONDS)
        return _outcome(Path(reports), child.returncode)


def worker() -> int:
    """One of torchrun's processes. Its report is empty until it ends, however it ends."""
    _die_with_parent()
    report = Path(os.environ[_REPORTS]) / os.environ["RANK"]
    stop = StopRequest()
    stop.is_asked = True
    stop.install()
    report.touch()
    try:
        from trainer import parallel, train

        parallel.begin()
        code = train.main(Paths.from_environment(), stop)
        parallel.end()
        kind = text = ""
    except Exception as error:
        kind, code, text = contract.classify(error)
        if kind == TrainerError.kind and not isinstance(error, TrainerError):
            traceback.print_exc()
    report.write_text(json.dumps({"code": code, "kind": kind, "text": text, "at": time.time()}), encoding="utf-8")
    return code


def _die_with_parent() -> None:
    """Else a worker whose torchrun is killed learns on, and writes a model that nobody waits for (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _processes(workers: int) -> int:
    """On this machine; 0 workers: one a GPU, else one. The device files spare a machine without GPU torch's import."""
    if workers > 0:
        return workers
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def _command(processes: int, resources: Resources) -> list[str]:
    meeting = ["--standalone"]
    if len(resources.hosts) > 1:
        meeting = [f"--nnodes={len(resources.hosts)}", f"--node-rank={resources.rank}"]
        meeting += [f"--master-addr={resources.hosts[0]}", f"--master-port={os.environ.get('MASTER_PORT', PORT)}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *meeting]
    return [*torchrun, f"--shutdown-timeout={SHUTDOWN_SECONDS}", "-m", "trainer.launch"]


def _outcome(reports: Path, code: int) -> int:
    """0 when every worker that began ended well. One that fell silent explains the errors of those that missed it."""
    told: list[dict[str, Any]] = []
    for file in sorted(reports.iterdir()):
        text = file.read_text(encoding="utf-8")
        if not text and code < 0:
            raise TrainerError(f"torchrun was killed by signal {-code}, and its workers with it")
        if not text:
            raise TrainerError(f"worker {file.name} was killed, by hand or by the kernel for want of memory")
        told.append(json.loads(text))
    failed = sorted((report for report in told if report["code"]), key=lambda report: float(report["at"]))
    if failed:
        error = TrainerError(failed[0]["text"])
        error.kind, error.exit_code = failed[0]["kind"], failed[0]["code"]
        raise error
    if not told:
        raise TrainerError(f"torchrun ended with {code} before it had started a worker")
    return 0


if __name__ == "__main__":
    contract.leave(worker())
