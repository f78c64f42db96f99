"""A whole installation on this machine: the embedded AWS with the stack, `retrainer run` beside it, and an operator."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import boto3
import httpx

from retrainer.demo.children import die_with_me
from retrainer.local.aws import LocalAws
from retrainer.wiring import embedded
from tests.system.until import until

Policy = dict[str, Any]
POLL_SECONDS = 2
"""Of the daemon's long polls, so that it drains quickly; nothing else of the stack or the settings is changed."""


class Daemon:
    """The process `retrainer run`. It dies with the test."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.environment = {**os.environ, **environment}
        self.url = f"http://127.0.0.1:{environment['RETRAINER_HTTP_PORT']}"
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process, "the daemon is not started"
        return self._process.pid

    def start(self) -> None:
        """Returns once it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                die_with_me(sys.executable, "-m", "retrainer", "run"),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._is_ready, told=self.last_words)

    def kill(self) -> None:
        """SIGKILL: nothing of it is given a chance to finish."""
        process, self._process = self._process, None
        assert process
        process.kill()
        process.wait(10)

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM; the exit status. Raises TimeoutExpired when it takes longer."""
        process, self._process = self._process, None
        assert process
        process.terminate()
        try:
            return process.wait(seconds)
        finally:
            process.kill()

    def get(self, path: str) -> httpx.Response:
        """Its answer, an error being none. Raises AssertionError with how it ended when it is no longer there."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=10).raise_for_status()
        except httpx.TransportError as error:
            status = self._process.poll() if self._process else "not started"
            raise AssertionError(f"the daemon did not answer; exit status {status}:\n{self.last_words()}") from error

    def is_started(self) -> bool:
        return self._process is not None

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, f"the daemon ended at its start:\n{self.last_words()}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


class House:
    """What a test asks of the installation: put, look, wait, and operate by the command line."""

    def __init__(self, folder: Path, policies: Iterable[Policy], *, visibility_seconds: int | None = None) -> None:
        """`visibility_seconds` shortens how long a message that a dead daemon had in hand stays invisible."""
        self.folder = folder
        self.policies = folder / "policies"
        self.policies.mkdir(parents=True)
        for policy in policies:
            self.write_policy(policy)
        self.aws = LocalAws(folder / "aws", stop_grace_seconds=2.0)
        self._visibility_seconds = visibility_seconds
        self.environment: dict[str, str] = {}

    def open(self) -> None:
        """Start the embedded AWS, put the stack into it, start the daemon."""
        self.aws.start()
        self.environment = embedded(
            self.aws, policies=self.policies, ledger=self.folder / "ledger.db", http_port=_free_port()
        ) | {"RETRAINER_POLL_WAIT_SECONDS": str(POLL_SECONDS), "RETRAINER_OBSERVE_SECONDS": "1"}
        self.queue, self.dlq = self.environment["RETRAINER_QUEUE_URL"], self.environment["RETRAINER_DLQ_URL"]
        self.bucket = self.environment["RETRAINER_BUCKET"]
        self.state_machine = self.environment["RETRAINER_STATE_MACHINE_ARN"]
        session = boto3.Session("test", "test", region_name=self.aws.env["AWS_REGION"])

        def client(name: str) -> Any:
            return session.client(name, endpoint_url=self.aws.endpoint_url)  # type: ignore[call-overload]

        self.s3, self.sqs, self.states = client("s3"), client("sqs"), client("stepfunctions")
        self.sagemaker, self.runtime = client("sagemaker"), client("sagemaker-runtime")
        if self._visibility_seconds is not None:
            attributes = {"VisibilityTimeout": str(self._visibility_seconds)}
            self.sqs.set_queue_attributes(QueueUrl=self.queue, Attributes=attributes)
        self.daemon = Daemon(self.environment, self.folder / "daemon.log")
        self.daemon.start()

    def close(self) -> None:
        """Stop both by their pids; nothing of them may be left."""
        try:
            if hasattr(self, "daemon") and self.daemon.is_started():
                self.daemon.stop()
        finally:
            self.aws.stop()
        until(lambda: not self.processes(), seconds=10, told=self.processes)

    def processes(self) -> dict[int, str]:
        """Every process that was started for this house: its folder is in their environment or command line."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command, given = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if str(self.folder).encode() in command + given:
                found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def pids(self, words: str) -> list[int]:
        """The processes of this house whose command line has these words."""
        return [pid for pid, command in self.processes().items() if words in command]

    # --- what the world does ---

    def put(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)

    def send(self, body: str | Mapping[str, Any]) -> str:
        """A message on the events queue, from whoever may write to it; its id."""
        text = body if isinstance(body, str) else json.dumps(body)
        return str(self.sqs.send_message(QueueUrl=self.queue, MessageBody=text)["MessageId"])

    def recommended(self, model: str, histories: Iterable[list[int]]) -> list[list[int]]:
        """What the endpoint of a model recommends after each history."""
        instances = [{"user_id": n, "history": history} for n, history in enumerate(histories)]
        answer = self.runtime.invoke_endpoint(
            EndpointName=model,
            ContentType="application/json",
            Body=json.dumps({"instances": instances, "k": 10}).encode(),
        )
        return [p["items"] for p in json.loads(answer["Body"].read())["predictions"]]

    def write_policy(self, policy: Policy) -> None:
        """JSON is YAML too."""
        (self.policies / f"{policy['model']}.yaml").write_text(json.dumps(policy, indent=2))

    # --- what an operator does and sees ---

    def run(self, *arguments: str, status: int = 0) -> str:
        """`retrainer ...` as an operator types it; what it wrote."""
        done = subprocess.run(
            [sys.executable, "-m", "retrainer", *arguments],
            env={**os.environ, **self.environment, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=90,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"exit status {done.returncode}: {said}"
        return said

    def get(self, path: str) -> Any:
        return self.daemon.get(path).json()

    def status(self, model: str) -> dict[str, Any]:
        known: dict[str, Any] = self.get("/statusz")["models"][model]
        return known

    def decisions(self, model: str, reason: str | None = None) -> list[dict[str, Any]]:
        """All decisions of a model (with this reason), oldest first."""
        told = self.get(f"/decisions?model={model}&limit=500")
        return [d for d in reversed(told) if reason in (None, d["reason"])]

    def decided(self, model: str, reason: str, *, times: int = 1, seconds: float = 60) -> dict[str, Any]:
        """The n-th decision with this reason, as soon as there is one."""
        return self._nth(model, lambda d: bool(d["reason"] == reason), times, seconds)

    def ended(self, model: str, *, times: int = 1, seconds: float = 60) -> dict[str, Any]:
        """The decision on the end of the n-th execution, as soon as there is one; it may be another retraining."""
        return self._nth(model, lambda d: bool(d["event"]["kind"] == "execution_ended"), times, seconds)

    def _nth(self, model: str, wanted: Callable[[dict[str, Any]], bool], n: int, seconds: float) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [d for d in self.decisions(model) if wanted(d)][n - 1 :]

        return until(found, seconds=seconds, told=lambda: self.story(model))[0]

    def story(self, model: str) -> str:
        told = [f"{d['decision']} {d['event']['kind']}: {d['reason']}, {d['detail']}" for d in self.decisions(model)]
        return "\n" + "\n".join(told)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels; a series that was never declared is a KeyError."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = self.daemon.get("/metrics").text.splitlines()
        series = [line for line in lines if re.match(rf"{name}[{{ ]", line) and all(w in line for w in wanted)]
        if not series:
            raise KeyError(f"{name} {labels}")
        return sum(float(line.rpartition(" ")[2]) for line in series)

    def generations(self, model: str) -> list[str]:
        """The generation of every execution that Step Functions knows of a model, as in g1, oldest first."""
        pages = self.states.get_paginator("list_executions").paginate(stateMachineArn=self.state_machine)
        names = [e["name"] for page in pages for e in page["executions"]]
        return sorted(n.removeprefix(f"{model}-").partition("-")[0] for n in names if n.startswith(f"{model}-g"))

    def refused(self) -> list[dict[str, Any]]:
        """What the dead-letter queue holds, ten at the most; looking leaves it there."""
        answer = self.sqs.receive_message(
            QueueUrl=self.dlq, MaxNumberOfMessages=10, VisibilityTimeout=0, MessageAttributeNames=["All"]
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def queue_count(self, attribute: str) -> int:
        name = f"ApproximateNumberOfMessages{attribute}"
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=[name])
        return int(answer["Attributes"][name])


def policy(model: str, **sections: Any) -> Policy:
    """A policy that learns from data/<model>/ in seconds; each section given is merged into it."""
    whole: Policy = {
        "model": model,
        "data": {
            "prefix": f"data/{model}/",
            "timestamp": "timestamp",
            "required_columns": ["user_id", "item_id", "timestamp"],
        },
        "guards": {"cooldown": "1s"},
        "action": {
            "poll": "1s",
            "candidates": [
                {
                    "name": "ease",
                    "instance_type": "ml.m5.large",
                    "spot": False,
                    "hyperparameters": {"model": "ease", "regularisation": 5},
                }
            ],
        },
        "gate": {"metric": "ndcg_at_10", "min_gain": 0, "baselines": ["popularity"]},
    }
    return _merged(whole, sections)


def _merged(below: Policy, above: Mapping[str, Any]) -> Policy:
    """`above` over `below`, section by section."""
    both = {
        k: _merged(below[k], v) if isinstance(v, dict) and isinstance(below.get(k), dict) else v
        for k, v in above.items()
    }
    return {**below, **both}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
