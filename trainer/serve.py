"""``python -m trainer serve``: GET /ping and POST /invocations over the model directory, by the standard library alone.

An unknown user needs nothing special: the history is in the request. Items the model does not know are left out of it,
and an empty history gets recent popularity. Equal scores are ordered by item id, so an answer is always the same.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import types
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from trainer import artefact
from trainer.contract import ArtefactError, Paths
from trainer.data import IntArray, index_of
from trainer.progress import say

BODY_BYTES_MAX = 6 * 1024 * 1024  # SageMaker's own limit of an InvokeEndpoint payload
INSTANCES_MAX = 10_000
ITEMS_MAX = 1000
SOCKET_SECONDS = 60


class BadRequestError(Exception):
    """The message says what to send instead."""


@dataclass(frozen=True, slots=True)
class Query:
    histories: list[IntArray]
    k: int


def parse(body: bytes) -> Query:
    """``{"instances": [{"user_id": 1, "history": [ids, oldest first]}], "k": 10}``; user_id and k are optional."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
        raise BadRequestError('give {"instances": [{"user_id": 1, "history": [1, 2]}], "k": 10}')
    k = request.get("k", 10)
    if not _is_integer(k) or not 1 <= k <= ITEMS_MAX:
        raise BadRequestError(f"'k' must be a whole number from 1 to {ITEMS_MAX}")
    if len(request["instances"]) > INSTANCES_MAX:
        raise BadRequestError(f"at most {INSTANCES_MAX} instances a request")
    return Query([_history(number, instance) for number, instance in enumerate(request["instances"])], k)


def _history(number: int, instance: Any) -> IntArray:
    if not isinstance(instance, dict):
        raise BadRequestError(f"instances[{number}] must be an object with 'history'")
    history = instance.get("history", [])
    if not isinstance(history, list) or not all(_is_integer(item) and abs(item) < 2**63 for item in history):
        raise BadRequestError(f"instances[{number}].history must be a list of item ids (whole numbers), oldest first")
    return np.array(history, dtype=np.int64)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def recommend(model: artefact.Model, history_T: IntArray, k: int) -> dict[str, Any]:
    """The ``k`` best items the user has not had; fewer when the catalogue is smaller."""
    item_I = model.ranker.item_I
    place_T = index_of(item_I, history_T)
    place_T = place_T[place_T >= 0]
    score_I = np.array(model.ranker.rolling(place_T, len(place_T))[0], dtype=np.float32)
    score_I[place_T] = -np.inf
    count = min(k, len(item_I) - len(np.unique(place_T)))
    bound = np.partition(score_I, -count)[-count] if count else np.inf
    among_C = np.flatnonzero(score_I >= bound) if count else np.zeros(0, dtype=np.int64)
    best_K = among_C[np.lexsort((item_I[among_C], -score_I[among_C]))][:count]
    return {"items": item_I[best_K].tolist(), "scores": [round(float(score), 6) for score in score_I[best_K]]}


def answer(model: artefact.Model, body: bytes) -> dict[str, Any]:
    query = parse(body)
    return {
        "predictions": [recommend(model, history_T, query.k) for history_T in query.histories],
        "model": {
            "generation": model.manifest.get("generation"),
            "family": model.config["family"],
            "weights_sha256": model.manifest["weights_sha256"],
        },
    }


class Endpoint(BaseHTTPRequestHandler):
    """One connection; keeps it open between requests (HTTP/1.1)."""

    protocol_version = "HTTP/1.1"
    timeout = SOCKET_SECONDS
    disable_nagle_algorithm = True
    model: artefact.Model

    def do_GET(self) -> None:
        if self.path == "/ping":
            self._reply(200, {"status": "ok"})
        else:
            self._reply(404, {"error": "give GET /ping or POST /invocations"})

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        if self.path != "/invocations":
            self._reply(404, {"error": "give GET /ping or POST /invocations"})
            return
        try:
            self._reply(200, answer(self.model, body))
        except BadRequestError as error:
            self._reply(400, {"error": str(error)})

    def _body(self) -> bytes | None:
        """The body, or None when an error was answered; the connection is closed then, since its bytes stay unread."""
        length = self.headers.get("Content-Length", "")
        kind = self.headers.get("Content-Type", "application/json").split(";")[0].strip()
        status, complaint = 0, ""
        if not length.isdecimal():
            status, complaint = 411, "give a Content-Length"
        elif int(length) > BODY_BYTES_MAX:
            status, complaint = 413, f"the body has {length} bytes; at most {BODY_BYTES_MAX}"
        elif kind != "application/json":
            status, complaint = 415, f"the content type is '{kind}'; give application/json"
        if status:
            self.close_connection = True
            self._reply(status, {"error": complaint})
            return None
        return self.rfile.read(int(length))

    def _reply(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Nothing a request: /ping comes every five seconds, and SageMaker counts invocations itself."""


def server(model: artefact.Model, host: str, port: int) -> ThreadingHTTPServer:
    """Bound and listening; port 0 takes a free one (``server_address`` says which)."""
    endpoint = type("LoadedEndpoint", (Endpoint,), {"model": model})
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    return ThreadingHTTPServer((host, port), endpoint)


def main(paths: Paths) -> int:
    if not paths.model.is_dir():
        raise ArtefactError(f"{paths.model}: no model directory; SageMaker unpacks model.tar.gz there")
    host = os.environ.get("SAGEMAKER_BIND_TO_HOST", "0.0.0.0")  # noqa: S104 - the contract of a SageMaker container
    listening = server(artefact.load(paths.model), host, int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")))

    def stop(_number: int, _frame: types.FrameType | None) -> None:
        threading.Thread(target=listening.shutdown).start()  # shutdown waits for the loop this signal interrupted

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    say("serving", host=host, port=listening.server_address[1])
    with listening:
        listening.serve_forever(poll_interval=0.1)
    return 0
