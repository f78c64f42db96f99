"""The daemon's door for people and Prometheus: health, status, explanations, and requests that become events.

Listens on loopback unless a token is configured. A web page cannot use it: the Host header must name this server (so
a rebound DNS name is refused), a POST must be application/json (so a form is), and no CORS header is ever sent.
"""

import asyncio
import contextlib
import json
import socket
import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated, TypeVar

import uvicorn
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp as ASGIApp  # wiring names it
from starlette.types import Receive, Scope, Send

from retrainer import __version__, explain
from retrainer.core.decide import Decision
from retrainer.core.events import ApprovalAnswered, Event, ModelPaused, ModelResumed, RetrainingRequested
from retrainer.core.policy import Policy
from retrainer.core.record import dump
from retrainer.ports import Clock, ConfigError, Ledger, TransientError
from retrainer.telemetry import Health, word_of

BODY_BYTES_MAX = 64 * 1024
BODY_SECONDS_MAX = 10.0
LIMIT_MAX = 1000
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - looked for, not listened on
_OPEN = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked by kubelet and Prometheus, who have no token; they tell no names but those of models."""

Take = Callable[[str, Event], Awaitable[Decision | None]]
"""Decide upon an event of a model and commit; None when the event was known already."""


def _line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be one line of printable text")
    return value.strip()


Line = Annotated[str, Field(max_length=500), AfterValidator(_line)]
B = TypeVar("B", bound="_Body")
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Line
    request: RequestId | None = None


class _BodyWithWhy(_Body):
    why: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class _Daemon:
    """What the door leads to."""

    ledger: Ledger
    take: Take
    policies: Callable[[], Mapping[str, tuple[Policy, str]]]
    policy_errors: Callable[[], Sequence[str]]
    metrics_text: Callable[[], Awaitable[tuple[bytes, str]]]
    health: Callable[[], Health]
    clock: Clock

    # --- GET ---

    async def metrics(self, request: Request) -> Response:
        text, content_type = await self.metrics_text()
        return Response(text, headers={"content-type": content_type})

    async def livez(self, request: Request) -> Response:
        health = self.health()
        return _plain(health.live, health.why)

    async def readyz(self, request: Request) -> Response:
        health = self.health()
        return _plain(health.live and health.ready, health.why)

    async def statusz(self, request: Request) -> Response:
        policies = dict(self.policies())
        states = {model: await self.ledger.state(model) for model in policies}
        states |= {model: state for model, state in (await self.ledger.active()).items() if model not in policies}
        health = self.health()
        return JSONResponse(
            {
                "version": __version__,
                "at": self.clock.now().isoformat(),
                "live": health.live,
                "ready": health.ready,
                "why": health.why,
                "loop_lag_seconds": health.loop_lag_seconds,
                "poll_age_seconds": dict(health.poll_age_seconds),
                "models": {
                    m: explain.state(s, policies[m][1] if m in policies else None) for m, s in sorted(states.items())
                },
                "policy_errors": list(self.policy_errors()),
                "ledger": dict(await self.ledger.counts()),
            }
        )

    async def decisions(self, request: Request) -> Response:
        model = request.query_params.get("model")
        asked = request.query_params.get("limit", "50")
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= LIMIT_MAX):
            raise HTTPException(422, f"limit must be a whole number from 1 to {LIMIT_MAX}")
        if model is not None:
            self._policy(model)
        found = await self.ledger.decisions(model, limit=int(asked))
        return JSONResponse([explain.facts(r, self._bucket(r.model)) for r in found])

    async def decision(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = await self.ledger.decision(name)
        if found is None:
            raise HTTPException(404, "there is no decision, event identity or execution of that name")
        return JSONResponse(explain.facts(found, self._bucket(found.model)))

    # --- POST ---

    async def trigger(self, request: Request) -> Response:
        body = await _read(request, _BodyWithWhy)
        event = RetrainingRequested(request=_id(body), by=body.by, why=body.why)
        return await self._ask(request.path_params["model"], event)

    async def pause(self, request: Request) -> Response:
        body = await _read(request, _BodyWithWhy)
        event = ModelPaused(request=_id(body), by=body.by, why=body.why)
        return await self._ask(request.path_params["model"], event)

    async def resume(self, request: Request) -> Response:
        body = await _read(request, _Body)
        return await self._ask(request.path_params["model"], ModelResumed(request=_id(body), by=body.by))

    async def approve(self, request: Request) -> Response:
        return await self._answer(request, approved=True)

    async def reject(self, request: Request) -> Response:
        return await self._answer(request, approved=False)

    async def _answer(self, request: Request, *, approved: bool) -> Response:
        body = await _read(request, _Body)
        name = request.path_params["name"]
        found = await self.ledger.decision(name)
        if found is None or name in (found.id, found.event_identity):
            raise HTTPException(404, "there is no execution of that name; `retrainer status` shows those that wait")
        event = ApprovalAnswered(request=_id(body), execution=name, approved=approved, by=body.by)
        return await self._ask(found.model, event)

    async def _ask(self, model: str, event: Event) -> Response:
        self._policy(model)
        decision = await self.take(model, event)
        if decision is None:
            return await self._known(model, event)
        told = {"decision": decision.id, "reason": decision.reason.value, "detail": decision.detail}
        return JSONResponse({**told, "model": model, "repeated": False})

    async def _known(self, model: str, event: Event) -> Response:
        """The same request again has the same answer; another one under its id is refused."""
        found = await self.ledger.decision(event.identity)
        if found is None or found.model != model:
            newest = await self.ledger.decisions(model, limit=LIMIT_MAX)
            found = next((r for r in newest if r.event_identity == event.identity), None)
        if found is None:
            raise HTTPException(409, f"{event.identity} was decided long ago")
        if found.event_kind != type(event).__name__ or json.loads(found.event) != json.loads(dump(event)):
            raise HTTPException(409, f"{event.identity} was used for another {word_of(event)}; give a new request id")
        told = {"decision": found.id, "reason": found.reason, "detail": found.detail}
        return JSONResponse({**told, "model": model, "repeated": True})

    def _policy(self, model: str) -> Policy:
        known = self.policies()
        if model not in known:
            names = ", ".join(sorted(known)) or "none"
            raise HTTPException(404, f"there is no policy for that model; there are: {names}")
        return known[model][0]

    def _bucket(self, model: str) -> str | None:
        found = self.policies().get(model)
        return found[0].data.bucket if found else None


def app(
    *,
    ledger: Ledger,
    take: Take,
    policies: Callable[[], Mapping[str, tuple[Policy, str]]],
    policy_errors: Callable[[], Sequence[str]],
    metrics_text: Callable[[], Awaitable[tuple[bytes, str]]],
    health: Callable[[], Health],
    clock: Clock,
    host: str = "127.0.0.1",
    token: SecretStr | None = None,
) -> ASGIApp:
    """The ASGI application. `policies` gives each model's policy and its hash, `metrics_text` text and content type.

    host: the address listened on, which clients may name in their Host header beside the loopback names.
    """
    daemon = _Daemon(
        ledger=ledger,
        take=take,
        policies=policies,
        policy_errors=policy_errors,
        metrics_text=metrics_text,
        health=health,
        clock=clock,
    )
    routes = [
        Route("/metrics", daemon.metrics),
        Route("/livez", daemon.livez),
        Route("/readyz", daemon.readyz),
        Route("/statusz", daemon.statusz),
        Route("/decisions", daemon.decisions),
        Route("/decisions/{name:path}", daemon.decision),
        Route("/models/{model}/trigger", daemon.trigger, methods=["POST"]),
        Route("/models/{model}/pause", daemon.pause, methods=["POST"]),
        Route("/models/{model}/resume", daemon.resume, methods=["POST"]),
        Route("/executions/{name}/approve", daemon.approve, methods=["POST"]),
        Route("/executions/{name}/reject", daemon.reject, methods=["POST"]),
    ]
    inner = Starlette(routes=routes, exception_handlers={HTTPException: _refused, TransientError: _later})
    inner.router.redirect_slashes = False
    return _Door(inner, host, token)


# --- the door ---


class _Door:
    """Turns away what no client of ours would send."""

    def __init__(self, inner: ASGIApp, host: str, token: SecretStr | None) -> None:
        self._inner = inner
        # Listening everywhere, the daemon cannot know its names; then the token, which settings demand, is the guard.
        self._names = None if host in _WILDCARDS else LOOPBACK_NAMES | {host.lower()}
        self._token = token.get_secret_value().encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refused = self._objection(scope["method"], scope["path"], Headers(scope=scope))
        await (refused or self._inner)(scope, receive, send)

    def _objection(self, method: str, path: str, headers: Headers) -> Response | None:
        if self._names is not None and _host_name(headers.get("host", "")) not in self._names:
            return _error(403, "the Host header names another server; use the address of RETRAINER_HTTP_HOST")
        if self._token and path not in _OPEN and not self._is_bearer(headers.get("authorization", "")):
            why = "a bearer token is needed; set RETRAINER_HTTP_TOKEN to the daemon's"
            return _error(401, why, {"www-authenticate": "Bearer"})
        sent = headers.get("content-type", "").split(";")[0].strip().lower()
        if method == "POST" and sent != "application/json":
            return _error(415, "the content type must be application/json")
        return None

    def _is_bearer(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        assert self._token is not None
        return scheme.lower() == "bearer" and compare_digest(given.strip().encode(), self._token)


def _host_name(header: str) -> str:
    """The name in a Host header, without its port; of an IPv6 address without its brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


async def _read(request: Request, cls: type[B]) -> B:
    """The body, parsed. Refuses what is too large, too slow or not as it should be."""
    try:
        return cls.model_validate_json(await _bytes(request))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in error.errors()]
        raise HTTPException(422, "; ".join(lines)) from None


async def _bytes(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise HTTPException(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {BODY_SECONDS_MAX:.0f} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client went away") from None
    return bytes(body)


def _id(body: _Body) -> str:
    """The client's idempotency key, or one that nobody has used."""
    return body.request or str(uuid.uuid4())


# --- answers ---


def _plain(is_well: bool, why: str) -> Response:
    return PlainTextResponse("ok\n" if is_well else f"{why or 'not yet'}\n", status_code=200 if is_well else 503)


def _error(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": why}, status_code=status, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    why = f"{request.method} is not for this address" if error.status_code == 405 else error.detail
    return _error(error.status_code, why, error.headers)


async def _later(request: Request, error: Exception) -> Response:
    return _error(503, f"not now: {error}", {"retry-after": "1"})


# --- the server ---


class _Server(uvicorn.Server):
    """uvicorn inside a loop that has its own idea of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, of which port 0 is known at once. Raises ConfigError when it is not to be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {host}:{port} ({why}); set RETRAINER_HTTP_HOST or RETRAINER_HTTP_PORT to another, "
            f"as in RETRAINER_HTTP_PORT={port + 1 if 0 < port < 65535 else 8322}"
        ) from error


async def run(app: ASGIApp, listener: socket.socket, stopping: asyncio.Event | None = None) -> None:
    """Serve until `stopping` is set or the task is cancelled; requests in hand may end (3 seconds at most).

    Then the listener is closed; after a failure it stays open, so that the caller may serve again.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        limit_concurrency=256,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener.dup()]))
    stopped = asyncio.create_task((stopping or asyncio.Event()).wait())
    try:
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        failed = serving.done()
        server.should_exit = True
        await serving
        if not failed:
            listener.close()
