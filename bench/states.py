"""The stub's Step Functions and S3: executions that end at once, and models asked for another when they are idle."""

import asyncio
import json
import re
import time
from typing import Any

from bench.feed import ACCOUNT, MACHINE, REGION, Feed, model_name, object_created

REST_SECONDS = 1.5
"""How long a model is left alone after its execution has ended, before it is asked for again: past its cooldown."""


class States:
    """Executions by name; each ends as soon as it has started. Those of probed models fail, the others promote."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._inputs: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        models, probed = feed.plan.models, feed.plan.probed
        self._idle_at = {model_name(n): 0.0 for n in range(models - probed, models)}
        self._latencies: list[float] = []

    async def drive(self) -> None:
        """Give every model its first object and ask for it; then the probed ones again, each when it is idle."""
        if not self._feed.plan.probed:
            return
        for number in range(self._feed.plan.models):
            self._feed.put(object_created(number, len(self._feed.rows)), "")
            self._ask(model_name(number), f"first-{number}")
        asked = 0
        while True:
            await asyncio.sleep(0.013)
            now = time.monotonic()
            idle = [m for m, at in self._idle_at.items() if at <= now and m not in self._asked]
            if idle and self._feed.given < self._feed.plan.messages:
                asked += 1
                self._ask(idle[asked % len(idle)], f"probe-{asked}")

    def _ask(self, model: str, name: str) -> None:
        self._asked[model] = name
        detail = {"model": model, "why": "bench", "by": "bench"}
        self._feed.put(_envelope("retrainer.custom", "Retraining Requested", name, [], detail), name)

    def answer(self, operation: str, asked: dict[str, Any]) -> tuple[int, bytes, bytes]:
        match operation:
            case "StartExecution":
                return 200, self._started(asked["name"], asked["input"]), b""
            case "ListExecutions":
                return 200, b'{"executions":[]}', b""
            case "DescribeExecution":
                return self._described(asked["executionArn"])
            case _:
                return 200, b"{}", b""

    def _started(self, name: str, given: str) -> bytes:
        now = time.monotonic()
        self._inputs[name] = given
        model = name.rsplit("-g", 1)[0]
        probe = self._asked.get(model, "")
        handed = self._feed.handed.pop(probe, None)
        # The first is kept until its model's object has been measured; that is another story.
        if handed and probe.startswith("probe-"):
            self._latencies.append(now - handed)
        arn = f"{MACHINE.replace(':stateMachine:', ':execution:')}:{name}"
        detail = {"executionArn": arn, "stateMachineArn": MACHINE, "name": name, "status": "SUCCEEDED"}
        body = _envelope("aws.states", "Step Functions Execution Status Change", name, [arn], detail)
        self._feed.put(body, "")
        return json.dumps({"executionArn": arn, "startDate": 1.79e9}).encode()

    def _described(self, arn: str) -> tuple[int, bytes, bytes]:
        name = arn.rpartition(":")[2]
        if name not in self._inputs:
            return 400, b'{"__type":"ExecutionDoesNotExist","message":"no such execution"}', b""
        model = name.rsplit("-g", 1)[0]
        self._asked.pop(model, None)
        told = {
            "executionArn": arn,
            "stateMachineArn": MACHINE,
            "name": name,
            "startDate": 1.79e9,
            "stopDate": 1.79e9,
            "input": self._inputs[name],
        }
        if model in self._idle_at:
            self._idle_at[model] = time.monotonic() + REST_SECONDS
            told |= {"status": "FAILED", "error": "Bench", "cause": "as planned"}
        else:
            package = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{model}/1"
            output = {"outcome": "promoted", "reason": "bench", "model_package_arn": package}
            told |= {"status": "SUCCEEDED", "output": json.dumps(output)}
        return 200, json.dumps(told).encode(), b""

    def seen(self) -> dict[str, Any]:
        return {"executions": len(self._inputs), "latencies": self._latencies}


def s3(rows: bytes, head: bytes) -> tuple[int, bytes, bytes]:
    """Every object that is asked for is the same file, in the range that is asked for."""
    if head.startswith(b"PUT") or not rows:
        return (200 if head.startswith(b"PUT") else 404), b"", b""
    found = _RANGE.search(head)
    if found is None:
        return 200, rows, _ETAG
    first, last = found[1], found[2]
    start = int(first) if first else max(0, len(rows) - int(last))
    end = min(len(rows), int(last) + 1) if first and last else len(rows)
    return 206, rows[start:end], b"%sContent-Range: bytes %d-%d/%d\r\n" % (_ETAG, start, end - 1, len(rows))


_RANGE = re.compile(rb"\r\nrange: *bytes=([0-9]*)-([0-9]*)", re.IGNORECASE)
_ETAG = b'ETag: "b1946ac92492d2347c6235b4d2611184"\r\nLast-Modified: Sun, 22 Nov 2026 01:00:00 GMT\r\n'


def _envelope(source: str, kind: str, name: str, resources: list[str], detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "0",
        "id": name,
        "source": source,
        "detail-type": kind,
        "account": ACCOUNT,
        "time": "2026-11-22T01:00:00Z",
        "region": REGION,
        "resources": resources,
        "detail": detail,
    }
