"""A stub of SQS, Step Functions and S3 in one process, quick enough not to be what is measured.

    python -m bench.stub '{"messages": 1000, ...}'

The first line it prints is its port. Later lines are what the benchmark waits for: `mark NAME` when so many messages
are deleted, and at its end, on SIGTERM, one JSON object of what it has seen.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from typing import Any, cast

import uvloop

from bench.feed import Feed, Plan
from bench.states import States, s3

Answer = tuple[int, bytes, bytes]
"""Status, body, and lines of the head."""

HELD = b'{"Messages":[]}'
POLL_SECONDS = 1.0
"""An empty queue answers a long poll after this long, whatever was asked: the benchmarks do not measure idling here."""


class Stub:
    """What all connections share."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.feed = Feed(plan)
        self.states = States(self.feed)
        self.marks = sorted(plan.marks)
        self.deleted = 0
        self._say = say

    def delete(self, count: int) -> None:
        self.deleted += count
        while self.marks and self.deleted >= self.marks[0]:
            self._say(f"mark {self.marks.pop(0)}")

    async def answer(self, target: bytes, head: bytes, body: bytes) -> Answer:
        match target:
            case b"AmazonSQS.ReceiveMessage":
                return 200, await self._receive(body), b""
            case b"AmazonSQS.DeleteMessage":
                self.delete(1)
                return 200, b"{}", b""
            case b"AmazonSQS.DeleteMessageBatch" | b"AmazonSQS.ChangeMessageVisibilityBatch":
                ids = [e["Id"] for e in json.loads(body)["Entries"]]
                if target.endswith(b"DeleteMessageBatch"):
                    self.delete(len(ids))
                done = ",".join(f'{{"Id":"{i}"}}' for i in ids)
                return 200, b'{"Successful":[%s],"Failed":[]}' % done.encode(), b""
            case b"AmazonSQS.SendMessage":
                return 200, b'{"MessageId":"m","MD5OfMessageBody":"0"}', b""
            case _ if target.startswith(b"AWSStepFunctions."):
                return self.states.answer(target[len(b"AWSStepFunctions.") :].decode(), json.loads(body))
            case _:
                return s3(self.feed.rows, head)

    async def _receive(self, body: bytes) -> bytes:
        most = 1
        if (at := body.find(b'"MaxNumberOfMessages":')) >= 0:
            most = int(body[at + 22 : at + 25].strip(b' ,"}]'))
        if (found := self.feed.take(most)) is None:
            await self.feed.more(POLL_SECONDS)
            found = self.feed.take(most)
        return found or HELD

    def seen(self) -> dict[str, Any]:
        return {"given": self.feed.given, "deleted": self.deleted, **self.states.seen()}


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as AWS's SDKs speak it: a content length, no chunks, one request at a time."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if self._busy or end < 0 or self._transport is None:
            return
        head = self._buffer[:end]
        low = head.lower()
        length = int(_header(low, b"content-length") or 0)
        if b"\r\nexpect:" in low and len(self._buffer) == end + 4:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._buffer) < end + 4 + length:
            return
        at = low.find(b"\r\nx-amz-target:")
        target = head[at + 15 :].split(b"\r\n", 1)[0].strip() if at >= 0 else b""
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer = self._buffer[end + 4 + length :]
        self._busy = True
        task = asyncio.ensure_future(self._stub.answer(target, head, body))
        task.add_done_callback(self._answered)

    def _answered(self, task: "asyncio.Future[Answer]") -> None:
        self._busy = False
        if self._transport is None or task.cancelled():
            return
        status, body, more = task.result()
        self._transport.write(
            b"HTTP/1.1 %d OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n%s\r\n%s"
            % (status, len(body), more, body)
        )
        self._next()


def _header(low: bytes, name: bytes) -> bytes:
    at = low.find(b"\r\n" + name + b":")
    return low[at + len(name) + 3 :].split(b"\r\n", 1)[0].strip() if at >= 0 else b""


async def main() -> None:
    def say(text: str) -> None:
        print(text, flush=True)

    stub = Stub(Plan(**json.loads(sys.argv[1])), say)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(stub), "127.0.0.1", 0)
    say(str(server.sockets[0].getsockname()[1]))
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    driving = asyncio.create_task(stub.states.drive())
    await ended.wait()
    driving.cancel()
    say(json.dumps(stub.seen()))


if __name__ == "__main__":
    uvloop.run(main())
