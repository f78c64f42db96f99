"""What the adapters are tried against: the embedded AWS as a process, and a server that answers as it is told."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

START_SECONDS = 30


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """The endpoint URL of an embedded AWS of its own."""
    port = free_port()
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "SERVICES": "s3,sqs,sts,states,events",
    }
    with (directory / "emulator.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"], env=os.environ | settings, cwd=directory, stdout=log, stderr=log
        )
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/_ministack/health", timeout=1)  # noqa: S310
        except urllib.error.HTTPError:
            return
        except OSError:
            assert process.poll() is None, "the emulator did not start"
            assert time.monotonic() < until, f"the emulator did not answer within {START_SECONDS} s"
            time.sleep(0.05)
        else:
            return


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Point every AWS client at the URL, as an operator would."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


class Answers:
    """An HTTP server that gives the answers it was told to, in turn, the last one for ever; None hangs up."""

    def __init__(self) -> None:
        self.url = ""
        self.given: list[tuple[int, dict[str, object]] | None] = []
        self.asked: list[dict[str, object]] = []
        self.heads: list[str] = []
        """Request line and headers of each, as they came."""

    def then(self, status: int, /, **body: object) -> "Answers":
        self.given.append((status, body))
        return self

    def hang_up(self) -> "Answers":
        self.given.append(None)
        return self

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
                if b"100-continue" in head.lower():
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(length)
                self.heads.append(head.decode())
                self.asked.append(json.loads(body) if body.startswith(b"{") else {})
                answer = self.given.pop(0) if len(self.given) > 1 else self.given[0]
                if answer is None:
                    return
                text = json.dumps(answer[1]).encode() if answer[1] else b""
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (answer[0], len(text), text))
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def answering() -> AsyncIterator[Answers]:
    answers = Answers()
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    answers.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield answers
    finally:
        server.close()
