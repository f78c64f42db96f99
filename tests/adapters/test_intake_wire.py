"""What an AWS really puts on the queue is what the parser reads: from the wire, by way of the inbox."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from aiobotocore.session import get_session

from retrainer.adapters.eventbridge import Allowed, EnvelopeParser
from retrainer.adapters.sqs import SqsInbox
from retrainer.core.events import ApprovalRequested, ObjectCreated
from retrainer.ports import Parsed, Verdict
from tests.adapters.emulator import running, use

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

ACCOUNT = "000000000000"
PARSER = EnvelopeParser(
    Allowed(
        accounts=frozenset({ACCOUNT}), buckets=frozenset({"bridged", "direct"}), regions=frozenset({"eu-central-1"})
    )
)


@dataclass(frozen=True)
class World:
    clients: dict[str, Any]
    queue: str
    queue_arn: str

    async def parsed(self, kind: str) -> Parsed:
        """The first message of that kind, parsed."""
        inbox = SqsInbox(self.clients["sqs"], self.queue, self.queue, wait_seconds=1)
        until = time.monotonic() + 15
        while time.monotonic() < until:
            for message in await inbox.receive():
                await inbox.acknowledge([message])
                parsed = PARSER.parse(message.body)
                assert parsed.verdict not in (Verdict.MALFORMED, Verdict.FOREIGN), (parsed.why, message.body)
                if parsed.kind == kind:
                    return parsed
        raise AssertionError(f"no {kind} came")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    with running(tmp_path_factory.mktemp("aws")) as url, pytest.MonkeyPatch.context() as patch:
        use(patch, url)
        session = get_session()
        async with (
            session.create_client("s3") as s3,
            session.create_client("sqs") as sqs,
            session.create_client("events") as events,
            session.create_client("stepfunctions") as states,
        ):
            queue = (await sqs.create_queue(QueueName="events"))["QueueUrl"]
            seen = await sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
            pattern = {"source": ["aws.s3", "aws.states"]}
            await events.put_rule(Name="ours", EventPattern=json.dumps(pattern))
            await events.put_targets(Rule="ours", Targets=[{"Id": "queue", "Arn": seen["Attributes"]["QueueArn"]}])
            for bucket in ("bridged", "direct"):
                place: Any = {"LocationConstraint": "eu-central-1"}
                await s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
            clients = {"s3": s3, "sqs": sqs, "states": states}
            yield World(clients, queue, seen["Attributes"]["QueueArn"])


@pytest.mark.parametrize(
    ("bucket", "way"),
    [
        ("bridged", lambda _: {"EventBridgeConfiguration": {}}),
        ("direct", lambda arn: {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}),
    ],
)
async def test_an_object_put_into_a_bucket_comes_out_as_the_event_of_its_key(
    world: World, bucket: str, way: Any
) -> None:
    s3 = world.clients["s3"]
    await s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration=way(world.queue_arn), SkipDestinationValidation=True
    )
    await s3.put_object(Bucket=bucket, Key="data/recommender/2026 q1+é.parquet", Body=b"PAR1")
    ((model, event),) = (await world.parsed("ObjectCreated")).events
    assert isinstance(event, ObjectCreated)
    assert (model, event.bucket, event.key, event.size_bytes) == (
        None,
        bucket,
        "data/recommender/2026 q1+é.parquet",
        4,
    )
    assert event.version


async def test_an_execution_asks_for_its_approval_and_tells_of_its_status(world: World) -> None:
    """The message is the one that deploy/statemachine sends."""
    body = {
        "version": "0",
        "id.$": "$$.Execution.Name",
        "source": "retrainer",
        "detail-type": "Approval Requested",
        "account": ACCOUNT,
        "time.$": "$$.State.EnteredTime",
        "region": "eu-central-1",
        "resources.$": "States.Array($$.Execution.Id)",
        "detail": {
            "execution.$": "$$.Execution.Name",
            "model": "recommender",
            "task_token.$": "$$.Task.Token",
            "model_package_arn": None,
        },
    }
    ask = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": world.queue, "MessageBody": body},
        "End": True,
    }
    states = world.clients["states"]
    machine = await states.create_state_machine(
        name="retraining",
        definition=json.dumps({"StartAt": "Ask", "States": {"Ask": ask}}),
        roleArn=f"arn:aws:iam::{ACCOUNT}:role/states",
    )
    await states.start_execution(stateMachineArn=machine["stateMachineArn"], name="recommender-g3-0a1b2c3d")
    ((model, event),) = (await world.parsed("ApprovalRequested")).events
    assert isinstance(event, ApprovalRequested)
    assert (model, event.execution) == ("recommender", "recommender-g3-0a1b2c3d")
    await states.send_task_success(taskToken=event.task_token, output="{}")
    assert (await world.parsed("ExecutionStatusChanged")).verdict is Verdict.WAKE


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("\t\n\r " * 1000, Verdict.MALFORMED),
        ("<Message/>", Verdict.MALFORMED),
        ("x" * 1_000_000, Verdict.MALFORMED),
        ('{"Type": "Notification", "Message": "{\\"Event\\": \\"s3:TestEvent\\"}"}', Verdict.IGNORED),
        ("\U0001f600 é \ufffd", Verdict.MALFORMED),
    ],
    ids=["blank", "xml", "large", "sns", "emoji"],
)
async def test_what_a_foreign_client_sends_comes_through_and_gets_its_verdict(
    world: World, body: str, verdict: Verdict
) -> None:
    attributes = {
        **{f"a{i}": {"DataType": "Number.int", "StringValue": "1"} for i in range(9)},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    sqs = world.clients["sqs"]
    sent = await sqs.send_message(QueueUrl=world.queue, MessageBody=body, MessageAttributes=attributes)
    inbox = SqsInbox(sqs, world.queue, world.queue, wait_seconds=1)
    until = time.monotonic() + 15
    while time.monotonic() < until:
        for message in await inbox.receive():
            await inbox.acknowledge([message])
            if message.id == sent["MessageId"]:
                assert message.body == body
                assert PARSER.parse(message.body).verdict is verdict
                return
    raise AssertionError("it did not come")
