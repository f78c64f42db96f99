"""Who is let in, and what those who are not are told."""

from collections.abc import Mapping
from hmac import compare_digest
from typing import Final

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - looked for, not listened on
_OPEN: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked by kubelet and Prometheus, who have no token; they tell no names but those of models."""


def refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """The one form of every refusal."""
    return JSONResponse({"error": why}, status_code=status, headers=headers)


class Door:
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
            return refusal(403, "the Host header names another server; use the address of RETRAINER_HTTP_HOST")
        if "origin" in headers and not _is_own(headers["origin"], headers.get("host", "")):
            return refusal(403, "the Origin header names another site; no web page is let in")
        if self._token and path not in _OPEN and not self._is_bearer(headers.get("authorization", "")):
            why = "a bearer token is needed; set RETRAINER_HTTP_TOKEN to the daemon's"
            return refusal(401, why, {"www-authenticate": "Bearer"})
        sent = headers.get("content-type", "").split(";")[0].strip().lower()
        if method == "POST" and sent != "application/json":
            return refusal(415, "the content type must be application/json")
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


def _is_own(origin: str, host: str) -> bool:
    """Whether a browser's Origin is this server itself, as it was asked for; that of a sandbox or a file is `null`."""
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and rest.lower() == host.lower()
