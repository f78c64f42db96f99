"""HTTP/1.1 as far as SQS speaks it: requests of one head and one body, answers with a content length, kept connections.

What it does not expect it does not guess at: the connection is dropped, and UnexpectedError says why.
"""

import asyncio
import re
import ssl
from collections import deque
from typing import Final, cast
from urllib.parse import SplitResult

CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 15.0
"""How long an unused connection is kept: less than SQS keeps it, so that it is seldom found closed."""
HEAD_MAX: Final = 65_536
BODY_MAX: Final = 64 * 1_048_576
"""Ten messages of 1 MiB, were every character of them escaped."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r)")


class UnexpectedError(Exception):
    """The answer is not one that can be read here."""


class Connections:
    """To one host, as many as are asked for at a time; each carries one request after the other."""

    def __init__(self, url: SplitResult, trusted: ssl.SSLContext, *, read_seconds: float) -> None:
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._ssl = trusted if url.scheme == "https" else None
        self._read_seconds = read_seconds
        self._idle: deque[_Connection] = deque()

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer. Raises OSError, TimeoutError, ssl.SSLError or UnexpectedError."""
        connection = self._kept() or await self._connected()
        late = connection.loop.call_later(self._read_seconds, connection.drop, TimeoutError("no answer in time"))
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.drop(ConnectionAbortedError("given up"))
            raise
        finally:
            late.cancel()
        if connection.keeps:
            connection.idle_at = connection.loop.time()
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().drop(ConnectionAbortedError("closed"))

    def _kept(self) -> "_Connection | None":
        """The connection used last; what has not been used for long is dropped."""
        while self._idle:
            connection = self._idle.pop()
            if connection.keeps and connection.loop.time() - connection.idle_at < IDLE_SECONDS:
                return connection
            connection.drop(ConnectionAbortedError("idle"))
        return None

    async def _connected(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            made = loop.create_connection(lambda: _Connection(loop), self._host, self._port, ssl=self._ssl)
            return (await made)[1]


class _Connection(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.idle_at = 0.0
        self.keeps = True
        """Whether another request may be sent after this one."""
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._forget()

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        self._answer = self.loop.create_future()
        self._transport.write(request)
        return self._answer

    def drop(self, why: Exception) -> None:
        self.keeps = False
        if self._transport:
            self._transport.abort()
        if self._answer and not self._answer.done():
            self._answer.set_exception(why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.drop(exc or ConnectionResetError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if not self._length:
                self._read_head()
            if self._length and len(self._buffer) >= self._length:
                self._end()
        except UnexpectedError as error:
            self.drop(error)

    def _read_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n", 0, HEAD_MAX)
        if end < 0:
            if len(self._buffer) >= HEAD_MAX:
                raise UnexpectedError("the head of the answer is too long")
            return
        head = bytes(self._buffer[: end + 2]).lower()
        status, lengths = _STATUS.match(head.upper()), _LENGTH.findall(head)
        if not status or len(lengths) != 1 or b"\r\ntransfer-encoding:" in head or int(lengths[0]) > BODY_MAX:
            raise UnexpectedError("the answer has no status, or not one content length")
        self.keeps = head.startswith(b"http/1.1") and b"\r\nconnection: close" not in head
        self._status, self._start, self._length = int(status[1]), end + 4, end + 4 + int(lengths[0])

    def _end(self) -> None:
        if len(self._buffer) > self._length or self._answer is None or self._answer.done():
            raise UnexpectedError("more came than was asked for")
        answer = self._status, bytes(self._buffer[self._start :])
        self._forget()
        self._answer.set_result(answer)
        if not self.keeps and self._transport:
            self._transport.close()

    def _forget(self) -> None:
        self._buffer = bytearray()
        self._status = self._start = self._length = 0
