"""The fast way to SQS: what it sends is what the SDK sends, and what it cannot read the SDK reads."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from retrainer.adapters.sqs import SqsInbox
from retrainer.adapters.sqs.connections import Connections, UnexpectedError
from retrainer.adapters.sqs.wire import Pattern, Wire
from tests.adapters.emulator import answering, free_port, use

QUEUE = "http://localhost/000000000000/events"
HEADERS = {
    "content-type": "application/x-amz-json-1.0",
    "user-agent": "somebody",
    "x-amz-target": "AmazonSQS.ReceiveMessage",
    "x-amzn-query-mode": "true",
}

# --- signing ---

_word = st.text("abcXYZ0123456789/+=", min_size=1, max_size=40)


@given(
    credentials=st.builds(ReadOnlyCredentials, _word, _word, st.none() | _word),
    body=st.binary(max_size=200),
    at=st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001 - hypothesis wants them so
    url=st.sampled_from(
        ["https://sqs.eu-central-1.amazonaws.com/", "http://localhost:4566", "https://proxy:8443/sqs/"]
    ),
    region=st.sampled_from(["eu-central-1", "us-gov-west-1"]),
)
def test_a_signature_is_the_one_that_botocore_makes(
    credentials: ReadOnlyCredentials, body: bytes, at: datetime, url: str, region: str
) -> None:
    theirs = AWSRequest("POST", url, HEADERS, body)
    with patch("botocore.auth.get_current_datetime", return_value=at):
        SigV4Auth(credentials, "sqs", region).add_auth(theirs)
    ours = Pattern(url, HEADERS, region, "sqs").signed(body, credentials, at.replace(tzinfo=UTC).timestamp())
    assert ours["authorization"] == theirs.headers["Authorization"]
    assert ours["x-amz-date"] == theirs.headers["X-Amz-Date"]
    assert ours.get("x-amz-security-token") == theirs.headers.get("X-Amz-Security-Token")


def test_new_credentials_and_a_new_day_sign_anew() -> None:
    pattern = Pattern("https://sqs.eu-central-1.amazonaws.com/", HEADERS, "eu-central-1", "sqs")
    old, new = ReadOnlyCredentials("a", "s1", None), ReadOnlyCredentials("a", "s2", None)
    said = [pattern.signed(b"", c, at)["authorization"] for c, at in ((old, 0), (new, 0), (old, 86_400), (old, 0))]
    assert len(set(said)) == 3
    assert said[0] == said[3]


def test_a_line_break_in_a_credential_ends_no_header() -> None:
    pattern = Pattern("https://sqs.eu-central-1.amazonaws.com/", HEADERS, "eu-central-1", "sqs")
    with pytest.raises(ValueError, match="line break"):
        pattern.request(b"", ReadOnlyCredentials("a", "s", "token\r\nhost: elsewhere"), 0)


async def test_the_fast_request_is_the_sdks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering() as sqs:
        use(monkeypatch, sqs.url)
        monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session")
        sqs.then(200, Messages=[])
        async with SqsInbox.open(QUEUE, QUEUE, wait_seconds=0) as inbox:
            await inbox.receive()
            await inbox.receive()
        assert sqs.asked[0] == sqs.asked[1]
        first, second = (_fields(head) for head in sqs.heads)
        moving = {"authorization", "x-amz-date"}
        theirs = {"accept", "accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request", "connection"}
        assert second.keys() - first.keys() == set()
        assert first.keys() - second.keys() <= theirs
        same = second.keys() - moving
        assert {k: second[k] for k in same} == {k: first[k] for k in same}
        assert second["x-amz-security-token"] == "a-session"


def _fields(head: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in head.strip().split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, value in pairs}


async def test_behind_a_proxy_every_call_is_the_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering() as sqs:
        use(monkeypatch, sqs.url.replace("127.0.0.1", "sqs.invalid"))
        monkeypatch.setenv("HTTP_PROXY", sqs.url)
        sqs.then(200, Messages=[])
        async with SqsInbox.open(QUEUE, QUEUE, wait_seconds=0) as inbox:
            await inbox.receive()
            await inbox.receive()
            assert isinstance(inbox._client, Wire)
            assert not inbox._client.fast
        assert len(sqs.asked) == 2


# --- connections ---


@asynccontextmanager
async def saying(*answers: bytes, trusted: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, list[int]]]:
    """A server whose n-th answer is the n-th of these; an empty one hangs up. With it, the requests a connection."""
    left, requests = list(answers), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(0)
        mine = len(requests) - 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r")[0])
                await reader.readexactly(length)
                requests[mine] += 1
                answer = left.pop(0)
                if not answer:
                    return
                for i in range(0, len(answer), 7):  # in pieces
                    writer.write(answer[i : i + 7])
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=trusted)
    try:
        scheme = "https" if trusted else "http"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()


def ok(body: bytes, *more: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), b"".join(more), body)


ASK = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


def to(url: str, read_seconds: float = 5.0, trusted: ssl.SSLContext | None = None) -> Connections:
    return Connections(urlsplit(url), trusted or ssl.create_default_context(), read_seconds=read_seconds)


async def test_one_connection_carries_one_request_after_the_other() -> None:
    async with saying(ok(b"a"), ok(b""), ok(b"b" * 100_000)) as (url, requests):
        connections = to(url)
        assert [await connections.ask(ASK) for _ in range(3)] == [(200, b"a"), (200, b""), (200, b"b" * 100_000)]
        assert requests == [3]
        connections.close()


async def test_requests_at_the_same_time_have_a_connection_each() -> None:
    async with saying(ok(b"a"), ok(b"a"), ok(b"a")) as (url, requests):
        connections = to(url)
        await asyncio.gather(*(connections.ask(ASK) for _ in range(3)))
        assert requests == [1, 1, 1]
        connections.close()


async def test_a_connection_that_is_to_be_closed_is_not_used_again() -> None:
    async with saying(ok(b"a", b"Connection: close\r\n"), ok(b"b")) as (url, requests):
        connections = to(url)
        assert [await connections.ask(ASK) for _ in range(2)] == [(200, b"a"), (200, b"b")]
        assert requests == [1, 1]
        connections.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        ok(b"a") + b"more",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
    ],
)
async def test_an_answer_of_another_form_is_not_guessed_at(answer: bytes) -> None:
    async with saying(answer) as (url, _):
        with pytest.raises(UnexpectedError):
            await to(url).ask(ASK)


async def test_a_server_that_hangs_up_is_told_as_such_and_one_that_is_late_is_left() -> None:
    async with saying(b"", b"HTTP/1.1 200 OK\r\n") as (url, _):
        connections = to(url, read_seconds=0.05)
        with pytest.raises(ConnectionError):
            await connections.ask(ASK)
        with pytest.raises(TimeoutError):
            await connections.ask(ASK)
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await to(f"http://127.0.0.1:{free_port()}").ask(ASK)


async def test_an_answer_that_the_fast_way_cannot_read_is_read_by_the_sdk_then_and_ever_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    async with saying(*[chunked] * 4) as (url, requests):
        use(monkeypatch, url)
        async with SqsInbox.open(QUEUE, QUEUE, wait_seconds=0) as inbox:
            for _ in range(3):
                assert await inbox.receive() == ()
            assert isinstance(inbox._client, Wire)
            assert not inbox._client.fast
        assert sum(requests) == 4  # one more than asked: the one that could not be read


async def test_a_certificate_is_checked_against_the_bundle_that_the_sdk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, server = _certificate(tmp_path)
    empty = ok(b"{}")
    async with saying(*[empty] * 9, trusted=server) as (url, requests):
        url = url.replace("127.0.0.1", "localhost")
        use(monkeypatch, url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        async with SqsInbox.open(QUEUE, QUEUE, wait_seconds=0) as inbox:
            for _ in range(3):
                assert await inbox.receive() == ()
            assert isinstance(inbox._client, Wire)
            assert inbox._client.fast == {"ReceiveMessage"}
        assert requests == [1, 2]  # the SDK's connection, and ours
        with pytest.raises(ssl.SSLCertVerificationError):
            await to(url).ask(ASK)


def _certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of localhost that vouches for itself, and a server that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "certificate.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    return folder / "certificate.pem", server
