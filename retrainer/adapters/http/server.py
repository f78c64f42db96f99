"""The HTTP server inside a loop that has its own idea of signals, and of how long it waits for a client."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Generator, Iterable
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from retrainer.ports import ConfigError

CONNECTIONS_MAX: Final = 256
"""At one more, the client that has dawdled longest makes room."""
HEAD_SECONDS_MAX: Final = 10.0
"""From the connection, or a later request's first byte, to the end of the request's headers."""
LINGER_SECONDS_MAX: Final = 30.0
"""For what a client still has to send or to take once it was answered, and for each pause in which it takes nothing."""


class Connection(H11Protocol):
    """uvicorn's connection with a limit to its patience: it has none for who sends slowly or does not read."""

    _until: asyncio.TimerHandle | None = None
    _is_late: Callable[[], None] | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(HEAD_SECONDS_MAX, self._no_request)
        if len(self.connections) > CONNECTIONS_MAX and (other := _longest_waited_for(self.connections)):
            self.connections.discard(other)
            other.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wait(None)
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_busy:
            self._wait(None)
        elif self._is_late != self._no_request and not self.transport.is_closing():
            self._wait(HEAD_SECONDS_MAX, self._no_request)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.is_busy:  # with the next of several requests that came at once
            self._wait(None)
        else:
            self._wait(LINGER_SECONDS_MAX, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(LINGER_SECONDS_MAX, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread:
            self._unread.cancel()
            self._unread = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered; its body has a time limit of its own."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def late_at(self) -> float | None:
        """When the client's time is over, on the loop's clock; None while it is our turn."""
        return self._until.when() if self._until else None

    def _wait(self, seconds: float | None, is_late: Callable[[], None] | None = None) -> None:
        if self._until:
            self._until.cancel()
        self._is_late = is_late
        self._until = self.loop.call_later(seconds, is_late) if seconds is not None and is_late else None

    def _no_request(self) -> None:
        """Say why if a request had begun, and close."""
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            body = json.dumps({"error": f"the request did not come within {HEAD_SECONDS_MAX:.0f} seconds"}).encode()
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            for event in (h11.Response(status_code=408, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._wait(LINGER_SECONDS_MAX, self.transport.abort)


def _longest_waited_for(connections: Iterable[object]) -> "Connection | None":
    """The connection whose client's time is over first; None where all are being answered, or only one is not."""
    waiting = [c for c in connections if isinstance(c, Connection) and c.late_at and not c.transport.is_closing()]
    return min(waiting, key=lambda c: c.late_at or 0.0) if len(waiting) > 1 else None


class _Server(uvicorn.Server):
    """uvicorn inside a loop that has its own idea of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, of which port 0 is known at once. Raises ConfigError when it is not to be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {host}:{port} ({why}); set RETRAINER_HTTP_HOST or RETRAINER_HTTP_PORT to another, "
            f"as in RETRAINER_HTTP_PORT={port + 1 if 0 < port < 65535 else 8322}"
        ) from error


async def run(app: ASGIApp, listener: socket.socket, stopping: asyncio.Event | None = None) -> None:
    """Serve until `stopping` is set or the task is cancelled; requests in hand may end (3 seconds at most).

    Then the listener is closed; after a failure it stays open, so that the caller may serve again.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        limit_concurrency=CONNECTIONS_MAX + 1,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener.dup()]))
    stopped = asyncio.create_task((stopping or asyncio.Event()).wait())
    try:
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        failed = serving.done()
        server.should_exit = True
        await serving
        if not failed:
            listener.close()
