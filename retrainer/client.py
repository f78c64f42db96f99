"""How a command asks the daemon: HTTP on its own machine, and errors that say what to do about them."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 30.0


class FailedError(Exception):
    """The command did not do what was asked; the message says why."""


class UnreachableError(FailedError):
    """There is no daemon where it was looked for."""


def ask(
    given_url: str | None,
    method: str,
    path: str,
    body: Mapping[str, str] | None = None,
    *,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> Any:
    """The daemon's answer as JSON. Raises UnreachableError or FailedError with what to do about it."""
    import httpx

    from retrainer.settings import Reach, is_loopback, read

    reach = read(Reach)
    url = (given_url or reach.http_url).rstrip("/")
    if urlsplit(url).scheme not in ("http", "https"):
        raise FailedError(f"--url {url} is not a URL; write it as in --url http://127.0.0.1:8321")
    headers = {"authorization": f"Bearer {reach.http_token.get_secret_value()}"} if reach.http_token else {}
    # A proxy of the environment knows nothing of this machine's loopback.
    trust_env = not is_loopback(urlsplit(url).hostname or "")
    try:
        client = httpx.Client(timeout=timeout_seconds, trust_env=trust_env, headers=headers)
        with client, _waiting(f"asking {url}"):
            answer = client.request(method, url + path, json=body)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise UnreachableError(
            f"no daemon at {url}: start it with `retrainer run`, or say where it is with --url"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FailedError(f"the daemon at {url} did not answer: {type(error).__name__}: {error}") from None
    try:
        told = answer.json()
    except ValueError:
        raise FailedError(f"what listens at {url} is not a retrainer (status {answer.status_code})") from None
    if answer.is_success:
        return told
    raise FailedError(told.get("error", f"status {answer.status_code}") if isinstance(told, dict) else str(told))


def _waiting(what: str) -> AbstractContextManager[object]:
    """Shows a person that something goes on; a script is shown nothing."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(what)
