"""``python -m trainer serve``: GET /ping and POST /invocations over the model directory, by the standard library alone.

What an instance is and what is predicted for it is the problem's business (``ranking.answer``, ...).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import traceback
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainer import artefact
from trainer.contract import ArtefactError, BadRequestError, Paths
from trainer.families import problem_of
from trainer.progress import say

BODY_BYTES_MAX = 6 * 1024 * 1024  # SageMaker's own limit of an InvokeEndpoint payload
INSTANCES_MAX = 10_000
SOCKET_SECONDS = 60
LENGTH_DIGITS_MAX = 20


def request_of(body: bytes | str) -> dict[str, Any]:
    """The request in a body, so far as it is the same for every problem; raises BadRequestError."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
        raise BadRequestError('give {"instances": [...]}, one object a prediction')
    if len(request["instances"]) > INSTANCES_MAX:
        raise BadRequestError(f"at most {INSTANCES_MAX} instances a request")
    return request


def answer(model: artefact.Model, request: dict[str, Any]) -> dict[str, Any]:
    """One prediction an instance, and which model made them."""
    return {
        "predictions": problem_of(model.config).answer(model.predictor, request),
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

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has hung up: nobody is left to tell
            super().handle()

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
            self._reply(200, answer(self.model, request_of(body)))
        except BadRequestError as error:
            self._reply(400, {"error": str(error)})
        except (ConnectionError, TimeoutError):  # of the answer; there is no other way to it
            raise
        except Exception as error:  # whoever asked is told; the endpoint goes on for the others
            traceback.print_exc()
            self._reply(500, {"error": f"{type(error).__name__}: {error}"})

    def _body(self) -> bytes | None:
        """The body, or None when an error was answered; the connection is closed then, since its bytes stay unread."""
        length = self.headers.get("Content-Length", "")
        kind = self.headers.get("Content-Type", "application/json").split(";")[0].strip()
        status, complaint = 0, ""
        if not length.isdecimal() or len(length) > LENGTH_DIGITS_MAX:
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
