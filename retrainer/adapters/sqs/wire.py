"""The two calls that every message costs, receiving and deleting, without the SDK's half millisecond of CPU for each.

The SDK does the first call of each kind, and with it finds endpoint, region and headers; what it sends is the pattern
of those that follow. It also repeats every call that is not answered with 200: which errors there are, which are tried
again and what they are called stays its business alone.
"""

import hmac
import json
import re
import ssl
import time
from collections.abc import Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from botocore.credentials import ReadOnlyCredentials
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from retrainer.adapters.sqs.connections import Connections, UnexpectedError

if TYPE_CHECKING:
    from typing import Unpack

    from aiobotocore.session import AioSession
    from botocore.awsrequest import AWSPreparedRequest
    from types_aiobotocore_sqs import type_defs as t
    from types_aiobotocore_sqs.client import SQSClient

_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/[0-9]{8}/([^/]+)/([^/]+)/aws4_request,")
_COPIED: Final[tuple[str, ...]] = ("content-type", "user-agent", "x-amz-target", "x-amzn-query-mode")
_UNSIGNED: Final = frozenset({"user-agent"})


class Calls(Protocol):
    """What the inbox asks of SQS, as the SDK's client has it."""

    def receive_message(
        self, **asked: "Unpack[t.ReceiveMessageRequestTypeDef]"
    ) -> Coroutine[Any, Any, "t.ReceiveMessageResultTypeDef"]: ...
    def delete_message_batch(
        self, **asked: "Unpack[t.DeleteMessageBatchRequestTypeDef]"
    ) -> Coroutine[Any, Any, "t.DeleteMessageBatchResultTypeDef"]: ...
    def change_message_visibility_batch(
        self, **asked: "Unpack[t.ChangeMessageVisibilityBatchRequestTypeDef]"
    ) -> Coroutine[Any, Any, "t.ChangeMessageVisibilityBatchResultTypeDef"]: ...
    def send_message(
        self, **asked: "Unpack[t.SendMessageRequestTypeDef]"
    ) -> Coroutine[Any, Any, "t.SendMessageResultTypeDef"]: ...


class Pattern:
    """How one operation is asked for: where, with which headers, and how that is signed (Signature Version 4).

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html; only what SQS's
    operations need of it: POST, no query.
    """

    def __init__(self, url: str, headers: Mapping[str, str], region: str, service: str) -> None:
        self.url = urlsplit(url)
        self._path = self.url.path or "/"
        self._headers = {"host": self.url.netloc, **headers}
        self._region, self._service = region, service
        self._key = ("", "", hmac.new(b"", digestmod="sha256"))

    def request(self, body: bytes, credentials: ReadOnlyCredentials, at: float) -> bytes:
        """The whole request with this body, signed at that time (seconds since 1970). Raises ValueError."""
        headers = self.signed(body, credentials, at)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if head.count("\n") != len(headers):
            raise ValueError("a header has a line break")
        return f"POST {self._path} HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def signed(self, body: bytes, credentials: ReadOnlyCredentials, at: float) -> Mapping[str, str]:
        """The headers of that request."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
        headers = {**self._headers, "x-amz-date": stamp}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        names = sorted(headers.keys() - _UNSIGNED)
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        signs = ";".join(names)
        canonical = f"POST\n{self._path}\n\n{lines}\n{signs}\n{sha256(body).hexdigest()}"
        scope = f"{stamp[:8]}/{self._region}/{self._service}/aws4_request"
        said = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        # A copy, because hmac.digest lets go of the interpreter, and gets it back late when another thread is busy.
        signing = self._signing(credentials.secret_key or "", stamp[:8]).copy()
        signing.update(said.encode())
        who = f"Credential={credentials.access_key}/{scope}, SignedHeaders={signs}"
        headers["authorization"] = f"AWS4-HMAC-SHA256 {who}, Signature={signing.hexdigest()}"
        return headers

    def _signing(self, secret: str, day: str) -> hmac.HMAC:
        """With the key that holds for a day, and as long as the credentials are not refreshed."""
        if self._key[:2] != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (secret, day, hmac.new(key, digestmod="sha256"))
        return self._key[2]


class Wire:
    """Implements Calls. Made by `open`."""

    def __init__(self, sdk: "SQSClient", session: "AioSession", trusted: ssl.SSLContext, read_seconds: float) -> None:
        self._sdk = sdk
        self._session = session
        self._trusted = trusted
        self._read_seconds = read_seconds
        self._patterns: dict[str, tuple[Pattern, Connections] | None] = {}
        """None: what answers there is not read here."""
        self.send_message = sdk.send_message
        self.change_message_visibility_batch = sdk.change_message_visibility_batch
        sdk.meta.events.register("before-send.sqs", self._learn)

    @classmethod
    @contextmanager
    def open(cls, sdk: "SQSClient", session: "AioSession", *, read_seconds: float) -> Iterator["Wire"]:
        """Calls beside those of `sdk`, with the credentials and certificates of the session that made it."""
        ca_bundle = session.get_config_variable("ca_bundle")
        trusted = ssl.create_default_context(cafile=get_cert_path(ca_bundle or True))
        wire = cls(sdk, session, trusted, read_seconds)
        try:
            yield wire
        finally:
            for known in wire._patterns.values():
                if known:
                    known[1].close()

    @property
    def fast(self) -> Collection[str]:
        """The operations that go past the SDK now."""
        return {operation for operation, known in self._patterns.items() if known}

    async def receive_message(
        self, **asked: "Unpack[t.ReceiveMessageRequestTypeDef]"
    ) -> "t.ReceiveMessageResultTypeDef":
        answer: t.ReceiveMessageResultTypeDef | None = await self._answer("ReceiveMessage", asked)
        return answer if answer is not None else await self._sdk.receive_message(**asked)

    async def delete_message_batch(
        self, **asked: "Unpack[t.DeleteMessageBatchRequestTypeDef]"
    ) -> "t.DeleteMessageBatchResultTypeDef":
        answer: t.DeleteMessageBatchResultTypeDef | None = await self._answer("DeleteMessageBatch", asked)
        return answer if answer is not None else await self._sdk.delete_message_batch(**asked)

    async def _answer(self, operation: str, asked: Mapping[str, Any]) -> Any:
        """None: the SDK is to do it, because it has not yet, or because this went wrong."""
        known = self._patterns.get(operation)
        credentials = await self._session.get_credentials() if known else None
        if known is None or credentials is None:
            return None
        pattern, connections = known
        body = json.dumps(asked).encode()
        try:
            request = pattern.request(body, await credentials.get_frozen_credentials(), time.time())
            status, told = await connections.ask(request)
            return json.loads(told) if status == 200 else None
        except (OSError, TimeoutError):
            return None
        except (UnexpectedError, ValueError):
            self._patterns[operation] = None
            connections.close()
            return None

    def _learn(self, request: "AWSPreparedRequest", event_name: str, **_: object) -> None:
        """Take the SDK's own request for a pattern, unless it goes by a proxy or is signed in another way."""
        operation = event_name.rpartition(".")[2]
        # The SDK's stubs have texts here; what comes is bytes, but for the length.
        given: Mapping[str, object] = dict(request.headers)
        headers = {name.lower(): v.decode() if isinstance(v, bytes) else str(v) for name, v in given.items()}
        scope = _SCOPE.match(headers.get("authorization", ""))
        if operation in self._patterns or not scope or urlsplit(request.url).query or get_environ_proxies(request.url):
            return
        copied = {name: headers[name] for name in _COPIED if name in headers}
        pattern = Pattern(request.url, copied, scope[1], scope[2])
        connections = Connections(pattern.url, self._trusted, read_seconds=self._read_seconds)
        self._patterns[operation] = (pattern, connections)
