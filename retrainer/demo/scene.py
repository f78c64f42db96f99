"""What all scenes share: the embedded AWS and the real daemon while it lasts, and one model to follow in them."""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from retrainer.demo.children import Children, Daemon, free_port
from retrainer.demo.view import View
from retrainer.local.aws import LocalAws
from retrainer.ports import ConfigError
from retrainer.wiring import embedded

SETTLED_SECONDS = 300.0
"""How long the loop may take over one batch, a retraining included, before the demonstration gives up."""

LOOK_SECONDS = 0.25
COOLDOWN_SECONDS = 30.0
"""A trigger kept for longer than this is not waited for."""

T = TypeVar("T")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No second demonstration may clear the folder away under the first: raises ConfigError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"a demonstration is running in {folder}; give another folder with --state") from error
        yield


def where(folder: Path) -> Mapping[str, str]:
    """What a scene leaves in its folder."""
    return {
        "ledger": f"{folder}/ledger.db (RETRAINER_LEDGER=sqlite:///{folder}/ledger.db retrainer explain ...)",
        "reports": f"{folder}/reports/",
        "metrics": f"{folder}/metrics.txt",
        "log": f"{folder}/daemon.log",
        "figures": f"{folder}/results.json",
    }


@contextmanager
def running(model: str, folder: Path, policies: Path, view: View) -> Iterator["Scene"]:
    """Both processes in an emptied folder, and the model's scene in them; on leaving, none of them is left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    aws = LocalAws(folder / "aws")
    view.tell("starting the embedded AWS, and the stack of deploy/sam/template.yaml in it")
    aws.start()
    daemon: Daemon | None = None
    try:
        port = free_port()
        given = embedded(aws, policies=policies, ledger=folder / "ledger.db", http_port=port)
        url = f"http://127.0.0.1:{port}"
        daemon = Daemon(given, folder / "daemon.log", url)
        view.tell(f"starting the daemon; its state at {url}/statusz")
        daemon.start()
        yield Scene(model, folder, view, aws, Children(aws, daemon, view.tell), url, given["RETRAINER_BUCKET"])
    finally:
        view.tell("stopping the daemon and the embedded AWS")
        if daemon:
            daemon.stop()
        aws.stop()


class Scene:
    """The bucket and the endpoint of one model on one side, the daemon's answers on the other."""

    def __init__(
        self, model: str, folder: Path, view: View, aws: LocalAws, children: Children, url: str, bucket: str
    ) -> None:
        self.model = model
        self.decisions: list[dict[str, Any]] = []
        """All that were told, in their order."""
        self._folder, self._view, self._children = folder, view, children
        self._url, self._bucket = url, bucket
        self._seen: set[str] = set()
        settings = Config(retries={"mode": "standard", "total_max_attempts": 3}, read_timeout=60)
        session = boto3.Session("test", "test", region_name=aws.env["AWS_REGION"])
        self._s3 = session.client("s3", endpoint_url=aws.endpoint_url, config=settings)
        self._runtime = session.client("sagemaker-runtime", endpoint_url=aws.endpoint_url, config=settings)

    def ask(self, body: bytes) -> bytes:
        """What the endpoint answers."""
        return self._persist(lambda: self._ask(body))

    def put(self, key: str, content: bytes) -> None:
        self._persist(lambda: self._s3.put_object(Bucket=self._bucket, Key=key, Body=content))

    def hand_in(self, name: str, content: bytes, meanwhile: Callable[[], None] = lambda: None) -> None:
        """A batch of data; returns when the loop has done all that follows. `meanwhile` is called at every look."""
        key = f"data/{self.model}/{name}.parquet"
        self.put(key, content)
        self._settle(name, key, meanwhile)

    def log(self, name: str, content: bytes) -> None:
        """What was answered on a batch."""
        self.put(f"predictions/{self.model}/{name}.parquet", content)

    def champion(self, target: Path) -> Path:
        """The artefact of the model that serves now, fetched to `target`."""
        pointer = self._s3.get_object(Bucket=self._bucket, Key=f"champions/{self.model}.json")["Body"].read()
        _, _, bucket, key = json.loads(pointer)["model_data_url"].split("/", 3)
        self._s3.download_file(bucket, key, str(target))
        return target

    def keep(self) -> dict[str, Any]:
        """Store what goes with the embedded AWS and the daemon, reports and metrics; returns what was counted."""
        reports = self._folder / "reports"
        reports.mkdir(exist_ok=True)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"reports/{self.model}/")
        for entry in (e for page in pages for e in page.get("Contents", [])):
            self._s3.download_file(self._bucket, entry["Key"], str(reports / Path(entry["Key"]).name))
        (self._folder / "metrics.txt").write_text(httpx.get(f"{self._url}/metrics").text)
        reasons = [told["reason"] for told in self.decisions]
        return {
            "decisions": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
            "generation": self._status()["generation"],
            "restarts": self._children.restarts,
        }

    def _ask(self, body: bytes) -> bytes:
        answer = self._runtime.invoke_endpoint(EndpointName=self.model, ContentType="application/json", Body=body)
        return bytes(answer["Body"].read())

    def _settle(self, batch: str, key: str, meanwhile: Callable[[], None]) -> None:
        """Show decisions until the batch was seen and nothing it led to is under way."""
        deadline = time.monotonic() + SETTLED_SECONDS
        arrived = False
        while time.monotonic() < deadline:
            self._children.watch()
            arrived = self._show(batch, key) or arrived
            if arrived and self._idle():
                self._show(batch, key)
                return
            meanwhile()
            time.sleep(LOOK_SECONDS)
        raise RuntimeError(f"the loop did not settle on {key} in {SETTLED_SECONDS:.0f} s; see daemon.log")

    def _show(self, batch: str, key: str) -> bool:
        """Tell the decisions not told yet; whether one of all so far was on this object's arrival."""
        answer = self._persist(lambda: httpx.get(f"{self._url}/decisions", params={"model": self.model, "limit": 50}))
        decisions = answer.raise_for_status().json()
        for told in reversed(decisions):
            if told["decision"] not in self._seen:
                self._seen.add(told["decision"])
                self.decisions.append(told)
                self._view.decision(batch, told)
        return any(key in told["event"]["identity"] for told in decisions)

    def _idle(self) -> bool:
        """Nothing is under way, and no kept trigger is about to fire: any batch here outlasts a cooldown."""
        status = self._status()
        soon = datetime.now(UTC) + timedelta(seconds=COOLDOWN_SECONDS)
        waking = status["wake_at"] and datetime.fromisoformat(status["wake_at"]) < soon
        return not (status["measuring"] or status["execution"] or status["effects_owed"] or waking)

    def _status(self) -> dict[str, Any]:
        answer = self._persist(lambda: httpx.get(f"{self._url}/statusz")).raise_for_status().json()
        status: dict[str, Any] = answer["models"][self.model]
        return status | {"effects_owed": answer["ledger"]["effects_owed"]}

    def _persist(self, act: Callable[[], T]) -> T:
        """Do it, again while a child that died is being brought back."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            try:
                return act()
            except (httpx.HTTPError, BotoCoreError, ClientError):
                if time.monotonic() > deadline:
                    raise
                self._children.watch()
                time.sleep(0.2)
