"""What the policy is compared with: the first model for ever, and a retraining after every batch; both really done.

They use the training image's own contract (a folder, `train`, `serve`), without SageMaker.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from retrainer.demo.children import die_with_me, free_port
from retrainer.demo.movielens import Quarter
from retrainer.demo.shop import Request, Score, Shop, body, ranks, shown
from retrainer.local.s3_files import pack, unpack


class Rival:
    """A model served from a folder, scored on the requests of each quarter."""

    def __init__(self, folder: Path, artefact: Path) -> None:
        self.score = Score()
        self.retrainings = 0
        folder.mkdir(parents=True)
        self._folder = folder
        self._artefact = artefact

    def answer(self, requests: Sequence[Request]) -> None:
        """Score the model on these requests."""
        server = Server(self._folder / "serve", self._artefact)
        try:
            self.score.add(ranks(requests, server.ask(requests)))
        finally:
            server.close()

    def retrain(self, quarters: Sequence[Quarter], hyperparameters: Mapping[str, str]) -> None:
        """Train on all these quarters, warm from the present model as the loop's training jobs are."""
        self._artefact = train(self._folder / "train", quarters, hyperparameters, self._artefact)
        self.retrainings += 1


def compare(
    folder: Path,
    artefact: Path,
    quarters: Sequence[Quarter],
    hyperparameters: Mapping[str, str],
    tell: Callable[[int], None],
) -> tuple[Rival, Rival]:
    """Both rivals over the replay that the loop has been through, from the same first model: (never, always).

    After the replay and not beside it: three trainings at a time would want more than 2 GB.
    """
    never, always = (Rival(folder / name, artefact) for name in ("never", "always"))
    counter = Shop()
    counter.requests(quarters[0])
    for n, quarter in enumerate(quarters[1:], start=1):
        tell(n)
        requests = counter.requests(quarter)
        never.answer(requests)
        always.answer(requests)
        if n < len(quarters) - 1:
            always.retrain(quarters[: n + 1], hyperparameters)
    return never, always


class Server:
    """`python -m trainer serve` on a free port of the loopback."""

    def __init__(self, base: Path, artefact: Path) -> None:
        shutil.rmtree(base, ignore_errors=True)
        unpack(artefact, base / "model")
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        given = {"SAGEMAKER_BIND_TO_PORT": str(port), "SAGEMAKER_BIND_TO_HOST": "127.0.0.1"}
        self._process = _start(base, "serve", **given)
        self._wait()

    def ask(self, requests: Sequence[Request]) -> list[list[int]]:
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{self._url}/invocations", content=body(requests), headers=headers, timeout=60)
        return shown(answer.raise_for_status().content)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self._url}/ping", timeout=2).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self._process.kill()
        raise RuntimeError(f"the model of {self._url} did not come up; its output is beside it, in log.txt")


def train(base: Path, quarters: Sequence[Quarter], hyperparameters: Mapping[str, str], champion: Path) -> Path:
    """One training job without SageMaker; returns its model.tar.gz."""
    shutil.rmtree(base, ignore_errors=True)
    for name in ("train", "champion"):
        (base / "input" / "data" / name).mkdir(parents=True)
    (base / "input" / "config").mkdir()
    (base / "input" / "config" / "hyperparameters.json").write_text(json.dumps(dict(hyperparameters)))
    pq.write_table(pa.concat_tables([q.rows for q in quarters]), base / "input" / "data" / "train" / "train.parquet")
    shutil.copy(champion, base / "input" / "data" / "champion" / "model.tar.gz")
    if _start(base, "train").wait() != 0:
        raise RuntimeError(f"a training for the comparison failed; see {base.parent / 'log.txt'}")
    artefact = base.parent / "model.tar.gz"
    pack(base / "model", artefact)
    return artefact


def _start(base: Path, verb: str, **environment: str) -> subprocess.Popen[bytes]:
    """The trainer as SageMaker starts it, its /opt/ml being `base`; what it prints is kept beside `base`."""
    given = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "OMP_NUM_THREADS": "1", **environment}
    with (base.parent / "log.txt").open("ab") as log:
        return subprocess.Popen(
            die_with_me(sys.executable, "-m", "trainer", verb),
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
