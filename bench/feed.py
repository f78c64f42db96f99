"""The messages of the stub queue: EventBridge's envelopes of new S3 objects, as many as asked, some of them again."""

import asyncio
import hashlib
import json
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

ACCOUNT = "123456789012"
REGION = "eu-central-1"
BUCKET = "bench-data"
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:retraining"
KEYS = 24
"""How many objects a model has: they are written over again and again, each time with another version."""
SENT = "1790000000000"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the stub gives: `messages` in all, `rate` of them a second (0: as fast as they are asked for).

    `repeated` is the share of them that say again what an earlier one said. The last `probed` of the models get none of
    them: they are asked for a retraining again and again. `rows` is the Parquet file that every object of S3 is.
    """

    messages: int
    models: int = 50
    repeated: float = 0.0
    rate: float = 0.0
    marks: tuple[int, ...] = ()
    probed: int = 0
    rows: str = ""


def model_name(number: int) -> str:
    return f"model-{number:02d}"


class Feed:
    """Messages to be received; each is handed out once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.given = 0
        self.rows = Path(plan.rows).read_bytes() if plan.rows else b""
        self._head, self._tail = _halves(json.dumps(_object_created(len(self.rows) or 1_048_576)))
        self._versions = 0
        self._random = Random(7)  # noqa: S311 - it picks which message comes again
        self._extra: deque[tuple[bytes, str]] = deque()
        self.handed: dict[str, float] = {}
        """When a message that is waited for was handed out, by its name."""
        self._began = time.monotonic()
        self._woken = asyncio.Event()

    def put(self, body: dict[str, Any], name: str) -> None:
        """One more message, before all others."""
        self._extra.append((_wrapped(json.dumps(body)), name))
        self._woken.set()

    async def more(self, seconds: float) -> None:
        """Wait until there may be something to take, at most so long."""
        if self.plan.rate and self.given < self.plan.messages:
            seconds = min(seconds, 0.002)
        self._woken.clear()
        try:
            await asyncio.wait_for(self._woken.wait(), seconds)
        except TimeoutError:
            return

    def take(self, most: int) -> bytes | None:
        """ReceiveMessage's answer with at most so many messages; None when there is none now."""
        left = self.plan.messages - self.given
        if self.plan.rate:
            left = min(left, int((time.monotonic() - self._began) * self.plan.rate) - self.given)
        found: list[bytes] = []
        while self._extra and len(found) < most:
            text, name = self._extra.popleft()
            if name:
                self.handed[name] = time.monotonic()
            found.append(text)
        count = max(0, min(most - len(found), left))
        found += [self._one() for _ in range(count)]
        return b'{"Messages":[%s]}' % b",".join(found) if found else None

    def _one(self) -> bytes:
        again = self._versions and self._random.random() < self.plan.repeated
        version = self._random.randrange(max(0, self._versions - 50_000), self._versions) if again else self._versions
        if not again:
            self._versions += 1
        self.given += 1
        models = self.plan.models - self.plan.probed
        model, key = version % models, version // models % KEYS
        named = (model, key, version)
        plain, escaped = self._head % named, self._tail % named
        digest = hashlib.md5(plain, usedforsecurity=False).hexdigest().encode()
        return b'{"MessageId":"00000000-0000-4000-8000-%012d","ReceiptHandle":"%s%d","MD5OfBody":"%s",%s}' % (
            self.given,
            b"AQEB" * 40,
            version,
            digest,
            escaped,
        )


def object_created(model: int, size: int) -> dict[str, Any]:
    """The event of a model's first object."""
    filled: dict[str, Any] = json.loads(json.dumps(_object_created(size)) % (model, 0, 0))
    return filled


def _object_created(size: int) -> dict[str, Any]:
    """As S3 writes it, with three places for model, key and version."""
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": ACCOUNT,
        "time": "2026-11-22T01:00:00Z",
        "region": REGION,
        "resources": [f"arn:aws:s3:::{BUCKET}"],
        "detail": {
            "version": "0",
            "bucket": {"name": BUCKET},
            "object": {
                "key": "data/model-%02d/part-%04d.parquet",
                "size": size,
                "etag": "b1946ac92492d2347c6235b4d2611184",
                "sequencer": "00617F08299329%08X",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": ACCOUNT,
            "source-ip-address": "1.2.3.4",
            "reason": "PutObject",
        },
    }


def _halves(body: str) -> tuple[bytes, bytes]:
    """The body as it is, for its MD5, and the rest of the message that holds it."""
    rest = f'"Body":{json.dumps(body)},"Attributes":{{"SentTimestamp":"{SENT}"}}'
    return body.encode(), rest.encode()


def _wrapped(body: str) -> bytes:
    digest = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
    message = {"MessageId": digest, "ReceiptHandle": digest, "MD5OfBody": digest, "Body": body}
    return json.dumps({**message, "Attributes": {"SentTimestamp": SENT}}).encode()
