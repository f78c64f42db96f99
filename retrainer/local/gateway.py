"""The emulator's front door: acknowledges a change when it is on disk, and answers /_retrainer/ itself."""

import asyncio
import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from retrainer.local.faults import Faults

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Save = Callable[[Iterable[str] | None], Awaitable[None]]

logger = logging.getLogger(__name__)
OWN = "/_retrainer/"
# Which state a change through a service touches: S3, EventBridge and Step Functions deliver into queues.
TOUCHED: dict[str, tuple[str, ...]] = {
    "AmazonSQS": ("sqs",),
    "AWSEvents": ("eventbridge", "sqs"),
    "AWSStepFunctions": ("stepfunctions", "sqs"),
    "SageMaker": (),  # it writes its own file
    "s3": ("s3", "sqs"),
}
READS = ("Describe", "List", "Get", "Receive", "ChangeMessageVisibility", "DeleteMessage")


class Journal:
    """Group commit for the emulator's state: those who wait while a save is under way share the next one."""

    def __init__(self, save: Save) -> None:
        self._save = save
        self._wanted: set[str] = set()
        self._next: asyncio.Future[None] | None = None
        self._lock = asyncio.Lock()

    async def commit(self, services: Iterable[str]) -> None:
        """Returns when a save that began after this call has ended."""
        self._wanted |= set(services)
        if self._next is None:
            self._next = asyncio.ensure_future(self._write())
        await asyncio.shield(self._next)

    async def everything(self) -> None:
        async with self._lock:
            await self._save(None)

    async def _write(self) -> None:
        async with self._lock:
            wanted, self._wanted, self._next = self._wanted, set(), None
            await self._save(wanted)


class Gateway:
    """An ASGI application around ministack's."""

    def __init__(self, app: Application, save: Save, faults: Faults, *, on_ready: Callable[[], None]) -> None:
        self._app, self._faults, self._on_ready = app, faults, on_ready
        self._journal = Journal(save)
        self._ready = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(OWN):
            await self._own(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, self._noticing_start(send))
        else:
            touched = changes(scope) if scope["type"] == "http" else ()
            await self._app(scope, receive, self._committing(send, touched) if touched else send)

    async def autosave(self, seconds: float) -> None:
        """Saves what no request has changed: executions, alarms, schedules, events of SageMaker."""
        await self._ready.wait()
        threading.Thread(target=self._on_ready, daemon=True).start()
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._journal.everything()
            except Exception:  # the next pass may do better; the emulator must not end over it
                logger.exception("saving the state failed")

    def _noticing_start(self, send: Send) -> Send:
        async def noticing(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._ready.set()

        return noticing

    def _committing(self, send: Send, touched: tuple[str, ...]) -> Send:
        async def committing(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                await self._journal.commit(touched)
            await send(message)

        return committing

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET health`; `GET`, `POST` and `DELETE faults`."""
        match scope["method"], scope["path"].removeprefix(OWN):
            case "GET", "health":
                await _answer(send, 200 if self._ready.is_set() else 503, {"pid": os.getpid()})
            case "GET", "faults":
                await _answer(send, 200, self._faults.describe())
            case "DELETE", "faults":
                self._faults.clear()
                await _answer(send, 200, [])
            case "POST", "faults":
                try:
                    self._faults.add(json.loads(await _body(receive)))
                except ValueError as error:
                    await _answer(send, 400, {"error": str(error)})
                else:
                    await _answer(send, 200, self._faults.describe())
            case _:
                await _answer(send, 404, {"error": "there is health and faults"})


def changes(scope: Scope) -> tuple[str, ...]:
    """The services whose state a request may change; none for a request that only reads."""
    headers = {key.lower(): value for key, value in scope["headers"]}
    service, _, action = headers.get(b"x-amz-target", b"").decode("latin-1").partition(".")
    if action:
        if action.startswith(READS):
            return ()
        return TOUCHED.get(service.partition("_")[0], ("sqs",))
    if scope["method"] in {"GET", "HEAD", "OPTIONS"}:
        return ()
    # S3 speaks plain HTTP. An object is a file of its own, so that only its event is left to be saved; everything else
    # (a bucket; Lambda; the query protocol, which hides its action in the body) is rare.
    is_object = "/" in scope["path"].strip("/")
    return ("sqs",) if is_object else TOUCHED["s3"]


async def _body(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _answer(send: Send, status: int, value: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
