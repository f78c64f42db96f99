"""The inbox, against the embedded AWS over its wire protocol, and against a server that fails as SQS does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio
from aiobotocore.session import get_session

from retrainer.adapters.sqs import SqsInbox
from retrainer.adapters.sqs.wire import Wire
from retrainer.ports import ConfigError, Message, PermanentError, TransientError
from tests.adapters.emulator import Answers, answering, free_port, running, use

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

# One loop and one client for all of them: to make a client costs botocore a third of a second.
pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("aws")) as url:
        yield url


@dataclass(frozen=True)
class World:
    client: "SQSClient"
    queue: str
    dlq: str
    inbox: SqsInbox

    async def send(self, *bodies: str) -> None:
        for body in bodies:
            await self.client.send_message(QueueUrl=self.queue, MessageBody=body)

    async def left(self) -> int:
        """Messages on the queue, those in flight among them."""
        answer = await self.client.get_queue_attributes(
            QueueUrl=self.queue,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )
        return sum(int(n) for n in answer["Attributes"].values())

    async def refused(self) -> list["MessageTypeDef"]:
        answer = await self.client.receive_message(
            QueueUrl=self.dlq, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return answer.get("Messages", [])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(endpoint: str) -> AsyncIterator["SQSClient"]:
    with pytest.MonkeyPatch.context() as patch:
        use(patch, endpoint)
        async with get_session().create_client("sqs") as made:
            yield made


@pytest_asyncio.fixture(params=["fast", "aiobotocore"], loop_scope="module")
async def world(client: "SQSClient", request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Both ways of asking SQS, on queues of their own; the fast one after its first calls, which are the SDK's."""
    name = uuid4().hex
    queue = (await client.create_queue(QueueName=f"events-{name}"))["QueueUrl"]
    dlq = (await client.create_queue(QueueName=f"refused-{name}"))["QueueUrl"]
    fast = request.param == "fast"
    async with SqsInbox.open(queue, dlq, wait_seconds=1, fast=fast) as inbox:
        if fast:
            await client.send_message(QueueUrl=queue, MessageBody="first")
            await inbox.acknowledge(await inbox.receive())
            assert isinstance(inbox._client, Wire)
            assert inbox._client.fast == {"ReceiveMessage", "DeleteMessageBatch"}
        yield World(client, queue, dlq, inbox)


async def test_a_message_comes_as_it_was_sent_with_both_its_times(world: World) -> None:
    await world.send('{"ä": "\U0001f600"}')
    (message,) = await world.inbox.receive()
    assert message.body == '{"ä": "\U0001f600"}'
    assert message.queue == world.queue.rpartition("/")[2]
    assert message.sent_at
    assert message.sent_at - timedelta(seconds=2) < message.received_at <= datetime.now(UTC)


async def test_an_empty_queue_gives_nothing_after_the_poll(world: World) -> None:
    assert await world.inbox.receive() == ()


async def test_at_most_ten_come_at_once_and_none_twice_while_they_are_held(world: World) -> None:
    await world.send(*(str(i) for i in range(12)))
    first, second = await world.inbox.receive(), await world.inbox.receive()
    assert len(first) <= 10
    assert sorted(int(m.body) for m in (*first, *second)) == list(range(12))


async def test_what_is_acknowledged_is_gone(world: World) -> None:
    await world.send(*(str(i) for i in range(12)))
    held = [*await world.inbox.receive(), *await world.inbox.receive()]
    await world.inbox.acknowledge(held)
    assert await world.left() == 0


async def test_acknowledging_twice_is_harmless(world: World) -> None:
    await world.send("a")
    held = await world.inbox.receive()
    await world.inbox.acknowledge(held)
    await world.inbox.acknowledge(held)
    await world.inbox.acknowledge(())
    assert await world.left() == 0


async def test_what_is_refused_is_on_the_dead_letter_queue_with_its_reason_and_gone_from_the_queue(
    world: World,
) -> None:
    await world.send("not an event")
    (message,) = await world.inbox.receive()
    await world.inbox.refuse(message, "this is not JSON: \x00\ud800 " + "x" * 2000)
    (copy,) = await world.refused()
    said = {k: v["StringValue"] for k, v in copy["MessageAttributes"].items()}
    assert copy["Body"] == "not an event"
    assert said["reason"].startswith("this is not JSON: ?? x")
    assert len(said["reason"]) == 1000
    assert (said["original_queue"], said["message_id"]) == (world.queue, message.id)
    assert await world.left() == 0


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_a_message_that_leaves_no_room_for_the_reason_is_refused_all_the_same(world: World) -> None:
    await world.send("x" * 1_048_576)
    (message,) = await world.inbox.receive()
    await world.inbox.refuse(message, "too large")
    (copy,) = await world.refused()
    assert len(copy["Body"]) == 1_048_576
    assert await world.left() == 0


async def test_a_dead_letter_queue_may_be_one_that_keeps_the_order(world: World) -> None:
    name = f"refused-{uuid4().hex}.fifo"
    dlq = (await world.client.create_queue(QueueName=name, Attributes={"FifoQueue": "true"}))["QueueUrl"]
    await world.send("bad")
    async with SqsInbox.open(world.queue, dlq, wait_seconds=1) as inbox:
        (message,) = await inbox.receive()
        await inbox.refuse(message, "why")
        await inbox.refuse(message, "why")
    answer = await world.client.receive_message(QueueUrl=dlq, MaxNumberOfMessages=10)
    assert [m["Body"] for m in answer["Messages"]] == ["bad"]
    assert await world.left() == 0


async def test_what_is_released_can_be_had_again_at_once(world: World) -> None:
    await world.send("a", "b")
    held = await world.inbox.receive()
    await world.inbox.release(held)
    again = await world.inbox.receive()
    assert sorted(m.body for m in again) == sorted(m.body for m in held)


async def test_a_queue_that_does_not_exist_is_a_mistake_to_mend(world: World) -> None:
    wrong = world.queue + "-typo"
    with pytest.raises(ConfigError, match=f"{wrong} does not exist; check its URL"):
        await SqsInbox(world.client, wrong, world.dlq, wait_seconds=0).receive()


async def test_a_dead_letter_queue_that_does_not_exist_leaves_the_message_where_it_is(world: World) -> None:
    await world.send("bad")
    inbox = SqsInbox(world.client, world.queue, world.dlq + "-typo", wait_seconds=1)
    (message,) = await inbox.receive()
    with pytest.raises(ConfigError, match="-typo does not exist"):
        await inbox.refuse(message, "why")
    assert await world.left() == 1


# --- failing as SQS does ---

QUEUE = "http://localhost/000000000000/events"
HELD = tuple(
    Message(id=str(i), body="b", receipt=f"r{i}", queue="events", received_at=datetime(2026, 1, 1, tzinfo=UTC))
    for i in range(3)
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["fast", "aiobotocore"])
async def failing(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Answers, SqsInbox]]:
    """A server that answers as it is told, and an inbox on it."""
    with pytest.MonkeyPatch.context() as patch:
        async with answering() as answers:
            use(patch, answers.url)
            async with SqsInbox.open(QUEUE, QUEUE + "-dlq", wait_seconds=0, fast=request.param == "fast") as inbox:
                answers.then(200, Successful=[], Failed=[])
                await inbox.receive()
                await inbox.acknowledge(HELD[:1])
                yield answers, inbox


async def test_a_delete_that_failed_at_sqs_is_tried_again_alone(failing: tuple[Answers, SqsInbox]) -> None:
    sqs, inbox = failing
    sqs.given.clear()
    sqs.asked.clear()
    done = [{"Id": "0"}, {"Id": "2"}]
    failed = [{"Id": "1", "SenderFault": False, "Code": "InternalError"}]
    sqs.then(200, Successful=done, Failed=failed).then(200, Successful=[{"Id": "0"}], Failed=[])
    await inbox.acknowledge(HELD)
    assert sqs.asked[1]["Entries"] == [{"Id": "0", "ReceiptHandle": "r1"}]
    assert len(sqs.asked) == 2


async def test_a_delete_that_keeps_failing_is_told_and_one_that_cannot_succeed_is_not_tried_again(
    failing: tuple[Answers, SqsInbox],
) -> None:
    sqs, inbox = failing
    sqs.given.clear()
    sqs.asked.clear()
    sqs.then(200, Successful=[], Failed=[{"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"}])
    await inbox.acknowledge(HELD[:1])
    assert len(sqs.asked) == 1
    sqs.given.clear()
    sqs.then(200, Successful=[], Failed=[{"Id": "0", "SenderFault": False, "Code": "InternalError"}])
    with pytest.raises(TransientError, match="SQS did not delete 1 of 1 messages of events"):
        await inbox.acknowledge(HELD[:1])


async def test_what_is_acknowledged_while_a_delete_is_under_way_goes_together(
    failing: tuple[Answers, SqsInbox],
) -> None:
    sqs, inbox = failing
    sqs.given.clear()
    sqs.asked.clear()
    sqs.then(200, Successful=[], Failed=[])
    await asyncio.gather(*(inbox.acknowledge((message,)) for message in HELD))
    assert [len(asked["Entries"]) for asked in sqs.asked] == [1, 2]  # type: ignore[arg-type]


async def test_a_delete_that_fails_is_told_to_all_whose_messages_went_with_it(
    failing: tuple[Answers, SqsInbox],
) -> None:
    sqs, inbox = failing
    sqs.given.clear()
    sqs.asked.clear()
    sqs.then(200, Successful=[], Failed=[])
    for _ in range(2):
        sqs.then(400, __type="com.amazonaws.sqs#ThrottlingException", message="said")
    acknowledged = (inbox.acknowledge((message,)) for message in HELD)
    told = await asyncio.gather(*acknowledged, return_exceptions=True)
    assert [type(t) for t in told] == [type(None), TransientError, TransientError]


ERRORS = (
    (400, "ThrottlingException", TransientError, "sqs:ReceiveMessage on .*: ThrottlingException: said"),
    (503, "ServiceUnavailable", TransientError, "ServiceUnavailable"),
    (403, "AccessDeniedException", ConfigError, "check that the daemon's role allows sqs:ReceiveMessage on it"),
    (400, "InvalidParameterValue", PermanentError, "InvalidParameterValue: said"),
)


async def test_an_error_of_sqs_is_one_of_ours_and_says_what_to_check(failing: tuple[Answers, SqsInbox]) -> None:
    sqs, inbox = failing
    sqs.given.clear()
    sqs.asked.clear()
    for status, code, kind, said in ERRORS:
        sqs.given.clear()
        sqs.then(status, __type=f"com.amazonaws.sqs#{code}", message="said")
        with pytest.raises(kind, match=said):
            await inbox.receive()


async def test_a_connection_that_breaks_or_is_not_there_may_come_back(
    failing: tuple[Answers, SqsInbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs, inbox = failing
    sqs.given.clear()
    sqs.hang_up()
    with pytest.raises(TransientError):
        await inbox.receive()
    use(monkeypatch, f"http://127.0.0.1:{free_port()}")
    async with SqsInbox.open(QUEUE, QUEUE, wait_seconds=0) as away:
        with pytest.raises(TransientError, match="ReceiveMessage on http://localhost/000000000000/events: "):
            await away.receive()


async def test_without_a_region_or_with_a_broken_endpoint_the_mistake_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "not a url")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL"):
        async with SqsInbox.open(QUEUE, QUEUE):
            pass
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(ConfigError, match="set AWS_DEFAULT_REGION"):
        async with SqsInbox.open(QUEUE, QUEUE):
            pass


async def test_the_region_is_that_of_the_queue_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering() as sqs:
        use(monkeypatch, sqs.url)
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        sqs.then(200, Messages=[])
        url = "https://sqs.us-gov-west-1.amazonaws.com/111122223333/events"
        async with SqsInbox.open(url, url, wait_seconds=0) as inbox:
            await inbox.receive()
            await inbox.receive()
        assert all("/us-gov-west-1/sqs/aws4_request" in head for head in sqs.heads)
        assert len(sqs.heads) == 2
