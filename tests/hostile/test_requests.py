"""The HTTP interface under requests that no client of ours sends: each is answered, in JSON, and refused with a why."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.small_daemon import TASK_TOKEN, SmallDaemon
from tests.hostile.budget import examples
from tests.hostile.envelopes import HOSTILE, JSON

ASK: dict[str, Any] = {"by": "kim", "why": "new catalogue", "request": "ticket-7"}
_NAMES = st.sampled_from(
    [
        *(
            "recommender",
            "recommender-1",
            "recommender-g1-00000000",
            "..",
            "../../etc/passwd",
            "%2e%2e",
            "a\0b",
            "\x1b[2J",
        ),
        *(
            "für",
            "推荐",
            "recommender\u202e",
            "RECOMMENDER",
            "x" * 5000,
            "object:my-data/data/recommender/1.parquet@1",
            "",
            " ",
        ),
        *("request:ticket-7", "' or 1=1 --", "*", "%", "_", "{model}", "null"),
    ]
) | st.text(max_size=20)
_PATHS = st.one_of(
    st.sampled_from(
        ["/", "", "//", "/statusz", "/metrics", "/livez", "/readyz", "/decisions", "/decisions/", "/ledger", "*"]
    ),
    st.builds("/decisions/{}".format, _NAMES),
    st.builds("/models/{}/{}".format, _NAMES, st.sampled_from(["trigger", "pause", "resume", "", "x", "trigger/"])),
    st.builds("/executions/{}/{}".format, _NAMES, st.sampled_from(["approve", "reject", "approve/.."])),
    st.just("/ledger/compact"),
)
_METHODS = st.sampled_from(
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "BREW"]
)
_QUERIES = st.dictionaries(
    st.sampled_from(["limit", "model", "x"]),
    _NAMES
    | st.sampled_from(
        ["-1", "0", "1", "1000", "1001", "1e3", "0x1", "٣", "²", "+1", "1_0", " 1", "000000001" + "0" * 30, "9" * 5000]
    ),
)
_BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda v: json.dumps(v).encode()),
    st.dictionaries(
        st.sampled_from(["by", "why", "request", "before", "image"]),
        st.sampled_from([h for h in HOSTILE if h.__class__ is not object]),
    ).map(lambda d: json.dumps({**ASK, **d}).encode()),
    st.sampled_from(
        [
            b"",
            b"{}",
            b"[" * 30_000,
            b'{"a":' * 10_000,
            b'{"by":"kim","by":"eve","why":"x"}',
            b"\xff",
            b"\x00" * 100,
            b"x" * 70_000,
        ]
    ),
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "host",
            "origin",
            "content-type",
            "authorization",
            "x-forwarded-host",
            "transfer-encoding-x",
            "expect",
            "range",
        ]
    ),
    st.sampled_from(
        [
            *(
                "127.0.0.1:8321",
                "localhost",
                "evil.example",
                "",
                "[::1",
                "127.0.0.1@evil",
                "null",
                "http://127.0.0.1:8321",
            ),
            *(
                "https://evil.example",
                "application/json",
                "application/json; charset=utf-16",
                "text/plain",
                "Bearer x",
                "\xff",
                "100-continue",
            ),
        ]
    ),
)


def asked(ask: Callable[[httpx.AsyncClient], Awaitable[None]], **door: Any) -> SmallDaemon:
    """Put questions to a daemon that has an execution waiting for a person, and return it."""
    daemon = SmallDaemon()

    async def talk() -> None:
        await daemon.waits_for_approval()
        transport = httpx.ASGITransport(daemon.app(**door), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8321") as client:
            await ask(client)

    asyncio.run(talk())
    return daemon


def sound(answer: httpx.Response) -> None:
    """What holds of every answer."""
    assert answer.status_code in (200, 401, 403, 404, 405, 408, 409, 413, 415, 422, 503)
    assert TASK_TOKEN not in answer.text
    assert len(answer.content) < 256 * 1024
    assert not [name for name in answer.headers if name.startswith("access-control")]
    if answer.status_code >= 400 and answer.request.method != "HEAD" and not answer.request.url.path.endswith("z"):
        why = answer.json()["error"]
        assert why.strip()
        assert len(why) < 2000


@examples(100)
@given(_METHODS, _PATHS, _QUERIES, _HEADERS, _BODIES)
def test_any_request_is_answered_and_a_refused_one_is_told_why(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        given = [(k.encode(), v.encode("latin-1")) for k, v in {"content-type": "application/json", **headers}.items()]
        request = httpx.Request(method, "http://127.0.0.1:8321/", params=query, headers=given, content=body)
        request.url = request.url.copy_with(
            raw_path=b"/" + quote(path.removeprefix("/"), safe="/%*").encode() + b"?" + request.url.query
        )
        sound(await client.send(request))

    asked(ask)


@examples(100)
@given(
    st.sampled_from(
        ["/models/recommender/trigger", "/models/recommender/pause", "/models/recommender/resume", "/ledger/compact"]
    ),
    _BODIES,
)
def test_no_body_is_more_than_refused(path: str, body: bytes) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        sound(await client.post(path, content=body, headers={"content-type": "application/json"}))

    asked(ask)


@pytest.mark.parametrize("limit", ["0000000001000", "000000001" + "0" * 30, "0" * 5000 + "1", "01001", "1\n", "１"])
def test_a_limit_is_bounded_however_it_is_written(limit: str) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        assert (await client.get("/decisions", params={"limit": limit})).status_code == 422

    asked(ask)


@pytest.mark.parametrize("path", ["/decisions/a%00b", "/executions/a%00b/approve", "/models/a%00b/trigger"])
def test_a_name_with_a_nul_in_it_is_nobodys(path: str) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        get = "/decisions" in path
        answer = await (
            client.get(path)
            if get
            else client.post(path, json={k: v for k, v in ASK.items() if "exec" not in path or k == "by"})
        )
        assert answer.status_code == 404

    asked(ask)


def test_of_two_equal_keys_neither_is_believed() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        body = b'{"by": "kim", "why": "x", "by": "eve"}'
        answer = await client.post(
            "/models/recommender/pause", content=body, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()) == (422, {"error": "by: stands there twice"})

    assert asked(ask).time.second == 10


def test_thousands_of_mistakes_are_told_in_a_few_words() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        body = json.dumps({f"k{i}": 0 for i in range(5000)}).encode()
        answer = await client.post(
            "/models/recommender/pause", content=body, headers={"content-type": "application/json"}
        )
        assert answer.json()["error"].endswith("; and 4997 more")
        long = json.dumps({**ASK, "x" * 60_000: 0}).encode()
        answer = await client.post(
            "/models/recommender/pause", content=long, headers={"content-type": "application/json"}
        )
        assert len(answer.content) < 300

    asked(ask)


# --- a web page in the operator's browser ---


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:8321", "file://", "", "127.0.0.1:8321"],
)
def test_no_page_but_our_own_can_ask_even_with_the_right_content_type(origin: str) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.post("/models/recommender/pause", json=ASK, headers={"origin": origin})
        assert (answer.status_code, answer.json()["error"][:17]) == (403, "the Origin header")

    assert asked(ask).time.second == 10


def test_a_page_of_this_server_could() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.post("/models/recommender/pause", json=ASK, headers={"origin": "http://127.0.0.1:8321"})
        assert answer.status_code == 200

    asked(ask)


def test_a_rebound_name_is_refused_before_its_origin_is_compared_with_it() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        headers = {"host": "evil.example", "origin": "http://evil.example"}
        assert (await client.post("/models/recommender/pause", json=ASK, headers=headers)).status_code == 403

    asked(ask)


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "bearer\tsecret", "Bearer " + "x" * 60_000, "Bearer \xff", "Bearer t" + "t" * 15 + " x"],
)
def test_a_token_is_compared_whole_whatever_is_sent(given: str) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        headers = {"authorization": given.encode("latin-1")}
        for path in ("/statusz", "/decisions", "/livez/", "//livez", "/METRICS", "/livez%2f..%2fstatusz"):
            assert (await client.get(path, headers=headers)).status_code == 401  # type: ignore[arg-type]

    asked(ask, token="t" * 16)
