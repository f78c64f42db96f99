"""The parser: AWS's documented shapes become events, and nothing a stranger writes becomes anything else."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from retrainer.adapters.eventbridge import SIZE_MAX_BYTES, Allowed, EnvelopeParser
from retrainer.core.events import (
    AlarmChanged,
    ApprovalRequested,
    Event,
    ObjectCreated,
    RetrainingRequested,
    ScheduleFired,
    TrainingJobChanged,
)
from retrainer.ports import Parsed, Verdict

SAMPLES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "events").glob("*.json"))}
ALLOWED = Allowed(
    accounts=frozenset({"111122223333"}),
    buckets=frozenset({"artifacts"}),
    state_machines=frozenset({"arn:aws:states:eu-central-1:111122223333:stateMachine:retraining"}),
    regions=frozenset({"eu-central-1"}),
)
PARSER = EnvelopeParser(ALLOWED)


def parse(value: object) -> Parsed:
    return PARSER.parse(value if isinstance(value, str) else json.dumps(value))


def sample(name: str, *path: str | int, to: object) -> dict[str, Any]:
    """The sample with the value at a path replaced; with `...` it is taken away."""
    value: dict[str, Any] = json.loads(SAMPLES[name])
    at: Any = value
    for part in path[:-1]:
        at = at[part]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return value


def at(hour: int, minute: int, second: int = 0, microsecond: int = 0) -> datetime:
    return datetime(2026, 1, 31, hour, minute, second, microsecond, tzinfo=UTC)


# --- what AWS sends ---


@pytest.mark.parametrize(
    ("name", "model", "event"),
    [
        (
            "object_created",
            None,
            ObjectCreated(
                bucket="artifacts",
                key="data/recommender/2026 q1+rest.parquet",
                version="617f08299329d189",
                size_bytes=40960,
            ),
        ),
        (
            "training_job",
            "recommender",
            TrainingJobChanged(
                job="recommender-g3-0a1b2c3d-sasrec-0", status="InProgress", secondary_status="Interrupted"
            ),
        ),
        (
            "alarm",
            None,
            AlarmChanged(alarm="RecommenderClickRate", state="ALARM", changed_at=at(2, 0, 0, 697_000)),
        ),
        (
            "approval_requested",
            "recommender",
            ApprovalRequested(
                execution="recommender-g3-0a1b2c3d",
                task_token="AQCEAAAAKgAAAAMAAAAAAAAAAeDtoken+/=",
                model_package_arn="arn:aws:sagemaker:eu-central-1:111122223333:model-package/recommender/3",
            ),
        ),
        (
            "retraining_requested",
            "recommender",
            RetrainingRequested(
                request="17793124-05d4-b198-2fde-7ededc63b103",
                by="catalogue-service",
                why="the catalogue was replaced",
            ),
        ),
        ("scheduled", "recommender-nightly", ScheduleFired(schedule="nightly", fire_at=at(1, 0))),
    ],
)
def test_an_envelope_of_aws_becomes_its_event(name: str, model: str | None, event: Event) -> None:
    parsed = parse(SAMPLES[name])
    assert parsed.events == ((model, event),)
    assert (parsed.verdict, parsed.kind) == (Verdict.EVENT, type(event).__name__)


def test_a_raw_notification_becomes_an_event_for_each_object_created_with_its_key_decoded() -> None:
    parsed = parse(SAMPLES["s3_notification"])
    assert parsed.verdict is Verdict.EVENT
    assert [e for _, e in parsed.events] == [
        ObjectCreated(
            bucket="artifacts",
            key="data/recommender/2026 q1+rest.parquet",
            version="617f08299329d189",
            size_bytes=40960,
        ),
        ObjectCreated(
            bucket="artifacts",
            key="data/recommender/für.parquet",
            version="096fKKXTRTtl3on89fVO.nfljtsv6qko",
            size_bytes=7,
        ),
    ]


def test_the_same_object_told_by_eventbridge_and_by_s3_itself_is_one_fact() -> None:
    ways = (parse(SAMPLES["object_created"]), parse(SAMPLES["s3_notification"]))
    assert len({parsed.events[0][1].identity for parsed in ways}) == 1


@pytest.mark.parametrize(
    ("gone", "version"),
    [
        ((), "617f08299329d189"),
        (("sequencer",), "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"),
        (("sequencer", "version-id"), "b1946ac92492d2347c6235b4d2611184"),
    ],
)
def test_an_object_is_named_by_the_best_version_that_s3_tells(gone: tuple[str, ...], version: str) -> None:
    value = json.loads(SAMPLES["object_created"])
    for name in gone:
        del value["detail"]["object"][name]
    event = parse(value).events[0][1]
    assert isinstance(event, ObjectCreated)
    assert event.version == version


def test_an_execution_status_wakes_the_observer() -> None:
    assert parse(SAMPLES["execution_status"]) == Parsed(verdict=Verdict.WAKE, kind="ExecutionStatusChanged")


def test_an_sns_topic_between_changes_nothing() -> None:
    wrapped = {"Type": "Notification", "MessageId": "1", "Message": SAMPLES["object_created"]}
    assert parse(wrapped) == parse(SAMPLES["object_created"])
    twice = {"Type": "Notification", "Message": json.dumps(wrapped)}
    assert parse(twice).verdict is Verdict.MALFORMED


def test_a_request_without_a_name_is_by_the_account_that_sent_it() -> None:
    event = parse(sample("retraining_requested", "detail", "by", to=...)).events[0][1]
    assert isinstance(event, RetrainingRequested)
    assert event.by == "account 111122223333"


def test_no_text_of_a_parsed_approval_shows_its_token() -> None:
    assert "AQCEAAAAKg" not in repr(parse(SAMPLES["approval_requested"]))


# --- what is not ours ---


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (SAMPLES["s3_test"], "S3TestEvent"),
        (SAMPLES["endpoint_status"], "unknown"),
        (sample("object_created", "version", to="1"), "unknown"),
        (sample("object_created", "source", to="aws.s4"), "unknown"),
        (sample("training_job", "detail", "TrainingJobName", to="somebody-elses-2026-01-31"), "TrainingJobChanged"),
        (sample("scheduled", "resources", 0, to="arn:aws:scheduler:x:1:schedule/default/x"), "ScheduleFired"),
        (sample("execution_status", "detail", "stateMachineArn", to="arn:other"), "ExecutionStatusChanged"),
        ({"Records": []}, "unknown"),
        ({"Records": [{"eventSource": "aws:ses", "eventName": "x"}]}, "unknown"),
        ({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete"}]}, "unknown"),
    ],
)
def test_what_is_well_formed_but_none_of_ours_is_ignored(message: object, kind: str) -> None:
    parsed = parse(message)
    assert (parsed.verdict, parsed.kind) == (Verdict.IGNORED, kind)
    assert parsed.why


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (sample("object_created", "account", to="999999999999"), "account '999999999999' is not allowed"),
        (sample("object_created", "region", to="us-east-1"), "region 'us-east-1' is not allowed"),
        (
            sample("object_created", "detail", "bucket", "name", to="theirs"),
            "detail.bucket.name 'theirs' is not allowed",
        ),
        (
            sample("s3_notification", "Records", 2, "s3", "bucket", "name", to="theirs"),
            "Records[2].s3.bucket.name 'theirs' is not allowed",
        ),
        (
            sample(
                "approval_requested",
                "resources",
                0,
                to="arn:aws:states:eu-central-1:111122223333:execution:other:recommender-g3-0a1b2c3d",
            ),
            "state machine 'arn:aws:states:eu-central-1:111122223333:stateMachine:other' is not allowed",
        ),
    ],
)
def test_what_comes_from_a_stranger_is_foreign_and_says_who(message: object, why: str) -> None:
    parsed = parse(message)
    assert (parsed.verdict, parsed.why, parsed.events) == (Verdict.FOREIGN, why, ())


def test_without_lists_any_state_machine_and_region_of_an_allowed_account_will_do() -> None:
    parser = EnvelopeParser(Allowed(accounts=ALLOWED.accounts, buckets=ALLOWED.buckets))
    message = sample("execution_status", "detail", "stateMachineArn", to="arn:other")
    assert parser.parse(json.dumps({**message, "region": "us-east-1"})).verdict is Verdict.WAKE


# --- what is wrong ---


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("", "this is not JSON: 'Expecting value: line 1 column 1 (char 0)'"),
        ("{", "this is not JSON"),
        ("[]", "the message must be a JSON object"),
        ("17", "the message must be a JSON object"),
        ("{}", "this is neither an EventBridge envelope nor an S3 notification"),
        ('{"a": NaN}', "this is not JSON: 'NaN is not a JSON number'"),
        ('{"a": 1, "a": 2}', "this is not JSON: 'an object has the same key twice'"),
        ('{"a": ' + "9" * 5000 + "}", "this is not JSON"),
        ("[" * 100_000, "the JSON is nested too deeply"),
        ('{"a":' * 100_000, "the JSON is nested too deeply"),
        ("x" * (2 * SIZE_MAX_BYTES), "the message has 2097152 bytes or more, and at most 1048576 are taken"),
        ("ü" * SIZE_MAX_BYTES, "the message has 2097152 bytes or more, and at most 1048576 are taken"),
        (sample("object_created", "source", to=...), "source is missing"),
        (sample("object_created", "account", to=111122223333), "account must be a text"),
        (sample("object_created", "time", to="31/01/2026"), "time must be a time as in 2026-01-31T02:00:00Z"),
        (sample("object_created", "time", to="2026-02-31T02:00:00Z"), "time is no time that there is"),
        (sample("object_created", "time", to="0001-01-01T00:00:00+23:59"), "time is no time that there is"),
        (sample("object_created", "time", to="2026-01-31T02:00:00"), "time must be a time as in"),
        (sample("object_created", "detail", to="{}"), "detail must be a JSON object"),
        (sample("object_created", "detail", "object", "key", to=...), "detail.object.key is missing"),
        (sample("object_created", "detail", "object", "key", to=""), "detail.object.key must have 1 to"),
        (
            sample("object_created", "detail", "object", "key", to="a/../b"),
            "detail.object.key has a segment of two dots",
        ),
        (sample("object_created", "detail", "object", "key", to=".."), "detail.object.key has a segment of two dots"),
        (sample("object_created", "detail", "object", "key", to="a\nb"), "detail.object.key has a control character"),
        (sample("object_created", "detail", "object", "key", to="a\ud800"), "detail.object.key has a control"),
        (sample("object_created", "detail", "object", "key", to="ü" * 513), "detail.object.key is longer than 1024"),
        (sample("object_created", "detail", "object", "size", to="5"), "detail.object.size must be a whole number"),
        (sample("object_created", "detail", "object", "size", to=True), "detail.object.size must be a whole number"),
        (sample("object_created", "detail", "object", "size", to=-1), "detail.object.size must be a whole number"),
        (sample("s3_notification", "Records", to={}), "Records must be a list"),
        (sample("s3_notification", "Records", 0, to=None), "Records[0] must be a JSON object"),
        (
            sample("s3_notification", "Records", 2, "s3", "object", "key", to="%ff"),
            "Records[2].s3.object.key is not UTF-8",
        ),
        (
            sample("s3_notification", "Records", 0, "s3", "object", "key", to="a/%2E%2E/b"),
            "Records[0].s3.object.key has",
        ),
        (
            sample("s3_notification", "Records", 0, "s3", "object", "key", to="a%00"),
            "Records[0].s3.object.key has a con",
        ),
        (sample("object_created", "detail", "object", "sequencer", to="1@2"), "detail.object.sequencer must match"),
        (
            sample("object_created", "detail", "object", "sequencer", to="a" * 10_240),
            "detail.object.sequencer must have",
        ),
        (sample("training_job", "detail", "SecondaryStatus", to=...), "detail.SecondaryStatus is missing"),
        (sample("training_job", "detail", "SecondaryStatus", to="A:B"), "detail.SecondaryStatus must match [A-Za-z]"),
        (sample("alarm", "detail", "state", "value", to="BROKEN"), "detail.state.value must be OK, ALARM or"),
        (sample("alarm", "detail", "state", "timestamp", to=1769824805), "detail.state.timestamp must be a text"),
        (
            sample("approval_requested", "detail", "model", to="other"),
            "detail.execution 'recommender-g3-0a1b2c3d' is not",
        ),
        (sample("approval_requested", "detail", "task_token", to=""), "detail.task_token must have 1 to"),
        (
            sample("approval_requested", "detail", "model_package_arn", to="https://x"),
            "detail.model_package_arn must match",
        ),
        (sample("approval_requested", "resources", to=[]), "resources must be a list of ARNs"),
        (sample("retraining_requested", "detail", "model", to="../x"), "detail.model must match"),
        (sample("retraining_requested", "detail", "why", to=...), "detail.why is missing"),
        ({"Type": "Notification", "Message": 5}, "Message must be a text"),
    ],
)
def test_what_is_malformed_is_told_with_the_field_that_is_wrong(message: object, why: str) -> None:
    parsed = parse(message)
    assert parsed.verdict is Verdict.MALFORMED
    assert parsed.why.startswith(why)
    assert len(parsed.why) < 300
    assert parsed.events == ()


def test_one_bad_record_refuses_the_whole_notification() -> None:
    assert parse(sample("s3_notification", "Records", 2, "s3", "object", "size", to=None)).events == ()


def test_a_message_of_exactly_the_largest_size_is_read() -> None:
    room = SIZE_MAX_BYTES - len(SAMPLES["object_created"])
    assert parse(SAMPLES["object_created"] + " " * room).verdict is Verdict.EVENT
    assert parse(SAMPLES["object_created"] + " " * (room + 1)).verdict is Verdict.MALFORMED
