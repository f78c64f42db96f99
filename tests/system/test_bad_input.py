"""What cannot be used is refused with its place and reason, and counted; and the loop goes on."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.system import data
from tests.system.house import House, policy
from tests.system.until import until

pytestmark = pytest.mark.system

MESSAGE_MAX_BYTES = 1_048_576
_VOLUME = {"volume": {"rows": 1000}}
_NONSENSE = [{"name": "ease", "spot": False, "hyperparameters": {"model": "nonsense"}}]
POLICIES = [
    policy("batches", triggers=_VOLUME),
    policy("failing", triggers=_VOLUME, action={"attempts": 2, "candidates": _NONSENSE}),
    policy("next", triggers=_VOLUME),
    policy("edited"),
]


def test_batches_that_cannot_be_read_are_named_and_the_next_good_one_leads_on(house: House) -> None:
    whole, without = data.batch(0), data.interactions(0)
    del without["item_id"]
    house.put("data/batches/truncated.parquet", whole[: len(whole) // 2])
    house.put("data/batches/narrow.parquet", data.parquet(without))
    house.put("data/batches/empty.parquet", b"")

    def said() -> str:
        return "; ".join(d["detail"] for d in house.decisions("batches", "data_unusable"))

    where = f"s3://{house.bucket}/data/batches"
    for expected in (
        f"{where}/truncated.parquet: it cannot be read as parquet",
        f"{where}/narrow.parquet: it has no column 'item_id'",
        f"{where}/empty.parquet: it is empty, 0 bytes",
    ):
        until(lambda expected=expected: expected in said(), told=lambda: house.story("batches"))  # type: ignore[misc]
    counted = house.metric("retrainer_decisions_total", model="batches", reason="data_unusable")
    assert counted == len(house.decisions("batches", "data_unusable"))
    assert house.status("batches")["window"]["batches"] == 0

    house.put("data/batches/good.parquet", whole)
    house.decided("batches", "promoted", seconds=120)


def envelope(house: House, **changes: Any) -> dict[str, Any]:
    """What EventBridge sends for an object of the model `batches`."""
    return {
        "version": "0",
        "id": "1",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "000000000000",
        "time": "2026-01-31T02:00:00Z",
        "region": "us-east-1",
        "resources": [],
        "detail": {
            "bucket": {"name": house.bucket},
            "object": {"key": "data/batches/1.parquet", "size": 1, "etag": "e"},
        },
        **changes,
    }


def test_an_event_of_a_foreign_account_is_put_aside_with_its_reason(house: House) -> None:
    why = "account '999999999999' is not allowed"
    refused(house, json.dumps(envelope(house, account="999999999999")), "object_created", "foreign", why)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('{"version": "0", ', "this is not JSON"),
        ('{"hello": "world"}', "this is neither an EventBridge envelope nor an S3 notification"),
        ("[" * 100_000, "the JSON is nested too deeply"),
        ('{"detail":' * 50_000 + "1" + "}" * 50_000, "the JSON is nested too deeply"),
    ],
    ids=["broken", "stranger", "deep-list", "deep-object"],
)
def test_a_malformed_message_is_put_aside_with_its_reason(house: House, body: str, why: str) -> None:
    refused(house, body, "unknown", "malformed", why)


def test_a_refused_message_is_listed_sent_again_refused_again_and_dropped(house: House) -> None:
    body = '{"from an operator": '

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(house.run("dlq", "list", "--json", "--reason", "this is not JSON"))
        return [m for m in found if m["bytes"] == len(body)]

    house.send(body)
    (first,) = until(listed)
    assert "this is not JSON" in house.run("dlq", "list")
    assert body in house.run("dlq", "show", first["id"][:8])
    assert "1 message sent to the events queue again" in house.run("dlq", "replay", first["id"])
    (second,) = until(listed)
    assert second["id"] != first["id"]
    assert "no message on the dead-letter queue" in house.run("dlq", "show", first["id"], status=1)
    assert "add --yes" in house.run("dlq", "drop", second["id"], status=2)
    assert "1 message dropped" in house.run("dlq", "drop", second["id"], "--yes")
    house.run("dlq", "drop", "--all", "--yes")
    assert house.run("dlq", "list") == "0 messages\n"


def test_the_largest_message_there_is_leaves_no_room_for_its_reason_but_the_quarantine_has_it(house: House) -> None:
    body = "x" * MESSAGE_MAX_BYTES
    sent = house.send(body)
    until(lambda: any(m["Body"] == body for m in house.refused()))
    assert "this is not JSON" in until(lambda: quarantined(house, sent))


def test_a_message_of_two_mebibytes_is_refused_by_the_queue_itself(house: House) -> None:
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        house.send("x" * 2 * MESSAGE_MAX_BYTES)


def test_an_unknown_event_is_acknowledged_and_counted(house: House) -> None:
    before = house.metric("retrainer_messages_total", kind="unknown", verdict="ignored")
    put_aside = house.metric("retrainer_ledger_rows", table="quarantine")
    strange = {"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification"}
    house.send(envelope(house, **strange))
    until(lambda: house.metric("retrainer_messages_total", kind="unknown", verdict="ignored") == before + 1)
    until(lambda: house.queue_count("") == house.queue_count("NotVisible") == 0)
    assert house.metric("retrainer_ledger_rows", table="quarantine") == put_aside


def test_a_policy_with_a_typo_leaves_the_last_good_one_in_force_and_says_where(house: House) -> None:
    path = house.policies / "edited.yaml"
    good = path.read_text()
    in_force = house.status("edited")["policy_hash"]
    path.write_text(good.replace('"cooldown"', '"cooldwon"'))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "cooldwon" in text)

    errors = until(lambda: house.get("/statusz")["policy_errors"])
    assert errors[0].startswith(f"{path}:{line}:5: ")
    assert "cooldown" in errors[0]
    assert house.metric("retrainer_policy_valid", file="edited.yaml") == 0
    assert house.status("edited")["policy_hash"] == in_force
    assert "edited.yaml" in house.run("status")
    assert "too_few_rows" in house.run("trigger", "edited", "--why", "it is still watched")

    path.write_text(good)
    until(lambda: not house.get("/statusz")["policy_errors"])
    assert house.metric("retrainer_policy_valid", file="edited.yaml") == 1


def test_a_state_machine_that_fails_is_tried_as_often_as_declared_and_the_loop_goes_on(house: House) -> None:
    house.put("data/failing/0.parquet", data.batch(0))
    first = house.ended("failing", seconds=120)
    second = house.ended("failing", times=2)
    for ended in (first, second):
        assert "FAILED: TrainingError: No candidate was trained. ease: AlgorithmError" in ended["detail"]
        assert "hyperparameter 'model' is 'nonsense'; give one of sasrec, ease" in ended["detail"]
    assert second["reason"] == "execution_failed"
    assert "given up after 2: volume" in second["detail"]
    assert house.status("failing")["execution"] is None
    assert house.generations("failing") == ["g1", "g2"]
    assert house.metric("retrainer_executions_total", model="failing", status="FAILED") == 2
    assert "nonsense" in house.run("explain", second["decision"])

    house.put("data/next/0.parquet", data.batch(0))
    house.decided("next", "promoted", seconds=120)


def refused(house: House, body: str, kind: str, verdict: str, why: str) -> None:
    """Send it, and see it on the dead-letter queue with its reason, in the quarantine and in the metrics."""
    before = house.metric("retrainer_messages_total", kind=kind, verdict=verdict)
    sent = house.send(body)
    message = until(lambda: next((m for m in house.refused() if attribute(m, "message_id") == sent), None))
    assert message["Body"] == body
    assert why in attribute(message, "reason")
    assert attribute(message, "original_queue") == house.queue
    assert why in until(lambda: quarantined(house, sent))
    assert house.metric("retrainer_messages_total", kind=kind, verdict=verdict) == before + 1


def attribute(message: dict[str, Any], name: str) -> str:
    return str(message.get("MessageAttributes", {}).get(name, {}).get("StringValue", ""))


def quarantined(house: House, message_id: str) -> str:
    """Why the ledger put a message aside; empty when it did not."""
    with closing(sqlite3.connect(f"file:{house.folder}/ledger.db?mode=ro", uri=True)) as ledger:
        found = ledger.execute("select why from quarantine where message_id = ?", (message_id,)).fetchone()
    return str(found[0]) if found else ""
