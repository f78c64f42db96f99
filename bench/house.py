"""Processes of a benchmark: the stub, what is measured against it, and what they cost."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from bench.feed import ACCOUNT, BUCKET, MACHINE, REGION, Plan, model_name

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Cost:
    """At one moment: wall clock, and CPU seconds of a process with its children."""

    at: float
    cpu_seconds: float

    @classmethod
    def of(cls, process: "subprocess.Popen[bytes]", *, children: bool = True) -> "Cost":
        seen = psutil.Process(process.pid)
        cpu_seconds = 0.0
        for one in [seen, *(seen.children(recursive=True) if children else [])]:
            try:
                times = one.cpu_times()
                cpu_seconds += times.user + times.system
            except psutil.Error:
                continue
        return cls(time.monotonic(), cpu_seconds)


@dataclass(frozen=True)
class StubProcess:
    """The stub, and what it says."""

    process: "subprocess.Popen[bytes]"
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def queue_url(self) -> str:
        return f"{self.url}/{ACCOUNT}/events"

    def wait_for(self, mark: int, process: "subprocess.Popen[bytes]", seconds: float = PATIENCE_SECONDS) -> None:
        """Until so many messages were deleted by that process."""
        said = _line(self.process.stdout, process, seconds)
        assert said == f"mark {mark}", f"{mark} messages were not deleted by {process.args!r}"

    def end(self) -> dict[str, Any]:
        """Stop it; returns what it has seen."""
        self.process.terminate()
        seen: dict[str, Any] = json.loads(_line(self.process.stdout))
        return seen


@contextmanager
def stub(plan: Plan) -> Iterator[StubProcess]:
    command = [sys.executable, "-m", "bench.stub", json.dumps(asdict(plan))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            yield StubProcess(process, int(_line(process.stdout)))
        finally:
            process.kill()


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        log.open("wb") as said,
        subprocess.Popen(command, cwd=cwd, env=environment, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()


def aws(url: str) -> dict[str, str]:
    """The environment of a process for which the stub is AWS."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RETRAINER_"))}
    return {
        **given,
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


def daemon(url: str, folder: Path, models: int, **settings: str) -> dict[str, str]:
    """The environment of a daemon with policies, ledger and port of its own."""
    policies = folder / "policies"
    policies.mkdir()
    for number in range(models):
        (policies / f"{model_name(number)}.yaml").write_text(_POLICY.format(model=model_name(number)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        **aws(url),
        "RETRAINER_QUEUE_URL": f"{url}/{ACCOUNT}/events",
        "RETRAINER_DLQ_URL": f"{url}/{ACCOUNT}/refused",
        "RETRAINER_BUCKET": BUCKET,
        "RETRAINER_STATE_MACHINE_ARN": MACHINE,
        "RETRAINER_POLICIES": str(policies),
        "RETRAINER_LEDGER": f"sqlite:///{folder / 'ledger.db'}",
        "RETRAINER_HTTP_PORT": str(port),
        "RETRAINER_LOG_FORMAT": "json",
        **{f"RETRAINER_{name.upper()}": value for name, value in settings.items()},
    }


_POLICY = """model: {model}
data:
  prefix: data/{model}/
  timestamp: at
  columns:
    x: {{ kind: numerical, test: wasserstein, threshold: 0.1 }}
    y: {{ kind: numerical, test: wasserstein, threshold: 0.1 }}
triggers:
  drift: {{ share: 1.0, rows_min: 1000000, false_alarms_per_year: null }}
guards:
  cooldown: 1s
  rows_min: 1
action:
  attempts: 1
  candidates: [{{ name: ease }}]
gate:
  metric: ndcg_at_10
"""


def _line(
    stream: IO[bytes] | None, process: "subprocess.Popen[bytes] | None" = None, seconds: float = PATIENCE_SECONDS
) -> str:
    """The next line, or none when it is too long in coming, or the process it depends on has ended."""
    assert stream is not None
    until = time.monotonic() + seconds
    while time.monotonic() < until and (process is None or process.poll() is None):
        if select.select([stream], [], [], 1.0)[0]:
            return stream.readline().decode().strip()
    return ""
