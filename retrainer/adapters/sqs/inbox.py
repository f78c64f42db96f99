"""The queue that events arrive on: long polls, batched deletes, and the dead-letter queue for what is refused.

Where credentials, endpoint and retry settings come from is botocore's own business (AWS_ENDPOINT_URL among it).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from retrainer.ports import ConfigError, Message, PermanentError, TransientError

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient
    from types_aiobotocore_sqs.type_defs import BatchResultErrorEntryTypeDef, MessageTypeDef

WAIT_SECONDS: Final = 20
"""SQS's longest long poll: the fewest empty answers to pay for."""
BATCH: Final = 10
"""SQS takes and gives at most ten messages a call."""
TRIES: Final = 3
"""How often the entries of a batch that SQS did not carry out are tried."""
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

    def __init__(self, client: "SQSClient", queue_url: str, dlq_url: str, wait_seconds: int) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dlq_url = dlq_url
        self._wait_seconds = wait_seconds
        self._name = queue_url.rstrip("/").rpartition("/")[2]
        self._to_delete: list[Message] = []
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
    ) -> AsyncIterator["SqsInbox"]:
        """The inbox, with a connection for each poller and as many again for the rest. Raises ConfigError.

        Without a region given, that of the queue's own URL is taken, else botocore's default.
        """
        found = _REGION.match(queue_url)
        config = AioConfig(
            connect_timeout=5,
            read_timeout=wait_seconds + 10,  # a long poll answers at its end, and not before
            max_pool_connections=2 * pollers + 2,
            retries={"mode": "standard", "total_max_attempts": 2},  # the loop has a patience of its own
        )
        try:
            context = get_session().create_client("sqs", region_name=region or (found and found[1]), config=config)
            client = await context.__aenter__()
        except NoRegionError as error:
            raise ConfigError("no AWS region is set; set AWS_DEFAULT_REGION, as in eu-central-1") from error
        except (ValueError, ProfileNotFound) as error:
            raise ConfigError(f"no SQS client can be made: {error}; look at AWS_ENDPOINT_URL, AWS_PROFILE") from error
        try:
            yield cls(client, queue_url, dlq_url, wait_seconds)
        finally:
            await context.__aexit__(None, None, None)

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
        """Delete them. While one call deletes, what other pollers acknowledge is gathered, and goes with the next."""
        self._to_delete.extend(messages)
        async with self._deleting:
            batch, self._to_delete = self._to_delete, []
            await asyncio.gather(*(self._delete(ten) for ten in _tens(batch)))

    async def refuse(self, message: Message, why: str) -> None:
        """Put a copy on the dead-letter queue (attributes reason, original_queue and message_id), then delete it."""
        said = {"reason": _legal(why)[:WHY_MAX], "original_queue": self._queue_url, "message_id": message.id}
        weight = len(message.body.encode()) + sum(len(k) + len(v.encode()) + len("String") for k, v in said.items())
        if weight > MESSAGE_MAX_BYTES:
            said = {}  # A body that fills a message leaves no room to say why; the ledger's quarantine has it.
        await _asked(
            self._dlq_url,
            "sqs:SendMessage",
            self._client.send_message(
                QueueUrl=self._dlq_url,
                MessageBody=message.body,
                MessageAttributes={k: {"DataType": "String", "StringValue": v} for k, v in said.items()},
            ),
        )
        await self.acknowledge((message,))

    async def release(self, messages: Sequence[Message]) -> None:
        """Make them visible again at once."""
        await asyncio.gather(*(self._show(ten) for ten in _tens(messages)))

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

    async def _show(self, messages: Sequence[Message]) -> None:
        async def show(those: Sequence[Message]) -> Sequence["BatchResultErrorEntryTypeDef"]:
            answer = await _asked(
                self._queue_url,
                "sqs:ChangeMessageVisibility",
                self._client.change_message_visibility_batch(
                    QueueUrl=self._queue_url,
                    Entries=[
                        {"Id": str(i), "ReceiptHandle": m.receipt, "VisibilityTimeout": 0} for i, m in enumerate(those)
                    ],
                ),
            )
            return answer.get("Failed", ())

        await self._until_done("release", messages, show)

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
