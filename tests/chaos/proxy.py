"""The way from a daemon to AWS, and what goes wrong on it: lost replies, throttling, second deliveries, and deaths."""

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

_HOP = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})
_REMEMBERED = 30
_ANSWER_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked of which service, by the names AWS has for them."""

    service: str
    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often what goes wrong, as shares of the calls.

    ambiguous: AWS does it, and the caller gets no reply, or a 500 or 503. throttled: AWS does not do it and says so.
    duplicated: an answer of ReceiveMessage delivers a message a second time.
    """

    ambiguous: float = 0.10
    throttled: float = 0.05
    duplicated: float = 0.20


PEACE = Faults(ambiguous=0.0, throttled=0.0, duplicated=0.0)


class Line:
    """One replica's own port of the proxy. As an async context manager it listens on loopback.

    `orders` are named crash points, as in before:StartExecution, and may be shared: the first call that meets one takes
    it off, calls `kill` and gets no answer. `throttled_service` is one that refuses everything. `heard_at` is when the
    replica first polled its queue, by the monotonic clock, since another was expected.
    """

    def __init__(self, upstream: str, random: Random, orders: set[str], kill: Callable[[str], Awaitable[None]]) -> None:
        self.faults = PEACE
        self.throttled_service: str | None = None
        self.heard_at: float | None = None
        self._heard = asyncio.Event()
        self._lives = 0
        self.told: Counter[str] = Counter()
        self._upstream = upstream
        self._random = random
        self._orders = orders
        self._kill = kill
        self._seen: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)
        self._open = AsyncExitStack()
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(limit=0)
        made = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, connector=connector)
        self._session = await self._open.enter_async_context(made)
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", self._answered)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._open.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def expect(self) -> None:
        """A new process will be heard on this line."""
        self.heard_at = None
        self._heard.clear()
        self._lives += 1

    async def heard(self, seconds: float = 60) -> None:
        """Returns once it polls its queue. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._heard.wait()

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        call, life = identified(request), self._lives
        if call.operation == "ReceiveMessage" and self.heard_at is None:
            self.heard_at = time.monotonic()
            self._heard.set()
        try:
            body = await request.read()
        except ConnectionError:  # it was killed in mid-sentence
            return _hung_up(request)
        if await self._dies(f"before:{call.operation}", life):
            return _hung_up(request)
        faults = self.faults
        if self.throttled_service == call.service or self._random.random() < faults.throttled:
            self.told["throttled"] += 1
            return throttled(call)
        try:
            answer = await self._forwarded(request, body)
        except aiohttp.ClientError:
            return _hung_up(request)
        if await self._dies(f"after:{call.operation}", life):
            return _hung_up(request)
        if self._random.random() < faults.ambiguous:
            self.told["ambiguous"] += 1
            return _hung_up(request) if self._random.random() < 0.5 else failed(call, self._random.choice((500, 503)))
        if call.operation == "ReceiveMessage" and answer.status == 200:
            return self._delivered(answer, faults)
        return answer

    async def _forwarded(self, request: web.Request, body: bytes) -> web.Response:
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _HOP and k.lower() != "expect"]
        url = URL(f"{self._upstream}{request.raw_path}", encoded=True)
        async with self._session.request(request.method, url, headers=headers, data=body) as reply:
            content = await reply.read()
            kept = [(k, v) for k, v in reply.headers.items() if k.lower() not in _HOP]
            answer = web.Response(status=reply.status, headers=kept, body=content)
            if request.method == "HEAD":
                answer.headers["Content-Length"] = reply.headers.get("Content-Length", "0")
            return answer

    async def _dies(self, point: str, life: int) -> bool:
        """Not when the caller has died meanwhile: its successor is not to be killed for it."""
        if point not in self._orders or life != self._lives:
            return False
        self._orders.remove(point)
        await self._kill(point)
        return True

    def _delivered(self, answer: web.Response, faults: Faults) -> web.Response:
        """At least once: a message may come again, in the same answer or a later one, as SQS reserves the right to."""
        assert isinstance(answer.body, bytes)
        content = json.loads(answer.body)
        messages = content.get("Messages", [])
        self._seen.extend(messages)
        if not messages or self._random.random() >= faults.duplicated or len(messages) >= 10:
            return answer
        self.told["duplicated"] += 1
        content["Messages"] = [*messages, self._random.choice(self._seen)]
        return web.Response(status=200, headers=answer.headers, body=json.dumps(content).encode())


def identified(request: web.BaseRequest) -> Call:
    """The JSON protocols name the operation in a header; S3 is told by method and path."""
    target = request.headers.get("X-Amz-Target", "")
    service, _, operation = target.partition(".")
    if operation:
        return Call(
            service={"AmazonSQS": "sqs", "AWSStepFunctions": "states"}.get(service, service), operation=operation
        )
    verb = {"PUT": "Put", "GET": "Get", "HEAD": "Head", "DELETE": "Delete"}.get(request.method, request.method)
    kind = "Object" if "/" in request.path.strip("/") else "Bucket"
    return Call(service="s3", operation=f"{verb}{kind}")


def throttled(call: Call) -> web.Response:
    """Refused for the moment, in the words of the service's own protocol."""
    match call.service:
        case "sqs":
            return _json(403, "com.amazonaws.sqs#RequestThrottled", "Rate exceeded", query="RequestThrottled;Sender")
        case "s3":
            return _xml(503, "SlowDown", "Please reduce your request rate.")
        case _:
            return _json(400, "ThrottlingException", "Rate exceeded")


def failed(call: Call, status: int) -> web.Response:
    """An error of the server's, which leaves open whether it was done."""
    code = "InternalError" if status == 500 else "ServiceUnavailable"
    if call.service == "s3":
        return _xml(status, code, "We encountered an internal error. Please try again.")
    return _json(status, code, "try again", query=f"{code};Receiver" if call.service == "sqs" else None)


def _hung_up(request: web.BaseRequest) -> web.Response:
    """The connection is gone before the answer is."""
    if request.transport:
        request.transport.abort()
    return web.Response(status=500)


def _json(status: int, code: str, message: str, *, query: str | None = None) -> web.Response:
    headers = {"x-amzn-ErrorType": code} | ({"x-amzn-query-error": query} if query else {})
    text = json.dumps({"__type": code, "message": message})
    return web.Response(status=status, headers=headers, body=text.encode(), content_type="application/x-amz-json-1.0")


def _xml(status: int, code: str, message: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return web.Response(status=status, body=text.encode(), content_type="application/xml")
