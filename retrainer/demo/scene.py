"""The replay: MovieLens from 2004 on, a quarter a batch, through a real endpoint, a real bucket and the real daemon."""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from retrainer.demo import movielens, shop
from retrainer.demo.children import Children, Daemon, free_port
from retrainer.demo.movielens import Quarter
from retrainer.demo.rivals import compare
from retrainer.demo.view import View, table
from retrainer.local.aws import LocalAws
from retrainer.ports import ConfigError
from retrainer.wiring import embedded, load_policy

MODEL = "recommender"
SETTLED_SECONDS = 300.0
"""How long the loop may take over one batch, a retraining included, before the demonstration gives up."""

LOOK_SECONDS = 0.25
COOLDOWN_SECONDS = 30.0
"""A trigger kept for longer than this is not waited for."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to replay and where to leave everything."""

    folder: Path
    wheels: Path
    policies: Path
    start: int = 2004
    batches: int | None = None


def play(plan: Plan, console: Console) -> Mapping[str, Any]:
    """Run the whole loop over the replay; returns the figures that are shown and stored in results.json."""
    with _alone(plan.folder):
        return _play(plan, console)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No second demonstration may clear the folder away under the first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"a demonstration is running in {folder}; give another folder with --state") from error
        yield


def _play(plan: Plan, console: Console) -> Mapping[str, Any]:
    quarters = movielens.read(plan.wheels, start=plan.start)[: _last(plan)]
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.mkdir(parents=True)
    started = time.monotonic()
    with View(console, len(quarters)) as view:
        with _running(plan, view) as scene:
            for done, quarter in enumerate(quarters):
                view.batch(quarter.name, done)
                scene.replay(quarter)
                if done == 0:
                    first_model = scene.first_model(plan.folder / "first.tar.gz")
            seen = scene.keep()
        view.tell("the replay is done; now the same with the first model for ever, and retrained after every batch")
        hyperparameters = load_policy(plan.policies / f"{MODEL}.yaml").action.candidates[0].hyperparameters
        folder = plan.folder / "rivals"
        never, always = compare(folder, first_model, quarters, hyperparameters, lambda n: view.batch("comparison", n))
        view.batch("comparison", len(quarters))
    ways = {
        "never": _told(never.score, 0, always.score),
        "by this policy": _told(scene.score, seen["generation"] - 1, always.score),
        "after every batch": _told(always.score, always.retrainings, always.score),
    }
    results = {"ways": ways, **seen, "seconds": round(time.monotonic() - started, 1)}
    (plan.folder / "results.json").write_text(json.dumps(results, indent=2))
    console.print(table(ways.items()))
    for name, place in _where(plan.folder).items():
        console.print(f"{name:>10}  {place}", highlight=False, soft_wrap=True)
    return results


def _where(folder: Path) -> Mapping[str, str]:
    return {
        "ledger": f"{folder}/ledger.db (RETRAINER_LEDGER=sqlite:///{folder}/ledger.db retrainer explain ...)",
        "reports": f"{folder}/reports/",
        "metrics": f"{folder}/metrics.txt",
        "log": f"{folder}/daemon.log",
        "figures": f"{folder}/results.json",
    }


def _last(plan: Plan) -> int | None:
    return None if plan.batches is None else plan.batches + 1


@contextmanager
def _running(plan: Plan, view: View) -> Iterator["Scene"]:
    aws = LocalAws(plan.folder / "aws")
    view.tell("starting the embedded AWS, and the stack of deploy/sam/template.yaml in it")
    aws.start()
    daemon: Daemon | None = None
    try:
        port = free_port()
        given = embedded(aws, policies=plan.policies, ledger=plan.folder / "ledger.db", http_port=port)
        url = f"http://127.0.0.1:{port}"
        daemon = Daemon(given, plan.folder / "daemon.log", url)
        view.tell(f"starting the daemon; its state at {url}/statusz")
        daemon.start()
        yield Scene(plan, view, aws, Children(aws, daemon, view.tell), url, given["RETRAINER_BUCKET"])
    finally:
        view.tell("stopping the daemon and the embedded AWS")
        if daemon:
            daemon.stop()
        aws.stop()


class Scene:
    """The shop, the bucket and the endpoint on one side, the daemon's answers on the other."""

    def __init__(self, plan: Plan, view: View, aws: LocalAws, children: Children, url: str, bucket: str) -> None:
        self.score = shop.Score()
        self._plan, self._view, self._children = plan, view, children
        self._url, self._bucket = url, bucket
        self._shop = shop.Shop()
        self._seen: set[str] = set()
        self._reasons: dict[str, int] = {}
        settings = Config(retries={"mode": "standard", "total_max_attempts": 3}, read_timeout=60)
        session = boto3.Session("test", "test", region_name=aws.env["AWS_REGION"])
        self._s3 = session.client("s3", endpoint_url=aws.endpoint_url, config=settings)
        self._runtime = session.client("sagemaker-runtime", endpoint_url=aws.endpoint_url, config=settings)

    def replay(self, quarter: Quarter) -> None:
        """One quarter: ask, log, hand in, and wait until the loop has done all that follows.

        Before the first quarter nothing serves yet: its rows alone make the policy ask for the first model.
        """
        requests = self._shop.requests(quarter, asked=0 if quarter.name == "before" else shop.ASKED)
        if requests:
            answers = shop.shown(self._persist(lambda: self._ask(requests)))
            self.score.add(shop.ranks(requests, answers))
            self._put(f"predictions/{MODEL}/{quarter.name}.parquet", shop.predictions(requests, answers))
        key = f"data/{MODEL}/{quarter.name}.parquet"
        self._put(key, shop.batch(quarter, requests))
        self._settle(quarter.name, key)

    def first_model(self, target: Path) -> Path:
        """The artefact of the champion that serves now, fetched to `target`."""
        champion = json.loads(self._s3.get_object(Bucket=self._bucket, Key=f"champions/{MODEL}.json")["Body"].read())
        _, _, bucket, key = champion["model_data_url"].split("/", 3)
        self._s3.download_file(bucket, key, str(target))
        return target

    def keep(self) -> dict[str, Any]:
        """Store what goes with the embedded AWS and the daemon, reports and metrics; returns what was counted."""
        reports = self._plan.folder / "reports"
        reports.mkdir(exist_ok=True)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"reports/{MODEL}/")
        for entry in (e for page in pages for e in page.get("Contents", [])):
            self._s3.download_file(self._bucket, entry["Key"], str(reports / Path(entry["Key"]).name))
        (self._plan.folder / "metrics.txt").write_text(httpx.get(f"{self._url}/metrics").text)
        return {
            "requests": self.score.requests,
            "decisions": self._reasons,
            "generation": self._status()["generation"],
            "restarts": self._children.restarts,
        }

    def _ask(self, requests: Sequence[shop.Request]) -> bytes:
        answer = self._runtime.invoke_endpoint(
            EndpointName=MODEL, ContentType="application/json", Body=shop.body(requests)
        )
        return bytes(answer["Body"].read())

    def _put(self, key: str, content: bytes) -> None:
        self._persist(lambda: self._s3.put_object(Bucket=self._bucket, Key=key, Body=content))

    def _settle(self, batch: str, key: str) -> None:
        """Show decisions until the batch was seen and nothing it led to is under way."""
        deadline = time.monotonic() + SETTLED_SECONDS
        arrived = False
        while time.monotonic() < deadline:
            self._children.watch()
            arrived = self._show(batch, key) or arrived
            if arrived and self._idle():
                self._show(batch, key)
                return
            time.sleep(LOOK_SECONDS)
        raise RuntimeError(f"the loop did not settle on {key} in {SETTLED_SECONDS:.0f} s; see daemon.log")

    def _show(self, batch: str, key: str) -> bool:
        """Tell the decisions not told yet; whether one of all so far was on this object's arrival."""
        answer = self._persist(lambda: httpx.get(f"{self._url}/decisions", params={"model": MODEL, "limit": 50}))
        decisions = answer.raise_for_status().json()
        for told in reversed(decisions):
            if told["decision"] not in self._seen:
                self._seen.add(told["decision"])
                self._reasons[told["reason"]] = self._reasons.get(told["reason"], 0) + 1
                self._view.decision(batch, told)
        return any(key in told["event"]["identity"] for told in decisions)

    def _idle(self) -> bool:
        """Nothing is under way, and no kept trigger is about to fire: a quarter of a year outlasts any cooldown."""
        status = self._status()
        soon = datetime.now(UTC) + timedelta(seconds=COOLDOWN_SECONDS)
        waking = status["wake_at"] and datetime.fromisoformat(status["wake_at"]) < soon
        return not (status["measuring"] or status["execution"] or status["effects_owed"] or waking)

    def _status(self) -> dict[str, Any]:
        answer = self._persist(lambda: httpx.get(f"{self._url}/statusz")).raise_for_status().json()
        status: dict[str, Any] = answer["models"][MODEL]
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


def _told(score: shop.Score, retrainings: float, always: shop.Score) -> dict[str, float]:
    return {
        "retrainings": retrainings,
        "hit_rate_at_10": score.hit_rate,
        "ndcg_at_10": score.ndcg,
        "share_of_always": score.ndcg / always.ndcg if always.ndcg else 0.0,
    }
