"""The daemon's HTTP interface: what it answers, and whom it turns away."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from retrainer.adapters import http
from retrainer.ports import ConfigError
from retrainer.telemetry import Health
from tests.fakes.small_daemon import TASK_TOKEN, SmallDaemon

ASK = {"why": "new catalogue", "by": "kim"}


@pytest.fixture
def daemon() -> SmallDaemon:
    return SmallDaemon()


@pytest.fixture
async def client(daemon: SmallDaemon) -> AsyncIterator[httpx.AsyncClient]:
    async with to(daemon) as client:
        yield client


def to(daemon: SmallDaemon, *, base_url: str = "http://127.0.0.1:8321", **door: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(daemon.app(**door)), base_url=base_url)


# --- health ---


async def test_metrics_come_in_prometheus_form(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "retrainer_build_info" in answer.text


async def test_a_daemon_on_its_way_out_lives_but_is_not_ready(client: httpx.AsyncClient, daemon: SmallDaemon) -> None:
    assert (await client.get("/readyz")).status_code == 200
    daemon.health = Health(live=True, ready=False, why="stopping")
    assert (await client.get("/livez")).status_code == 200
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "stopping\n")
    daemon.health = Health(live=False, ready=True, why="no poll of retrainer-events for 90 s")
    assert (await client.get("/livez")).status_code == 503


# --- what is known ---


async def test_status_shows_every_model_and_never_the_task_token(
    client: httpx.AsyncClient, daemon: SmallDaemon
) -> None:
    daemon.policy_errors = ["policies/other.yaml:3:1: modle is unknown; write model"]
    name = await daemon.waits_for_approval()
    answer = await client.get("/statusz")
    told = answer.json()
    model = told["models"]["recommender"]
    assert model["execution"]["name"] == name
    assert model["execution"]["waits_for_approval_since"] == "2026-01-02T03:04:09+00:00"
    assert model["window"] == {"batches": 1, "rows": 500, "rows_untried": 500}
    assert told["policy_errors"] == daemon.policy_errors
    assert told["ledger"]["decisions"] == 5
    assert TASK_TOKEN not in answer.text


async def test_no_answer_holds_the_task_token(client: httpx.AsyncClient, daemon: SmallDaemon) -> None:
    name = await daemon.waits_for_approval()
    answers = [await client.get(path) for path in ("/decisions", f"/decisions/{name}", "/decisions/recommender-5")]
    answers.append(await client.post(f"/executions/{name}/approve", json={"by": "kim"}))
    assert [a.status_code for a in answers] == [200] * 4
    assert not [a for a in answers if TASK_TOKEN in a.text]


async def test_a_decision_is_found_by_its_id_its_event_and_its_execution(
    client: httpx.AsyncClient, daemon: SmallDaemon
) -> None:
    name = await daemon.waits_for_approval()
    identity = "object:my-data/data/recommender/1.parquet@1"
    by_event = (await client.get(f"/decisions/{identity}")).json()
    assert by_event["decision"] == "recommender-1"
    assert by_event["reason"] == "measuring"
    assert by_event["effects"] == [{"key": "recommender-1.measure", "kind": "measure_evidence", "status": "owed"}]
    by_execution = (await client.get(f"/decisions/{name}")).json()
    assert by_execution["decision"] == "recommender-3"
    assert by_execution["execution"] == name
    assert (await client.get("/decisions/recommender-99")).status_code == 404


async def test_decisions_are_listed_newest_first(client: httpx.AsyncClient, daemon: SmallDaemon) -> None:
    await daemon.waits_for_approval()
    told = (await client.get("/decisions", params={"model": "recommender", "limit": 2})).json()
    assert [d["decision"] for d in told] == ["recommender-5", "recommender-4"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "9" * 30, "²"])
async def test_a_limit_that_is_none_is_refused(client: httpx.AsyncClient, limit: str) -> None:
    assert (await client.get("/decisions", params={"limit": limit})).status_code == 422


# --- what is asked ---


async def test_a_trigger_answers_with_the_decision(client: httpx.AsyncClient, daemon: SmallDaemon) -> None:
    await daemon.has_data()
    answer = await client.post("/models/recommender/trigger", json=ASK)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["decision"], told["reason"]) == ("recommender-3", "retraining")
    assert "manual: new catalogue" in told["detail"]


async def test_a_pause_holds_a_trigger_back(client: httpx.AsyncClient, daemon: SmallDaemon) -> None:
    await daemon.has_data()
    assert (await client.post("/models/recommender/pause", json=ASK)).json()["reason"] == "paused"
    assert (await client.post("/models/recommender/trigger", json=ASK)).json()["reason"] == "paused"
    assert (await client.post("/models/recommender/resume", json={"by": "kim"})).json()["reason"] == "retraining"


async def test_the_same_request_twice_is_done_once(client: httpx.AsyncClient, daemon: SmallDaemon) -> None:
    asked = {**ASK, "request": "ticket-7"}
    first = (await client.post("/models/recommender/pause", json=asked)).json()
    again = (await client.post("/models/recommender/pause", json=asked)).json()
    assert again == {**first, "repeated": True}
    assert (await daemon.ledger.counts())["decisions"] == 1


async def test_a_request_id_used_for_something_else_is_refused(client: httpx.AsyncClient) -> None:
    await client.post("/models/recommender/pause", json={**ASK, "request": "ticket-7"})
    other = await client.post("/models/recommender/trigger", json={**ASK, "request": "ticket-7"})
    assert other.status_code == 409
    changed = await client.post("/models/recommender/pause", json={**ASK, "why": "x", "request": "ticket-7"})
    assert changed.status_code == 409


async def test_a_person_approves_once(client: httpx.AsyncClient, daemon: SmallDaemon) -> None:
    name = await daemon.waits_for_approval()
    first = (await client.post(f"/executions/{name}/approve", json={"by": "kim"})).json()
    assert first["reason"] == "approved"
    second = (await client.post(f"/executions/{name}/reject", json={"by": "lee"})).json()
    assert second["reason"] == "not_waiting"


async def test_what_is_unknown_is_404_and_says_what_is_known(client: httpx.AsyncClient) -> None:
    answer = await client.post("/models/recomender/trigger", json=ASK)
    assert answer.status_code == 404
    assert answer.json()["error"].endswith("there are: recommender")
    await client.post("/models/recommender/pause", json=ASK)
    for name in ("recommender-g9-00000000", "recommender-1"):
        assert (await client.post(f"/executions/{name}/approve", json={"by": "kim"})).status_code == 404
    assert (await client.get("/decisions?model=other")).status_code == 404
    assert (await client.get("/nothing")).status_code == 404
    assert (await client.get("/models/recommender/trigger")).status_code == 405


async def test_a_ledger_that_is_away_is_503(client: httpx.AsyncClient, daemon: SmallDaemon) -> None:
    daemon.is_away = True
    answer = await client.post("/models/recommender/trigger", json=ASK)
    assert (answer.status_code, answer.json()["error"]) == (503, "not now: the ledger is away")


# --- bad input ---


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body: Invalid JSON"),
        (b"{", "the body: Invalid JSON"),
        (b"[]", "the body: "),
        (b'{"by": "kim"}', "why: Field required"),
        (b'{"by": "", "why": "x"}', "by: Value error, must be one line of printable text"),
        (b'{"by": "kim", "why": "a\\nb"}', "why: Value error, must be one line of printable text"),
        (b'{"by": "kim", "why": "\\u001b[2J"}', "printable"),
        (b'{"by": "kim", "why": "\\ud800"}', "the body: Invalid JSON"),
        (b'{"by": "kim", "why": 7}', "why: Input should be a valid string"),
        (b'{"by": "kim", "why": "x", "image": "evil"}', "image: Extra inputs are not permitted"),
        (b'{"by": "kim", "why": "x", "request": "a b"}', "request: String should match"),
        (b'{"by": "kim", "why": "' + b"x" * 501 + b'"}', "why: String should have at most 500"),
        (b"[" * 30000, "the body: Invalid JSON"),
        (b'{"by": "\xff", "why": "x"}', "the body: Invalid JSON"),
    ],
)
async def test_a_body_that_is_wrong_is_422_and_says_where(client: httpx.AsyncClient, body: bytes, said: str) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post("/models/recommender/trigger", content=body, headers=headers)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


async def test_a_body_that_is_too_large_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 4096

    headers = {"content-type": "application/json"}
    answer = await client.post("/models/recommender/trigger", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert sent < 20


# --- whom it turns away ---


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example:8321", "", "[::2]:8321"])
async def test_a_rebound_name_is_refused(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get("/statusz", headers={"host": name})).status_code == 403


@pytest.mark.parametrize("name", ["localhost:1", "127.0.0.1", "[::1]:8321", "LocalHost"])
async def test_loopback_names_are_taken(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get("/statusz", headers={"host": name})).status_code == 200


async def test_the_configured_host_is_taken(daemon: SmallDaemon) -> None:
    async with to(daemon, base_url="http://retrainer.internal", host="retrainer.internal", token="t" * 16) as client:
        assert (await client.get("/livez")).status_code == 200


async def test_listening_everywhere_any_name_is_taken_and_the_token_guards(daemon: SmallDaemon) -> None:
    everywhere = "0.0.0.0"  # noqa: S104
    async with to(daemon, base_url="http://10.1.2.3:8321", host=everywhere, token="t" * 16) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/statusz")).status_code == 401


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_form_of_a_web_page_cannot_ask(client: httpx.AsyncClient, daemon: SmallDaemon, sent: str) -> None:
    headers = {"content-type": sent}
    answer = await client.post("/models/recommender/pause", content=json.dumps(ASK), headers=headers)
    assert answer.status_code == 415
    assert (await daemon.ledger.counts())["decisions"] == 0


async def test_no_page_of_another_origin_is_let_in(client: httpx.AsyncClient) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = await client.options("/models/recommender/pause", headers=asked)
    assert (answer.status_code, answer.json()["error"]) == (
        403,
        "the Origin header names another site; no web page is let in",
    )
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_with_a_token_only_health_and_metrics_are_open(daemon: SmallDaemon) -> None:
    async with to(daemon, token="correct-horse-battery") as client:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        for header in ("", "Bearer", "Bearer wrong", "Basic correct-horse-battery", "Bearer correct-horse-battery2"):
            answer = await client.get("/statusz", headers={"authorization": header})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        headers = {"authorization": "Bearer correct-horse-battery"}
        assert (await client.post("/models/recommender/pause", json=ASK)).status_code == 401
        assert (await client.post("/models/recommender/pause", json=ASK, headers=headers)).status_code == 200


# --- the server ---


async def test_it_serves_until_it_is_told_to_stop(daemon: SmallDaemon) -> None:
    listener = http.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    stopping = asyncio.Event()
    serving = asyncio.create_task(http.run(daemon.app(), listener, stopping))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).text == "ok\n"
        stopping.set()
        await asyncio.wait_for(serving, 5)
    with pytest.raises(OSError, match=r"refused|failed"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_cancelled_it_closes_its_door(daemon: SmallDaemon) -> None:
    listener = http.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    serving = asyncio.create_task(http.run(daemon.app(), listener))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).status_code == 200
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(serving, 5)
    http.listen("127.0.0.1", port).close()


def test_a_port_that_is_taken_is_a_setting_to_change() -> None:
    with http.listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="set RETRAINER_HTTP_HOST or"):
        http.listen("127.0.0.1", taken.getsockname()[1])
