"""`retrainer dlq`, as an operator types it, on the dead-letter queue of an embedded AWS."""

import io
import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import boto3
import pytest

from retrainer.adapters.dead_letters import DeadLetters, Letter
from retrainer.cli import main
from retrainer.cli.dead_letters import _named
from retrainer.client import FailedError
from tests.adapters.emulator import free_port, running, use

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

pytestmark = pytest.mark.system

Out = pytest.CaptureFixture[str]
TOKEN = "AAAAKgAAAAIAAAAA" + "x9/+" * 60
FOREIGN = {"reason": "account '999999999999' is not allowed"}
BROKEN = {"reason": "this is not JSON: Expecting value"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator["SQSClient"]:
    with pytest.MonkeyPatch.context() as patch, running(tmp_path_factory.mktemp("aws")) as url:
        use(patch, url)
        made = boto3.client("sqs")
        yield made
        made.close()


@dataclass(frozen=True)
class World:
    client: "SQSClient"
    queue: str
    dlq: str

    def refused(self, body: str, **attributes: str) -> str:
        """A message on the dead-letter queue; its id."""
        given = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        return self.client.send_message(QueueUrl=self.dlq, MessageBody=body, MessageAttributes=given)["MessageId"]  # type: ignore[arg-type]

    def bodies(self, queue: str) -> list[str]:
        """What can be received from a queue now; looking leaves it there."""
        answer = self.client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return sorted(m["Body"] for m in answer.get("Messages", []))


@pytest.fixture
def world(client: "SQSClient", monkeypatch: pytest.MonkeyPatch) -> World:
    name = uuid4().hex
    made = [client.create_queue(QueueName=f"{kind}-{name}")["QueueUrl"] for kind in ("events", "refused")]
    monkeypatch.setenv("RETRAINER_QUEUE_URL", made[0])
    monkeypatch.setenv("RETRAINER_DLQ_URL", made[1])
    monkeypatch.setenv("COLUMNS", "200")
    return World(client, *made)


def told(out: Out, *command: str) -> Any:
    """What the command says for machines."""
    assert main(["dlq", *command, "--json"]) == 0
    return json.loads(out.readouterr().out)


# --- list and show ---


def test_an_empty_queue_is_no_table(world: World, capsys: Out) -> None:
    assert main(["dlq", "list"]) == 0
    assert capsys.readouterr().out == "0 messages\n"


def test_each_message_is_listed_with_its_kind_and_reason_and_given_back(world: World, capsys: Out) -> None:
    envelope = {"version": "0", "source": "aws.s3", "detail-type": "Object Created", "account": "9", "detail": {}}
    known = world.refused(json.dumps(envelope), **FOREIGN)
    world.refused("{", **BROKEN)
    assert main(["dlq", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if known[:8] in line]
    assert "object_created" in line
    assert "account '999999999999' is not allowed" in line
    assert lines[-1] == "2 messages"
    assert len(world.bodies(world.dlq)) == 2
    assert [m["reason"] for m in told(capsys, "list", "--reason", "not JSON")] == [BROKEN["reason"]]


def test_more_than_ten_are_listed_each_once_and_the_limit_says_that_there_may_be_more(
    world: World, capsys: Out
) -> None:
    sent = {world.refused(str(n)) for n in range(23)}
    listed = [m["id"] for m in told(capsys, "list")]
    assert len(listed) == 23
    assert set(listed) == sent
    assert main(["dlq", "list", "--limit", "12"]) == 0
    assert capsys.readouterr().out.endswith("12 messages; more may be there, see --limit\n")


def test_what_says_no_reason_of_ours_says_who_put_it_there(world: World, capsys: Out) -> None:
    def arn(queue: str) -> str:
        answer = world.client.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]

    policy = json.dumps({"deadLetterTargetArn": arn(world.dlq), "maxReceiveCount": 1})
    world.client.set_queue_attributes(QueueUrl=world.queue, Attributes={"RedrivePolicy": policy})
    world.client.send_message(QueueUrl=world.queue, MessageBody="poison")
    while world.bodies(world.queue):
        pass
    world.refused("undelivered", ERROR_CODE="NO_PERMISSIONS", ERROR_MESSAGE="no permission")
    world.refused("mute")
    reasons = {m["bytes"]: m["reason"] for m in told(capsys, "list")}
    assert reasons[len("poison")].startswith("moved by SQS after too many receives")
    assert reasons[len("undelivered")] == "EventBridge could not deliver it: NO_PERMISSIONS: no permission"
    assert "the ledger's quarantine has it" in reasons[len("mute")]


def test_a_message_is_shown_whole_but_for_its_secrets(world: World, capsys: Out) -> None:
    body = {"detail": {"taskToken": "tok-1", "said": "ä\x1b[2J\ud800", "rows": 3}}
    sent = world.refused(json.dumps(body), reason=f"odd {TOKEN}", message_id="1-2-3")
    assert main(["dlq", "show", sent[:8]]) == 0
    shown = capsys.readouterr().out
    assert '"taskToken": "***"' in shown
    assert '"rows": 3' in shown
    assert "attribute   message_id = 1-2-3" in shown
    assert "reason      odd ***" in shown
    assert [secret for secret in ("tok-1", TOKEN, "\x1b") if secret in shown] == []
    assert told(capsys, "show", sent)["body"]["detail"]["rows"] == 3


@pytest.mark.parametrize("body", ["[" * 100_000, '{"taskToken": "tok-1', "1" * 5000, "two\nlines"])
def test_what_is_no_readable_json_is_shown_as_it_is(world: World, capsys: Out, body: str) -> None:
    sent = world.refused(body)
    assert main(["dlq", "show", sent]) == 0
    assert capsys.readouterr().out.endswith(f"\n\n{body.replace('tok-1', '***')}\n")


# --- replay and drop ---


def test_a_replayed_message_is_on_the_events_queue_alone_wherever_it_says_it_came_from(
    world: World, client: "SQSClient", capsys: Out
) -> None:
    elsewhere = client.create_queue(QueueName=f"elsewhere-{uuid4().hex}")["QueueUrl"]
    sent = world.refused("mended", original_queue=elsewhere, **FOREIGN)
    world.refused("other", **BROKEN)
    assert main(["dlq", "replay", sent[:6]]) == 0
    assert capsys.readouterr().out.endswith("1 message sent to the events queue again\n")
    assert (world.bodies(world.queue), world.bodies(world.dlq)) == (["mended"], ["other"])
    assert world.bodies(elsewhere) == []


def test_all_of_one_reason_are_replayed_and_the_others_stay(world: World, capsys: Out) -> None:
    for n in range(3):
        world.refused(f"mended {n}", **FOREIGN)
    world.refused("broken", **BROKEN)
    assert len(told(capsys, "replay", "--all", "--reason", "is not allowed")) == 3
    assert world.bodies(world.queue) == ["mended 0", "mended 1", "mended 2"]
    assert world.bodies(world.dlq) == ["broken"]


def test_what_cannot_be_sent_again_stays_and_the_error_says_why(
    world: World, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.refused("mended")
    monkeypatch.setenv("RETRAINER_QUEUE_URL", world.queue + "-typo")
    assert main(["dlq", "replay", "--all"]) == 2
    said = capsys.readouterr()
    assert "0 messages sent to the events queue again" in said.out
    assert "-typo does not exist; check its URL" in said.err
    assert world.bodies(world.dlq) == ["mended"]


def test_dropping_says_what_and_asks_for_a_yes_first(
    world: World, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [world.refused(body, **BROKEN) for body in ("a", "b", "c")]
    assert main(["dlq", "drop", "--all"]) == 2
    assert "add --yes to drop them unasked" in capsys.readouterr().err
    monkeypatch.setattr("retrainer.cli.dead_letters.is_attended", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["dlq", "drop", "--all"]) == 1
    assert "drop 3 messages for good? [y/N]" in capsys.readouterr().err
    assert world.bodies(world.dlq) == ["a", "b", "c"]
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert main(["dlq", "drop", sent[0], sent[1]]) == 0
    out = capsys.readouterr().out
    assert f"{sent[0]}  " in out
    assert BROKEN["reason"] in out
    assert world.bodies(world.dlq) == ["c"]
    assert main(["dlq", "drop", "--all", "--yes"]) == 0
    assert world.bodies(world.dlq) == []


def test_one_unknown_id_and_nothing_is_done(world: World, capsys: Out) -> None:
    sent = world.refused("stays")
    assert main(["dlq", "replay", sent, "ffff-none"]) == 1
    said = "no message on the dead-letter queue has an id that begins with 'ffff-none': it may be gone"
    assert said in capsys.readouterr().err
    assert (world.bodies(world.dlq), world.bodies(world.queue)) == (["stays"], [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["replay"], "say which messages"),
        (["replay", "1f0c2a77", "--all"], "and not both"),
        (["drop", "1f0c2a77", "--reason", "x"], "--reason goes with --all"),
    ],
)
def test_which_messages_are_meant_must_be_said(wrong: Sequence[str], said: str, capsys: Out) -> None:
    assert main(["dlq", *wrong]) == 2
    assert said in capsys.readouterr().err


def test_a_short_or_ambiguous_id_names_nothing() -> None:
    letters = [letter(id="1f0c2a77-1"), letter(id="1f0c2a77-2"), letter(id="83be0000-1")]
    assert _named(["83be", "83be0000-1"], letters, is_whole=True) == letters[2:]
    with pytest.raises(FailedError, match=r"several messages: 1f0c2a77-1, 1f0c2a77-2"):
        _named(["83be", "1f0c"], letters, is_whole=True)
    with pytest.raises(FailedError, match="'83b' is too short for an id"):
        _named(["83b"], letters, is_whole=True)
    with pytest.raises(FailedError, match="not all were seen"):
        _named(["9999"], letters, is_whole=False)


def letter(id: str) -> Letter:  # noqa: A002
    return Letter(
        id=id, body="{}", sent_at=datetime(2026, 1, 2, tzinfo=UTC), received=1, attributes={}, moved_from=None
    )


# --- what goes wrong ---


def test_a_queue_that_is_not_there_or_not_set_is_to_be_mended(
    world: World, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAINER_DLQ_URL", world.dlq + "-typo")
    assert main(["dlq", "list"]) == 2
    assert "-typo does not exist; check its URL" in capsys.readouterr().err
    monkeypatch.delenv("RETRAINER_DLQ_URL")
    assert main(["dlq", "list"]) == 2
    assert "RETRAINER_DLQ_URL is not set; set it as in " in capsys.readouterr().err


def test_an_aws_that_is_away_is_a_failure_and_no_traceback(
    world: World, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["dlq", "list"]) == 1
    assert f"retrainer: sqs:ReceiveMessage on {world.dlq}: " in capsys.readouterr().err


class Interrupted:
    """An SQS whose second answer comes after somebody has typed Ctrl-C."""

    def __init__(self) -> None:
        self.asked = 0
        self.shown: list[str] = []

    def receive_message(self, **asked: object) -> dict[str, object]:
        self.asked += 1
        if self.asked == 2:
            signal.raise_signal(signal.SIGINT)
        attributes = {"SentTimestamp": "0", "ApproximateReceiveCount": "1"}
        name = f"m{self.asked}"
        return {"Messages": [{"MessageId": name, "Body": "", "ReceiptHandle": f"r-{name}", "Attributes": attributes}]}

    def change_message_visibility_batch(self, *, Entries: Sequence[dict[str, Any]], **asked: object) -> None:
        self.shown += [entry["ReceiptHandle"] for entry in Entries if entry["VisibilityTimeout"] == 0]

    def close(self) -> None:
        pass


@pytest.fixture
def heeded() -> Iterator[None]:
    """Whoever runs the tests in the background has them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_after_ctrl_c_in_mid_poll_everything_is_given_back_with_what_the_poll_still_brought() -> None:
    sqs = Interrupted()
    with pytest.raises(KeyboardInterrupt), closing(DeadLetters(cast("SQSClient", sqs), "dlq", "queue")) as letters:
        list(letters.look(1000))
    assert sorted(sqs.shown) == [f"r-m{n}" for n in range(1, sqs.asked + 1)]
    assert sqs.asked >= 2
