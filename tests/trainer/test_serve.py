from __future__ import annotations

import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trainer import artefact, serve

from . import families

ROOT = Path(__file__).parents[2]
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module", params=["ease", "sasrec"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> artefact.Model:
    paths, _request = families.trained(request.param, tmp_path_factory.mktemp("job"))
    return artefact.load(paths.model)


@pytest.fixture
def ask(model: artefact.Model) -> Iterator[Ask]:
    with listening(model) as asking:
        yield asking


@contextmanager
def listening(model: artefact.Model) -> Iterator[Ask]:
    """Asks a real server on a free port: ``ask("POST", "/invocations", body) -> (status, answer)``."""
    connections: list[http.client.HTTPConnection] = []

    def send(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connections.append(connection)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    with serving(model) as port:
        try:
            yield send
        finally:
            for connection in connections:
                connection.close()


@contextmanager
def serving(model: artefact.Model) -> Iterator[int]:
    """The port of a real server; at the end all that it does for anybody is done."""
    server = serve.server(model, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        for running in (thread, *(t for t in threading.enumerate() if "process_request" in t.name)):
            running.join(10)
        server.server_close()


def instances(*histories: list[int], **more: int) -> bytes:
    return json.dumps({"instances": [{"user_id": 1, "history": history} for history in histories], **more}).encode()


def test_it_recommends_what_comes_next_and_nothing_already_consumed(ask: Ask) -> None:
    assert ask("GET", "/ping") == (200, {"status": "ok"})
    status, answer = ask("POST", "/invocations", instances([1010, 1011, 1012], k=5))
    assert status == 200
    (prediction,) = answer["predictions"]
    assert {1013, 1014} & set(prediction["items"][:3])
    assert not {1010, 1011, 1012} & set(prediction["items"])
    assert prediction["scores"] == sorted(prediction["scores"], reverse=True)
    assert len(prediction["items"]) == len(prediction["scores"]) == 5
    assert answer["model"]["generation"] == 3


def test_an_unknown_user_and_unknown_items_get_the_popular_ones(ask: Ask) -> None:
    _status, answer = ask("POST", "/invocations", instances([], [1, 2, 3]))
    empty, unknown = answer["predictions"]
    assert empty == unknown
    assert len(empty["items"]) == 10


def test_more_items_than_there_are_gives_all_that_are_left(ask: Ask) -> None:
    _status, answer = ask("POST", "/invocations", instances([1010], k=1000))
    assert len(answer["predictions"][0]["items"]) == 119


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"[]", "give {"),
        (b"{}", "give {"),
        (b'{"instances": [3]}', "instances[0] must be an object"),
        (b'{"instances": [{"history": "1"}]}', "instances[0].history must be a list of item ids"),
        (b'{"instances": [{"history": [1.5]}]}', "instances[0].history"),
        (b'{"instances": [{"history": [true]}]}', "instances[0].history"),
        (b'{"instances": [{"history": [99999999999999999999]}]}', "instances[0].history"),
        (b'{"instances": [], "k": 0}', "'k' must be"),
        (b"\x80\x04K\x01.", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_request_is_told_what_to_send(ask: Ask, body: bytes, said: str) -> None:
    status, answer = ask("POST", "/invocations", body)
    assert status == 400
    assert said in answer["error"]
    assert ask("GET", "/ping")[0] == 200


def test_a_bug_is_an_answer_too_and_the_endpoint_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    broken = artefact.Model(predictor=None, config={"family": "ease"}, manifest={"weights_sha256": ""})
    with listening(broken) as ask:
        for _ in range(2):
            status, answer = ask("POST", "/invocations", instances([1]))
            assert (status, answer["error"][:14]) == (500, "AttributeError")
    assert "Traceback" in capsys.readouterr().err


HEAD = b"POST /invocations HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
ASKED = HEAD % len(instances([1010])) + instances([1010])


@pytest.mark.parametrize(
    ("sent", "read"), [(b"", 0), (HEAD[:9], 0), (HEAD % 99 + b"{", 0), (ASKED, 0), (ASKED * 50, 1)]
)
def test_a_client_that_hangs_up_leaves_no_stack_trace_and_the_endpoint_goes_on(
    model: artefact.Model, sent: bytes, read: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """By a reset, before it asks, in the midst of a request, and while it is answered."""
    with serving(model) as port:
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(sent)
        client.recv(read)
        client.close()
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        other.request("GET", "/ping")
        assert other.getresponse().status == 200
        other.close()
    assert capfd.readouterr().err == ""


def test_too_many_instances_are_refused(ask: Ask) -> None:
    status, answer = ask("POST", "/invocations", instances(*[[]] * (serve.INSTANCES_MAX + 1)))
    assert (status, answer["error"]) == (400, "at most 10000 instances a request")


ALONE = """
import json, sys
from pathlib import Path
from trainer import artefact, serve
print(json.dumps(serve.answer(artefact.load(Path(sys.argv[1])), json.loads(sys.argv[2]))))
sys.exit("torch" in sys.modules)
"""


@pytest.mark.parametrize("family", ["ease", "sasrec", "tabular"])
def test_all_but_the_cnn_are_served_without_torch(family: str, tmp_path: Path) -> None:
    paths, request = families.trained(family, tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", ALONE, str(paths.model), json.dumps(request)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)["predictions"]) == len(request["instances"])


def test_other_paths_types_and_sizes_are_refused(ask: Ask) -> None:
    assert ask("GET", "/")[0] == 404
    assert ask("POST", "/elsewhere", b"{}")[0] == 404
    assert ask("POST", "/invocations", b"{}", Content_Type="application/x-pickle")[0] == 415
    assert ask("POST", "/invocations", None, Content_Length=str(10**9))[0] == 413
    assert ask("POST", "/invocations", None, Content_Length="-1")[0] == 411
