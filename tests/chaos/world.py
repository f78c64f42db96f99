"""What the campaign's daemons live in: the embedded AWS, a state machine of seconds, and a stream of known facts."""

import io
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from retrainer.local.aws import LocalAws
from retrainer.wiring import TEMPLATE

ACCOUNT, REGION, BUCKET = "000000000000", "us-east-1", "chaos"
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:chaos-retraining"
ALARM = "chaos-error-rate"
MODELS = tuple(f"{kind}-{n}" for kind in ("asked", "fed", "timed", "warned") for n in (1, 2))
TIMED, WARNED = ("timed-1", "timed-2"), ("timed-1", "timed-2", "warned-1", "warned-2")
"""Those with a schedule, and those that the one alarm concerns."""
VISIBILITY_SECONDS = 6
EXECUTION_SECONDS = 1
MALFORMED_SHARE = 0.01
DUPLICATED_SHARE = 0.20

Identity = tuple[str, str]
"""A model, and the identity of an event that concerns it; of an object the identity up to its version."""


@dataclass(slots=True)
class Sent:
    """Everything that was given to the queue: what must be decided once, and what must end as refused."""

    identities: dict[Identity, datetime] = field(default_factory=dict)
    malformed: set[str] = field(default_factory=set)
    messages: int = 0


class World:
    """The embedded AWS with queue, dead-letter queue, bucket, rules and state machine; an async context manager."""

    def __init__(self, folder: Path, random: Random) -> None:
        self.folder = folder
        self.sent = Sent()
        self.policies = folder / "policies"
        self._random = random
        self._aws = LocalAws(folder / "aws", stop_grace_seconds=1.0)
        self._open = AsyncExitStack()
        self._later: list[tuple[float, str]] = []
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        self.policies.mkdir(parents=True)
        for model in MODELS:
            (self.policies / f"{model}.yaml").write_text(json.dumps(policy(model), indent=1))
        await self._open.enter_async_context(self._aws)
        session = get_session()
        config = AioConfig(max_pool_connections=20, retries={"mode": "standard", "max_attempts": 4})

        async def client(name: str) -> Any:
            made = session.create_client(
                name,  # type: ignore[call-overload]
                region_name=REGION,
                endpoint_url=self._aws.endpoint_url,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=config,
            )
            return await self._open.enter_async_context(made)

        self.sqs, self.s3, self.states, events = [await client(n) for n in ("sqs", "s3", "stepfunctions", "events")]
        await self._furnish(events)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def endpoint_url(self) -> str:
        return self._aws.endpoint_url

    def environment(self, endpoint_url: str) -> dict[str, str]:
        """Of a daemon that reaches AWS there, less its ledger and its port."""
        return {
            **self._aws.env,
            "AWS_ENDPOINT_URL": endpoint_url,
            "RETRAINER_QUEUE_URL": self.queue.replace(self.endpoint_url, endpoint_url),
            "RETRAINER_DLQ_URL": self.dlq.replace(self.endpoint_url, endpoint_url),
            "RETRAINER_BUCKET": BUCKET,
            "RETRAINER_STATE_MACHINE_ARN": MACHINE,
            "RETRAINER_POLICIES": str(self.policies),
            "RETRAINER_OBSERVE_SECONDS": "1",
            "RETRAINER_POLL_WAIT_SECONDS": "1",
            "RETRAINER_LOG_LEVEL": "debug",
        }

    async def _furnish(self, events: Any) -> None:
        made = await self.sqs.create_queue(QueueName="chaos-dlq")
        self.dlq: str = made["QueueUrl"]
        redrive = {"deadLetterTargetArn": _arn("sqs", "chaos-dlq"), "maxReceiveCount": max_receive_count()}
        attributes = {"VisibilityTimeout": str(VISIBILITY_SECONDS), "RedrivePolicy": json.dumps(redrive)}
        made = await self.sqs.create_queue(QueueName="chaos-events", Attributes=attributes)
        self.queue: str = made["QueueUrl"]
        await self.s3.create_bucket(Bucket=BUCKET)
        await self.s3.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        await self.states.create_state_machine(
            name="chaos-retraining", roleArn=f"arn:aws:iam::{ACCOUNT}:role/chaos", definition=json.dumps(DEFINITION)
        )
        patterns = {
            "data": {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": [BUCKET]}}},
            "executions": {"source": ["aws.states"], "detail": {"stateMachineArn": [MACHINE]}},
        }
        for name, pattern in patterns.items():
            await events.put_rule(Name=name, EventPattern=json.dumps(pattern))
            await events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": _arn("sqs", "chaos-events")}])

    # --- what happens in it ---

    async def tell(self, count: int, now: float) -> None:
        """So many facts at once, some of them for the second time, and what was held back until `now`."""
        due = [body for at, body in self._later if at <= now]
        self._later = [(at, body) for at, body in self._later if at > now]
        for _ in range(count):
            body = self._fact()
            due.append(body)
            if self._random.random() < DUPLICATED_SHARE:
                self._later.append((now + self._random.choice((0.0, 0.5, 5.0)), body))
        self._random.shuffle(due)
        for ten in _tens(due):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(ten)]
            answer = await self.sqs.send_message_batch(QueueUrl=self.queue, Entries=entries)
            assert not answer.get("Failed")
        self.sent.messages += len(due)

    async def put_all(self) -> None:
        for model in MODELS:
            await self.put(model)

    async def put(self, model: str | None = None) -> None:
        """A new batch of rows, of one of the models; S3 tells of it by itself."""
        model = model or self._random.choice(MODELS)
        key = f"data/{model}/{next(self._numbers)}.parquet"
        self.sent.identities[model, f"object:{BUCKET}/{key}"] = datetime.now(UTC)
        await self.s3.put_object(Bucket=BUCKET, Key=key, Body=io.BytesIO(_ROWS))

    async def tell_the_rest(self) -> None:
        await self.tell(0, float("inf"))

    def _fact(self) -> str:
        number, now = next(self._numbers), datetime.now(UTC)
        if self._random.random() < MALFORMED_SHARE:
            body = self._random.choice((f"{{no JSON {number}", envelope(str(number), now, "asked-1", account="1" * 12)))
            self.sent.malformed.add(body)
            return body
        if self._random.random() < 0.1:
            state = self._random.choice(("ALARM", "OK"))
            moment = now.isoformat()
            self.sent.identities |= {(m, f"alarm:{ALARM}:{state}@{moment}"): now for m in WARNED}
            return alarm(number, now, state, moment)
        model = self._random.choice(MODELS)
        self.sent.identities[model, f"request:chaos-{number}"] = now
        return envelope(f"chaos-{number}", now, model)

    # --- what is seen of it ---

    async def executions(self) -> list[dict[str, Any]]:
        """Every execution there ever was, in the order of their starts."""
        pages = self.states.get_paginator("list_executions").paginate(stateMachineArn=MACHINE)
        found = [e async for page in pages for e in page["executions"]]
        return sorted(found, key=lambda e: e["startDate"])

    async def waiting(self, url: str) -> int:
        """Messages in a queue, visible, in somebody's hand or delayed."""
        names = [f"ApproximateNumberOfMessages{of}" for of in ("", "NotVisible", "Delayed")]
        answer = await self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    async def refused(self) -> list[dict[str, Any]]:
        """Everything in the dead-letter queue; it stays there, and is seen again by the next look."""
        found: dict[str, dict[str, Any]] = {}
        while True:
            answer = await self.sqs.receive_message(
                QueueUrl=self.dlq, MaxNumberOfMessages=10, VisibilityTimeout=20, MessageAttributeNames=["All"]
            )
            if not (messages := answer.get("Messages", [])):
                break
            found |= {m["MessageId"]: m for m in messages}
        for ten in _tens(list(found.values())):
            entries = [
                {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": 0} for n, m in enumerate(ten)
            ]
            await self.sqs.change_message_visibility_batch(QueueUrl=self.dlq, Entries=entries)
        return list(found.values())

    async def redrive(self) -> int:
        """Back with what SQS moved because its receivers died, as an operator would; returns how many."""
        moved = [m for m in await self.refused() if m["Body"] not in self.sent.malformed]
        for message in moved:
            await self.sqs.send_message(QueueUrl=self.queue, MessageBody=message["Body"])
            await self.sqs.delete_message(QueueUrl=self.dlq, ReceiptHandle=message["ReceiptHandle"])
        return len(moved)


def policy(model: str) -> dict[str, Any]:
    """Everything asks for a retraining, and hardly anything objects. No columns, so that no Evidently is loaded."""
    triggers: dict[str, Any] = {}
    if model.startswith("fed"):
        triggers["volume"] = {"rows": 1}
    if model in TIMED:
        triggers["schedules"] = [{"name": "minutely", "cron": "* * * * *"}]
    if model in WARNED:
        triggers["alarms"] = [ALARM]
    return {
        "model": model,
        "data": {"prefix": f"data/{model}/", "timestamp": "timestamp"},
        "windows": {"training_batches": 20, "current": {"batches": 2}},
        "triggers": triggers,
        "guards": {"cooldown": "1s", "rows_min": 1, "backoff": None},
        "action": {"attempts": 5, "candidates": [{"name": "one", "instance_type": "ml.m5.large"}]},
        "gate": {"metric": "m"},
    }


def max_receive_count() -> int:
    """As the template has it."""
    found = re.search(r"maxReceiveCount: (\d+)", TEMPLATE.read_text())
    assert found
    return int(found[1])


def envelope(request: str, now: datetime, model: str, *, account: str = ACCOUNT) -> str:
    """A request to retrain, as EventBridge delivers it."""
    detail = {"model": model, "why": f"chaos {request}", "by": "chaos"}
    return _event(request, now, "retrainer.custom", "Retraining Requested", detail, account=account)


def alarm(number: int, now: datetime, state: str, moment: str) -> str:
    """A CloudWatch alarm's change of state."""
    detail = {"alarmName": ALARM, "state": {"value": state, "timestamp": moment}}
    return _event(f"alarm-{number}", now, "aws.cloudwatch", "CloudWatch Alarm State Change", detail)


def _event(name: str, now: datetime, source: str, kind: str, detail: object, *, account: str = ACCOUNT) -> str:
    whole = {
        "version": "0",
        "id": name,
        "detail-type": kind,
        "source": source,
        "account": account,
        "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "region": REGION,
        "resources": [],
        "detail": detail,
    }
    return json.dumps(whole)


def _arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


def _tens(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[i : i + 10] for i in range(0, len(items), 10))


def _rows() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"timestamp": [1, 2, 3]}), sink)
    return sink.getvalue()


def _ends_with(digits: str) -> dict[str, Any]:
    """A choice by the manifest's hash, which no two executions share."""
    return {"Or": [{"Variable": "$.manifest.sha256", "StringMatches": f"*{digit}"} for digit in digits]}


def _refuses(outcome: str) -> dict[str, Any]:
    return {
        "Type": "Pass",
        "Result": {"outcome": outcome, "reason": "by lot", "metric": "m", "challenger": 0.5},
        "End": True,
    }


_ROWS = _rows()
DEFINITION: dict[str, Any] = {
    "StartAt": "Train",
    "States": {
        "Train": {"Type": "Wait", "Seconds": EXECUTION_SECONDS, "Next": "Lot"},
        "Lot": {
            "Type": "Choice",
            "Choices": [
                {**_ends_with("0123456789abcd"), "Next": "Failed"},
                {**_ends_with("e"), "Next": "Refused"},
            ],
            "Default": "Superseded",
        },
        "Failed": {"Type": "Fail", "Error": "Chaos", "Cause": "by lot"},
        "Refused": _refuses("refused"),
        "Superseded": _refuses("superseded"),
    },
}
"""Ends as the real one can, after a second. Mostly it fails, which leaves the rows to the next. It promotes nothing:
what follows on a promotion has a report made, and that loads Evidently."""
