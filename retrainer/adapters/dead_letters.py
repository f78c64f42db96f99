"""The dead-letter queue, for an operator: its messages are looked at, sent to the events queue again, or dropped.

Three kinds of messages end there: what the daemon refused, what SQS moved there after too many receives, and what
EventBridge could not deliver. Whoever wrote them, their attributes are only ever shown.

boto3, not aiobotocore: commands use this, one call after the other.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from retrainer.ports import ConfigError, PermanentError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

HOLD_SECONDS: Final = 300
"""How long a message looked at is hidden from others, should the command die before it gives it back."""
LOOK_SECONDS: Final = 120.0
LOOK_BYTES_MAX: Final = 256 << 20
"""A look ends after so long and so much: what was seen is held in memory, and has to be dealt with while it is held."""
POLL_SECONDS: Final = 1
"""A long poll asks all of SQS's servers, so that its empty answer means an empty queue; a short one does not."""
BATCH: Final = 10
"""SQS takes and gives at most ten messages a call."""
LIMIT_MAX: Final = 100_000
"""SQS has at most 120,000 messages of a queue in flight."""

_REGION = re.compile(r"https://(?:sqs\.)?([a-z]{2}(?:-[a-z]+)+-[0-9])\.(?:queue\.)?amazonaws\.com")
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})
_THROTTLED = re.compile("throttl|slowdown|overlimit|toomany|requestlimit|expiredtoken", re.IGNORECASE)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message of the dead-letter queue. Body and attributes are as they came, whoever wrote them."""

    id: str
    body: str = field(repr=False)
    sent_at: datetime
    received: int
    """How often it was received, looking at it included."""
    attributes: Mapping[str, str]
    moved_from: str | None
    """The ARN of the queue that SQS itself moved it from."""

    @property
    def reason(self) -> str:
        """Why it is here, as far as it says."""
        if "reason" in self.attributes:
            return self.attributes["reason"]
        if self.moved_from:
            return "moved by SQS after too many receives: see the daemon's log of that time"
        if "ERROR_CODE" in self.attributes:
            code, said = self.attributes["ERROR_CODE"], self.attributes.get("ERROR_MESSAGE", "")
            return f"EventBridge could not deliver it: {code}: {said}"
        return "it says none: a body that fills a message leaves no room for it, the ledger's quarantine has it"


class DeadLetters:
    """The dead-letter queue of a daemon. Made by `open`; `close` gives back at once whatever is still held."""

    def __init__(self, client: "SQSClient", dlq_url: str, queue_url: str) -> None:
        self._client = client
        self._dlq_url = dlq_url
        self._queue_url = queue_url
        self._held: dict[str, str] = {}  # receipts by message id
        self._held_since = 0.0
        # A thread of its own receives, so that Ctrl-C in mid-poll does not lose what SQS hands out in that moment.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        self.is_whole = False
        """Whether the last look saw the end of the queue."""

    @classmethod
    def open(cls, dlq_url: str, queue_url: str) -> "DeadLetters":
        """Raises ConfigError when no client can be made; the methods raise it for what is missing or denied."""
        found = _REGION.match(dlq_url)
        config = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 4})
        try:
            client = boto3.client("sqs", region_name=found and found[1], config=config)
        except NoRegionError as error:
            raise ConfigError("no AWS region is set; set AWS_DEFAULT_REGION, as in eu-central-1") from error
        except (ValueError, ProfileNotFound) as error:
            raise ConfigError(f"no SQS client can be made: {error}; look at AWS_ENDPOINT_URL, AWS_PROFILE") from error
        return cls(client, dlq_url, queue_url)

    def look(self, limit: int) -> Iterator[Letter]:
        """Each message once, at most `limit`, until no more come. All are held until dropped, or to the end."""
        self.is_whole = False
        self._held_since = time.monotonic()
        left, room = limit, LOOK_BYTES_MAX
        seen: set[str] = set()
        while left > 0 and room > 0 and time.monotonic() < self._held_since + LOOK_SECONDS:
            with _asking("sqs:ReceiveMessage", self._dlq_url):
                messages = self._thread.submit(self._receive, min(BATCH, left)).result()
            if not messages:
                self.is_whole = True
                return
            for message in messages:
                if message["MessageId"] not in seen:
                    seen.add(message["MessageId"])
                    left, room = left - 1, room - len(message["Body"])
                    yield _letter(message)

    def send_again(self, letter: Letter) -> None:
        """Put its body on the events queue; nowhere else, whatever the message says of where it was."""
        self._check_held()
        with _asking("sqs:SendMessage", self._queue_url):
            self._client.send_message(QueueUrl=self._queue_url, MessageBody=letter.body)

    def drop(self, letters: Sequence[Letter]) -> Sequence[Letter]:
        """Delete them; returns those that SQS did not delete, which stay."""
        left: list[Letter] = []
        for ten in _tens(letters):
            self._check_held()
            with _asking("sqs:DeleteMessage", self._dlq_url):
                answer = self._client.delete_message_batch(
                    QueueUrl=self._dlq_url,
                    Entries=[{"Id": str(n), "ReceiptHandle": self._held[letter.id]} for n, letter in enumerate(ten)],
                )
            failed = [ten[int(f["Id"])] for f in answer.get("Failed", ())]
            left += failed
            for letter in ten:
                if letter not in failed:
                    del self._held[letter.id]
        return left

    def close(self) -> None:
        """Give back what is held, once a receive that was interrupted has ended too."""
        self._thread.shutdown()
        receipts = list(self._held.values()) if self._is_held() else []
        for ten in _tens(receipts):
            with _asking("sqs:ChangeMessageVisibility", self._dlq_url):
                self._client.change_message_visibility_batch(
                    QueueUrl=self._dlq_url,
                    Entries=[
                        {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                        for n, receipt in enumerate(ten)
                    ],
                )
        self._held.clear()
        self._client.close()

    def _receive(self, most: int) -> Sequence["MessageTypeDef"]:
        answer = self._client.receive_message(
            QueueUrl=self._dlq_url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=POLL_SECONDS,
            VisibilityTimeout=HOLD_SECONDS,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        self._held |= {message["MessageId"]: message["ReceiptHandle"] for message in messages}
        return messages

    def _is_held(self) -> bool:
        return time.monotonic() < self._held_since + HOLD_SECONDS

    def _check_held(self) -> None:
        if not self._is_held():
            raise TransientError(
                f"it took longer than {HOLD_SECONDS} s, so others may have the messages now; run it again"
            )


@contextmanager
def _asking(action: str, queue_url: str) -> Iterator[None]:
    """Every exception of botocore becomes one of ours."""
    try:
        yield
    except ClientError as error:
        raise _translated(action, queue_url, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ConfigError(f"no AWS credentials for {queue_url}: {error}; look at AWS_PROFILE") from error
    except BotoCoreError as error:
        raise TransientError(f"{action} on {queue_url}: {error}") from error


def _translated(action: str, queue_url: str, error: ClientError) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{action} on {queue_url}: {code}: {error.response.get('Error', {}).get('Message', '')}"
    if code in _MISSING:
        return ConfigError(f"queue {queue_url} does not exist; check its URL, its region and its account")
    if status >= 500 or _THROTTLED.search(code):
        return TransientError(said)
    if status in (401, 403):
        return ConfigError(f"{said}; whoever runs this needs {action} on it")
    return PermanentError(said)


def _letter(message: "MessageTypeDef") -> Letter:
    system = message.get("Attributes", {})
    given = message.get("MessageAttributes", {})
    return Letter(
        id=message["MessageId"],
        body=message["Body"],
        sent_at=datetime.fromtimestamp(int(system.get("SentTimestamp", "0")) / 1000, UTC),
        received=int(system.get("ApproximateReceiveCount", "1")),
        attributes={name: value.get("StringValue", "(binary)") for name, value in given.items()},
        moved_from=system.get("DeadLetterQueueSourceArn"),
    )


def _tens(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[i : i + BATCH] for i in range(0, len(things), BATCH))
