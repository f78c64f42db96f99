from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trainer import artefact, serve, train
from trainer.contract import Paths, StopRequest

from .conftest import lay_out

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module", params=["ease", "sasrec"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> artefact.Model:
    paths = Paths(tmp_path_factory.mktemp(request.param))
    lay_out(paths, {"model": request.param, "generation": "3"})
    train.main(paths, StopRequest())
    return artefact.load(paths.model)


@pytest.fixture
def ask(model: artefact.Model) -> Iterator[Ask]:
    """Asks a real server on a free port: ``ask("POST", "/invocations", body) -> (status, answer)``."""
    listening = serve.server(model, "127.0.0.1", 0)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    connections = []

    def send(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", listening.server_address[1], timeout=10)
        connections.append(connection)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    yield send
    for connection in connections:
        connection.close()
    listening.shutdown()
    thread.join()
    listening.server_close()


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


def test_other_paths_types_and_sizes_are_refused(ask: Ask) -> None:
    assert ask("GET", "/")[0] == 404
    assert ask("POST", "/elsewhere", b"{}")[0] == 404
    assert ask("POST", "/invocations", b"{}", Content_Type="application/x-pickle")[0] == 415
    assert ask("POST", "/invocations", None, Content_Length=str(10**9))[0] == 413
    assert ask("POST", "/invocations", None, Content_Length="-1")[0] == 411
