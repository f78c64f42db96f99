"""The queue that events arrive on: long polls, batched deletes, and the dead-letter queue for what is refused.

Where credentials, endpoint and retry settings come from is botocore's own business (AWS_ENDPOINT_URL among it).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from retrainer.adapters.sqs.wire import Calls, Wire
from retrainer.ports import ConfigError, Message, PermanentError, TransientError

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import BatchResultErrorEntryTypeDef, MessageTypeDef

WAIT_SECONDS: Final = 20
"""SQS's longest long poll: the fewest empty answers to pay for."""
BATCH: Final = 10
"""SQS takes and gives at most ten messages a call."""
TRIES: Final = 3
"""How often the entries of a batch that SQS did not carry out are tried."""
KEEP_SECONDS: Final = 60
"""For how long what a poller holds is kept from the others at a time."""
WHY_MAX: Final = 1000
MESSAGE_MAX_BYTES: Final = 1_048_576
"""Body and attributes together (AWS, 2025)."""

_REGION = re.compile(r"https://(?:sqs\.)?([a-z]{2}(?:-[a-z]+)+-[0-9])\.(?:queue\.)?amazonaws\.com")
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "KMS.AccessDeniedException",
        "KmsAccessDenied",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_PASSING = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "KmsThrottled",
        "OverLimit",
        "RequestThrottled",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, ProfileNotFound)

T = TypeVar("T")


class SqsInbox:
    """Implements ports.Inbox on one queue; any number of pollers may share it. Made by `open`.

    Besides TransientError every method raises ConfigError when the queue does not exist or is denied to us.
    """

    def __init__(self, client: Calls, queue_url: str, dlq_url: str, wait_seconds: int) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dlq_url = dlq_url
        self._wait_seconds = wait_seconds
        self._name = queue_url.rstrip("/").rpartition("/")[2]
        self._to_delete: list[tuple[Sequence[Message], asyncio.Future[None]]] = []
        self._deleting = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        queue_url: str,
        dlq_url: str,
        *,
        wait_seconds: int = WAIT_SECONDS,
        pollers: int = 4,
        region: str | None = None,
        fast: bool = True,
        session: AioSession | None = None,
    ) -> AsyncIterator["SqsInbox"]:
        """The inbox, with a connection for each poller and as many again for the rest. Raises ConfigError.

        Without a region given, that of the queue's own URL is taken, else botocore's default. Unless `fast`, every call
        is the SDK's.
        """
        found = _REGION.match(queue_url)
        config = AioConfig(
            connect_timeout=5,
            read_timeout=wait_seconds + 10,  # a long poll answers at its end, and not before
            max_pool_connections=2 * pollers + 2,
            retries={"mode": "standard", "total_max_attempts": 2},  # the loop has a patience of its own
        )
        session = session or get_session()
        async with AsyncExitStack() as stack:
            try:
                made = session.create_client("sqs", region_name=region or (found and found[1]), config=config)
                sdk = await stack.enter_async_context(made)
            except NoRegionError as error:
                raise ConfigError("no AWS region is set; set AWS_DEFAULT_REGION, as in eu-central-1") from error
            except (ValueError, ProfileNotFound) as error:
                said = f"no SQS client can be made: {error}; look at AWS_ENDPOINT_URL, AWS_PROFILE"
                raise ConfigError(said) from error
            client: Calls = sdk
            if fast:
                client = stack.enter_context(Wire.open(sdk, session, read_seconds=wait_seconds + 10.0))
            yield cls(client, queue_url, dlq_url, wait_seconds)

    async def receive(self) -> Sequence[Message]:
        """Up to ten messages, after at most one long poll. Cancelled in mid-poll, it may orphan what SQS gave it."""
        answer = await _asked(
            self._queue_url,
            "sqs:ReceiveMessage",
            self._client.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=self._wait_seconds,
                MessageSystemAttributeNames=["SentTimestamp"],
            ),
        )
        received_at = datetime.now(UTC)
        return tuple(self._message(m, received_at) for m in answer.get("Messages", ()))

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Delete them. While one call deletes, what other pollers acknowledge is gathered, and goes with the next.

        Where it fails, it fails for all whose messages went together: each of them has to try again.
        """
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._to_delete.append((messages, told))
        async with self._deleting:
            together, self._to_delete = self._to_delete, []
            await self._delete_all(together)
        await told

    async def _delete_all(self, together: Sequence[tuple[Sequence[Message], asyncio.Future[None]]]) -> None:
        error: BaseException | None = TransientError("the call that was to delete them was given up")
        try:
            tens = _tens([m for messages, _ in together for m in messages])
            failed = await asyncio.gather(*(self._delete(ten) for ten in tens), return_exceptions=True)
            error = next((f for f in failed if f is not None), None)
        finally:
            for told in (told for _, told in together if not told.done()):  # done: whoever waited was cancelled
                if error is None:
                    told.set_result(None)
                else:
                    told.set_exception(error)

    async def refuse(self, message: Message, why: str) -> None:
        """Put a copy on the dead-letter queue (attributes reason, original_queue and message_id), then delete it."""
        said = {"reason": _legal(why)[:WHY_MAX], "original_queue": self._queue_url, "message_id": message.id}
        weight = len(message.body.encode()) + sum(len(k) + len(v.encode()) + len("String") for k, v in said.items())
        if weight > MESSAGE_MAX_BYTES:
            said = {}  # A body that fills a message leaves no room to say why; the ledger's quarantine has it.
        ordered: dict[str, Any] = {}
        if self._dlq_url.endswith(".fifo"):
            # The same refusal twice is one.
            once = sha256(message.id.encode()).hexdigest()
            ordered = {"MessageGroupId": "refused", "MessageDeduplicationId": once}
        await _asked(
            self._dlq_url,
            "sqs:SendMessage",
            self._client.send_message(
                QueueUrl=self._dlq_url,
                MessageBody=message.body,
                MessageAttributes={k: {"DataType": "String", "StringValue": v} for k, v in said.items()},
                **ordered,
            ),
        )
        await self.acknowledge((message,))

    async def release(self, messages: Sequence[Message]) -> None:
        """Make them visible again at once."""
        await asyncio.gather(*(self._visible_in(0, ten) for ten in _tens(messages)))

    async def keep(self, messages: Sequence[Message]) -> None:
        """Keep them invisible to others for another minute; SQS allows twelve hours in all."""
        await asyncio.gather(*(self._visible_in(KEEP_SECONDS, ten) for ten in _tens(messages)))

    async def _delete(self, messages: Sequence[Message]) -> None:
        async def delete(those: Sequence[Message]) -> Sequence["BatchResultErrorEntryTypeDef"]:
            answer = await _asked(
                self._queue_url,
                "sqs:DeleteMessage",
                self._client.delete_message_batch(
                    QueueUrl=self._queue_url,
                    Entries=[{"Id": str(i), "ReceiptHandle": m.receipt} for i, m in enumerate(those)],
                ),
            )
            return answer.get("Failed", ())

        await self._until_done("delete", messages, delete)

    async def _visible_in(self, seconds: int, messages: Sequence[Message]) -> None:
        async def change(those: Sequence[Message]) -> Sequence["BatchResultErrorEntryTypeDef"]:
            answer = await _asked(
                self._queue_url,
                "sqs:ChangeMessageVisibility",
                self._client.change_message_visibility_batch(
                    QueueUrl=self._queue_url,
                    Entries=[
                        {"Id": str(i), "ReceiptHandle": m.receipt, "VisibilityTimeout": seconds}
                        for i, m in enumerate(those)
                    ],
                ),
            )
            return answer.get("Failed", ())

        await self._until_done("keep" if seconds else "release", messages, change)

    async def _until_done(
        self,
        doing: str,
        messages: Sequence[Message],
        call: Callable[[Sequence[Message]], Coroutine[Any, Any, Sequence["BatchResultErrorEntryTypeDef"]]],
    ) -> None:
        """Try the entries that failed at SQS's side again; a receipt SQS does not know (any more) is passed over."""
        left = list(messages)
        for _ in range(TRIES):
            failed = [f for f in await call(left) if not f["SenderFault"]]
            left = [left[int(f["Id"])] for f in failed]
            if not left:
                return
        raise TransientError(f"SQS did not {doing} {len(left)} of {len(messages)} messages of {self._name}")

    def _message(self, message: "MessageTypeDef", received_at: datetime) -> Message:
        sent = message.get("Attributes", {}).get("SentTimestamp")
        return Message(
            id=message["MessageId"],
            body=message["Body"],
            receipt=message["ReceiptHandle"],
            queue=self._name,
            received_at=received_at,
            sent_at=datetime.fromtimestamp(int(sent) / 1000, UTC) if sent else None,
        )


async def _asked(queue_url: str, action: str, call: Coroutine[Any, Any, T]) -> T:
    """What the call answers; every exception of botocore and aiohttp becomes one of ours."""
    try:
        return await call
    except ClientError as error:
        raise _translated(queue_url, action, error) from error
    except _CREDENTIALS as error:
        raise ConfigError(f"no AWS credentials for {queue_url}: {error}; look at the role or AWS_PROFILE") from error
    except ParamValidationError as error:
        raise PermanentError(f"{action} on {queue_url}: {error}") from error
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TransientError(f"{action} on {queue_url}: {type(error).__name__}: {error}") from error


def _translated(queue_url: str, action: str, error: ClientError) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    said = f"{action} on {queue_url}: {code}: {error.response.get('Error', {}).get('Message', '')}"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return ConfigError(f"queue {queue_url} does not exist; check its URL, its region and its account")
    if code in _DENIED:
        return ConfigError(f"{said}; check that the daemon's role allows {action} on it, and the queue's own policy")
    if code in _PASSING or status >= 500 or status == 429:
        return TransientError(said)
    return PermanentError(said)


def _tens(messages: Sequence[Message]) -> Iterable[Sequence[Message]]:
    return (messages[i : i + BATCH] for i in range(0, len(messages), BATCH))


def _legal(text: str) -> str:
    """SQS takes the characters of XML 1.0 only, and no empty attribute."""
    return re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text) or "?"
