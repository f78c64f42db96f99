"""What is answered on each address."""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from retrainer import __version__, causes, explain
from retrainer.adapters.http.bodies import Body, BodyWithWhy, Compaction, read
from retrainer.adapters.http.door import Door, refusal
from retrainer.core.decide import Decision
from retrainer.core.effects import StartExecution
from retrainer.core.events import ApprovalAnswered, Event, ModelPaused, ModelResumed, RetrainingRequested
from retrainer.core.policy import Policy
from retrainer.core.record import dump
from retrainer.ports import Clock, Ledger, Recorded, TransientError
from retrainer.telemetry import Health, word_of

LIMIT_MAX: Final = 1000
COMPACT_AGE_MIN: Final = timedelta(days=31)
"""A body may be asked for again as long as Step Functions knows the execution's name: 30 days."""

Take = Callable[[str, Event], Awaitable[Decision | None]]
"""Decide upon an event of a model and commit; None when the event was known already."""


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
        if not (
            len(asked) <= len(str(LIMIT_MAX)) and asked.isascii() and asked.isdigit() and 1 <= int(asked) <= LIMIT_MAX
        ):
            raise HTTPException(422, f"limit must be a whole number from 1 to {LIMIT_MAX}")
        if model is not None:
            self._policy(model)
        found = await self.ledger.decisions(model, limit=int(asked))
        return JSONResponse([explain.facts(r, self._bucket(r.model)) for r in found])

    async def decision(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = await self._named(name)
        if found is None:
            raise HTTPException(404, "there is no decision, event identity or execution of that name")
        return JSONResponse(await causes.account(self.ledger, found, self._bucket(found.model)))

    async def sizes(self, request: Request) -> Response:
        return JSONResponse({"bytes": await self.ledger.size_bytes(), "rows": dict(await self.ledger.counts())})

    # --- POST ---

    async def compact(self, request: Request) -> Response:
        before = (await read(request, Compaction)).before
        if before > self.clock.now() - COMPACT_AGE_MIN:
            raise HTTPException(422, f"what is younger than {COMPACT_AGE_MIN.days} days is not compacted")
        was = await self.ledger.size_bytes()
        rows = await self.ledger.compact(before)
        return JSONResponse({"rows": rows, "bytes_before": was, "bytes_after": await self.ledger.size_bytes()})

    async def trigger(self, request: Request) -> Response:
        body = await read(request, BodyWithWhy)
        event = RetrainingRequested(request=_id(body), by=body.by, why=body.why)
        return await self._ask(request.path_params["model"], event)

    async def pause(self, request: Request) -> Response:
        body = await read(request, BodyWithWhy)
        event = ModelPaused(request=_id(body), by=body.by, why=body.why)
        return await self._ask(request.path_params["model"], event)

    async def resume(self, request: Request) -> Response:
        body = await read(request, Body)
        return await self._ask(request.path_params["model"], ModelResumed(request=_id(body), by=body.by))

    async def approve(self, request: Request) -> Response:
        return await self._answer(request, approved=True)

    async def reject(self, request: Request) -> Response:
        return await self._answer(request, approved=False)

    async def _answer(self, request: Request, *, approved: bool) -> Response:
        body = await read(request, Body)
        name = request.path_params["name"]
        found = await self._named(name)
        if found is None or (name, StartExecution.__name__) not in [(key, kind) for key, kind, _ in found.effects]:
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
        if found is None or not found.event:
            raise HTTPException(409, f"{event.identity} was decided long ago")
        if found.event_kind != type(event).__name__ or json.loads(found.event) != json.loads(dump(event)):
            raise HTTPException(409, f"{event.identity} was used for another {word_of(event)}; give a new request id")
        told = {"decision": found.id, "reason": found.reason, "detail": found.detail}
        return JSONResponse({**told, "model": model, "repeated": True})

    async def _named(self, name: str) -> Recorded | None:
        """Nothing has a name with a NUL in it, and PostgreSQL would take the question for an error."""
        return None if "\x00" in name else await self.ledger.decision(name)

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
        Route("/ledger", daemon.sizes),
        Route("/ledger/compact", daemon.compact, methods=["POST"]),
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
    return Door(inner, host, token)


def _id(body: Body) -> str:
    """The client's idempotency key, or one that nobody has used."""
    return body.request or str(uuid.uuid4())


# --- answers ---


def _plain(is_well: bool, why: str) -> Response:
    return PlainTextResponse("ok\n" if is_well else f"{why or 'not yet'}\n", status_code=200 if is_well else 503)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    why = f"{request.method} is not for this address" if error.status_code == 405 else error.detail
    return refusal(error.status_code, why, error.headers)


async def _later(request: Request, error: Exception) -> Response:
    return refusal(503, f"not now: {error}", {"retry-after": "1"})
