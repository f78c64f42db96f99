"""Clients that are slow, silent, many or speak no HTTP: the server is driven by bytes, on a clock that jumps."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from retrainer.adapters.http.bodies import BODY_SECONDS_MAX
from retrainer.adapters.http.server import CONNECTIONS_MAX, HEAD_SECONDS_MAX, LINGER_SECONDS_MAX, Connection
from tests.fakes.small_daemon import SmallDaemon
from tests.hostile.budget import examples

GET = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /models/recommender/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
BODY = b'{"by": "kim", "why": "x"}'


class Wire(asyncio.Transport):
    """A client's end: keeps what was written, and delivers the end of the connection as a socket would.

    A client that `reads_nothing` leaves everything in the server's buffer.
    """

    def __init__(self, protocol: Connection, *, reads_nothing: bool = False) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_open = True
        self.is_reading_ = True
        self._protocol = protocol
        self._closing = False
        self._reads_nothing = reads_nothing
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        self.written += data
        if self._reads_nothing and len(self.written) > 65_536:
            self._protocol.pause_writing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._reads_nothing:
                asyncio.get_running_loop().call_soon(self._lost)

    def abort(self) -> None:
        self._closing = True
        asyncio.get_running_loop().call_soon(self._lost)

    def _lost(self) -> None:
        if self.is_open:
            self.is_open = False
            self._protocol.connection_lost(None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.is_reading_ = False

    def resume_reading(self) -> None:
        self.is_reading_ = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def send(self, data: bytes) -> None:
        """What the client sends; nobody hears it once the connection is closed."""
        if data and self.is_open and not self._closing:
            self._protocol.data_received(data)

    @property
    def status(self) -> int | None:
        return int(self.written[9:12]) if self.written else None


class House:
    """The server without its socket."""

    def __init__(self) -> None:
        self.daemon = SmallDaemon()
        self.config = uvicorn.Config(
            self.daemon.app(),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            limit_concurrency=CONNECTIONS_MAX + 1,
        )
        self.config.load()
        self.state = ServerState()

    def connect(self, **client: Any) -> Wire:
        return Wire(Connection(config=self.config, server_state=self.state, app_state={}), **client)


@asynccontextmanager
async def served() -> AsyncIterator[House]:
    """A house in which no callback fails and after which no connection is left over."""
    failed: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failed.append(context))
    house = House()
    yield house
    for connection in list(house.state.connections):
        connection.transport.abort()
    await asyncio.gather(*house.state.tasks)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not house.state.connections
    assert not failed, failed


pytestmark = pytest.mark.looptime


# --- slow ---


@pytest.mark.parametrize("head", [b"G", b"GET /livez HT", GET[:-2]])
async def test_a_head_that_comes_too_slowly_is_answered_408(head: bytes) -> None:
    async with served() as house:
        client = house.connect()
        for byte in head[:5]:
            client.send(bytes([byte]))
            await asyncio.sleep(1)
        client.send(head[5:])
        await asyncio.sleep(HEAD_SECONDS_MAX)
        assert (client.status, client.is_open) == (408, False)
        assert json.loads(client.written.partition(b"\r\n\r\n")[2]) == {
            "error": "the request did not come within 10 seconds"
        }


async def test_a_byte_a_second_is_not_patience_without_end() -> None:
    async with served() as house:
        client = house.connect()
        seconds = 0
        while client.is_open:
            client.send(b"X")
            await asyncio.sleep(1)
            seconds += 1
        assert seconds <= HEAD_SECONDS_MAX + 1


async def test_who_says_nothing_is_shown_out_without_a_word() -> None:
    async with served() as house:
        client = house.connect()
        await asyncio.sleep(HEAD_SECONDS_MAX + 0.1)
        assert (bytes(client.written), client.is_open) == (b"", False)


async def test_who_has_been_answered_and_then_dawdles_is_shown_out_too() -> None:
    async with served() as house:
        client = house.connect()
        client.send(GET)
        await asyncio.sleep(0.1)
        assert client.status == 200
        seconds = 0
        while client.is_open:
            client.send(b"GET /livez"[seconds : seconds + 1] or b"x")
            await asyncio.sleep(1)
            seconds += 1
        assert seconds <= HEAD_SECONDS_MAX + 1


async def test_a_body_that_comes_too_slowly_is_answered_408() -> None:
    async with served() as house:
        client = house.connect()
        client.send(POST + b"Content-Length: 1000\r\n\r\n")
        for _ in range(int(BODY_SECONDS_MAX) + 1):
            client.send(b" ")
            await asyncio.sleep(1)
        assert client.status == 408


@pytest.mark.parametrize("path", [b"/livez", b"/nothing", b"/models/recommender/pause"])
async def test_a_body_that_nobody_reads_keeps_no_connection(path: bytes) -> None:
    """Answered before its body is there: 200, 404 and 415."""
    async with served() as house:
        client = house.connect()
        method = b"POST " if b"models" in path else b"GET "
        client.send(method + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(0.1)
        assert client.status in (200, 404, 415)
        seconds = 0
        while client.is_open and seconds < 100:
            client.send(b"1\r\nx\r\n")
            await asyncio.sleep(1)
            seconds += 1
        assert seconds <= LINGER_SECONDS_MAX + HEAD_SECONDS_MAX + 1


async def test_who_reads_nothing_is_cut_off_and_what_was_for_him_is_let_go() -> None:
    async with served() as house:
        client = house.connect(reads_nothing=True)
        for _ in range(200):
            client.send(GET.replace(b"/livez", b"/metrics"))
            await asyncio.sleep(0.01)
        held = len(client.written)
        assert held < 4 * 65_536
        await asyncio.sleep(2 * LINGER_SECONDS_MAX)
        assert not client.is_open
        assert not house.state.tasks


async def test_who_leaves_before_the_answer_leaves_nothing_behind() -> None:
    async with served() as house:
        for sent in (GET, POST + b"Content-Length: 1000\r\n\r\n{"):
            client = house.connect()
            client.send(sent)
            client.abort()
            await asyncio.sleep(1)
            assert not house.state.tasks


# --- many ---


async def test_however_many_are_silent_a_probe_is_answered() -> None:
    async with served() as house:
        silent = []
        for _ in range(3 * CONNECTIONS_MAX):
            silent.append(house.connect())
            await asyncio.sleep(0.001)
        assert len(house.state.connections) <= CONNECTIONS_MAX
        assert all(c.is_open for c in silent[-CONNECTIONS_MAX // 2 :])
        for _ in range(10):
            probe = house.connect()
            probe.send(GET)
            await asyncio.sleep(0.01)
            assert probe.status == 200


async def test_a_hundred_requests_at_once_on_one_connection_are_answered_one_after_another() -> None:
    async with served() as house:
        client = house.connect()
        client.send(GET * 100)
        while client.written.count(b"HTTP/1.1 200") < 100:
            assert len(house.state.tasks) <= 2
            await asyncio.sleep(0.001)


# --- no HTTP ---


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\r\n b\0\r\n\r\n", 400),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n", 400),
        (b"GET /livez?" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 20_000, 400),
        (b"GET http://evil.example/livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
        (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
        (b"BREW /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405),
        (b"HEAD /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 403),
        (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: h2c\r\n\r\n", 200),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 422),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, 200),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % c for c in BODY) + b"0\r\n\r\n", 200),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 408),
        (POST + b"Content-Length: 70000\r\n\r\n" + b" " * 70_000, 413),
    ],
)
async def test_what_is_no_request_of_ours_is_answered_and_harms_nobody(sent: bytes, status: int) -> None:
    async with served() as house:
        client = house.connect()
        client.send(sent)
        await asyncio.sleep(HEAD_SECONDS_MAX + 0.1)
        assert client.status == status


_PIECES = st.sampled_from(
    [
        *(
            GET,
            POST,
            b"Content-Length: 25\r\n\r\n" + BODY,
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"0\r\n\r\n",
            b"19\r\n" + BODY + b"\r\n",
        ),
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\0",
            b"\xff",
            b" ",
            b"GET ",
            b"/livez",
            b" HTTP/1.1\r\n",
            b"Host: 127.0.0.1\r\n",
            b"Host: x\r\n",
        ),
        *(
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
            b"Connection: keep-alive\r\n",
            b"zz\r\n",
            b"-1\r\n",
            b"X" * 70_000,
        ),
    ]
) | st.binary(max_size=20)


@pytest.mark.looptime(False)
@examples(150)
@given(st.lists(_PIECES, max_size=8), st.booleans())
def test_any_bytes_are_answered_or_waited_out(pieces: list[bytes], is_abrupt: bool) -> None:
    async def talk() -> None:
        async with served() as house:
            client = house.connect()
            for piece in pieces:
                client.send(piece)
                await asyncio.sleep(0)
            if is_abrupt:
                client.abort()
            for _ in range(20):
                await asyncio.sleep(0)
            assert not client.written or client.written.startswith(b"HTTP/1.1 ")
            assert client.status in (None, 100, 200, 400, 403, 404, 405, 413, 415, 422, 501)
            for connection in house.state.connections:
                assert cast("Connection", connection).is_busy or cast("Connection", connection).late_at

    asyncio.run(talk())


def test_the_server_logs_no_failure_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """A broken request is a warning at the most; an error would wake somebody."""
    with caplog.at_level(logging.ERROR):
        asyncio.run(_broken())
    assert not caplog.records


async def _broken() -> None:
    async with served() as house:
        for sent in (
            POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            GET + b"\0\0",
            POST + b"Content-Length: 25\r\n\r\n" + BODY + b"\xff\xff\r\n\r\n",
        ):
            client = house.connect()
            client.send(sent)
            for _ in range(20):
                await asyncio.sleep(0)
            client.abort()
