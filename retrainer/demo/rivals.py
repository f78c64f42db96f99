"""What the policy is compared with: the first model for ever, and a retraining after every batch; both really done.

They use the training image's own contract (a folder, `train`, `serve`), in processes beside the loop.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from retrainer.demo.children import die_with_me
from retrainer.demo.movielens import Quarter
from retrainer.demo.shop import ASKED, Request, Score, Shop, body, ranks, shown
from retrainer.local.s3_files import pack, unpack

_LOOK_SECONDS = 0.25


class Rival:
    """A model served from a folder, scored on the requests of each quarter."""

    def __init__(self, folder: Path, artefact: Path) -> None:
        self.score = Score()
        self.retrainings = 0
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


class Rivals:
    """Both rivals, in a thread beside the loop, while the loop does not train itself."""

    def __init__(self, folder: Path, quarters: Sequence[Quarter], hyperparameters: Mapping[str, str]) -> None:
        self._folder = folder
        self._quarters = quarters
        self._hyperparameters = hyperparameters
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rivals", daemon=True)
        self._rivals: tuple[Rival, ...] = ()
        self._error: Exception | None = None
        self._done = 0
        self._free = threading.Event()
        self._free.set()

    def start(self, artefact: Path) -> None:
        """Begin with the model that the loop has just put into production."""
        for name in ("never", "always"):
            (self._folder / name).mkdir(parents=True)
        self._rivals = tuple(Rival(self._folder / name, artefact) for name in ("never", "always"))
        self._thread.start()

    def hold(self, held: bool) -> None:
        """Begin no training while the loop trains: that would want more memory, and there are no more cores."""
        if held and not self._stopping.is_set():
            self._free.clear()
        else:
            self._free.set()

    def progress(self) -> Iterator[int]:
        """How many batches are done, a few times a second until all are."""
        while self._thread.is_alive():
            yield self._done
            self._thread.join(_LOOK_SECONDS)

    def finish(self) -> tuple[Rival, Rival]:
        """Both, when they are done; raises what went wrong with them."""
        self._thread.join()
        if self._error:
            raise self._error
        never, always = self._rivals
        return never, always

    def stop(self) -> None:
        self._stopping.set()
        self._free.set()
        if self._thread.is_alive():
            self._thread.join(60)

    def _run(self) -> None:
        counter = Shop()
        try:
            for n, quarter in enumerate(self._quarters):
                requests = counter.requests(quarter, asked=0 if n == 0 else ASKED)
                self._done = n
                if n == 0:
                    continue
                for rival in self._rivals:
                    rival.answer(requests)
                self._free.wait()
                if self._stopping.is_set():
                    return
                if n < len(self._quarters) - 1:
                    self._rivals[1].retrain(self._quarters[: n + 1], self._hyperparameters)
        except Exception as error:
            self._error = error


class Server:
    """`python -m trainer serve` on a free port of the loopback."""

    def __init__(self, base: Path, artefact: Path) -> None:
        shutil.rmtree(base, ignore_errors=True)
        unpack(artefact, base / "model")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
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
