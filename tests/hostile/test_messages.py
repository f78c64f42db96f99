"""Whatever is on the queue gets a verdict and a reason, and what is believed of it can be decided upon and kept."""

import base64
import gzip
import json
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrainer.adapters.eventbridge import KINDS, RECORDS_MAX
from retrainer.core.decide import decide
from retrainer.core.events import AlarmChanged, Event, ObjectCreated, ScheduleFired
from retrainer.core.record import dump
from retrainer.core.state import ModelState
from retrainer.ports import Parsed, Verdict
from tests.core.transcript import check, policy_with
from tests.hostile.budget import examples
from tests.hostile.envelopes import ALLOWED, JSON, PARSER, SAMPLES, changed, every_single_change, torn

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
POLICY = policy_with(
    'data.bucket = "artifacts"',
    'data.prefix = "data/recommender/"',
    'triggers.alarms = ["RecommenderClickRate"]',
    "guards.rows_min = 1",
)
REFUSED = (Verdict.IGNORED, Verdict.MALFORMED, Verdict.FOREIGN)


def judged(body: str) -> Parsed:
    """What was made of the text, after everything that must hold of it was looked at."""
    parsed = PARSER.parse(body)
    assert parsed.kind in KINDS
    assert bool(parsed.events) == (parsed.verdict is Verdict.EVENT)
    assert bool(parsed.why) == (parsed.verdict in REFUSED)
    assert parsed.why.isprintable()
    assert len(parsed.why) < 300
    assert len(parsed.events) <= RECORDS_MAX
    for model, event in parsed.events:
        believed(model, event)
    return parsed


def believed(model: str | None, event: Event) -> None:
    """The event is of the form that everything after the parser relies on."""
    text = dump(event)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text + event.identity)
    assert len(text) < 8192
    event.identity.encode()
    assert (model is None) == isinstance(event, ObjectCreated | AlarmChanged)
    if isinstance(event, ObjectCreated):
        assert event.bucket in ALLOWED.buckets
        assert ".." not in event.key.split("/")
        assert len(event.key.encode()) <= 1024
        assert event.identity.rpartition("@")[2] == event.version
    if isinstance(event, ScheduleFired):
        assert event.fire_at.tzinfo is UTC
    state = ModelState(model="m")
    check(POLICY, state, event, NOW, decide(POLICY, state, event, NOW))


def test_every_envelope_with_any_one_thing_in_it_changed_gets_a_verdict() -> None:
    verdicts = set()
    for said, body in every_single_change():
        try:
            verdicts.add(judged(body).verdict)
        except BaseException as error:
            raise AssertionError(f"{said}: {body[:2000]}") from error
    assert verdicts == set(Verdict)


@examples(300)
@given(changed())
def test_an_envelope_with_several_things_changed_gets_a_verdict(body: str) -> None:
    judged(body)


@examples(200)
@given(st.one_of(torn(), st.text(st.characters(codec=None)), JSON.map(json.dumps)))
def test_any_text_gets_a_verdict(body: str) -> None:
    judged(body)


@examples(100)
@given(changed())
def test_an_sns_topic_between_changes_no_verdict(body: str) -> None:
    direct, wrapped = judged(body), judged(json.dumps({"Type": "Notification", "Message": body}))
    # Escaped once more, what could not be encoded can: its reason may tell another size, never another verdict.
    assert (wrapped.verdict, wrapped.events) == (direct.verdict, direct.events)


# --- odd, but SQS delivers it ---

_OBJECT = SAMPLES["object_created"]


@pytest.mark.parametrize(
    ("body", "verdict", "why"),
    [
        (" ", Verdict.MALFORMED, "this is not JSON"),
        (" " * 1_048_576, Verdict.MALFORMED, "this is not JSON"),
        ("hello", Verdict.MALFORMED, "this is not JSON"),
        ('"hello"', Verdict.MALFORMED, "the message must be a JSON object"),
        ("null", Verdict.MALFORMED, "the message must be a JSON object"),
        ("<Message/>", Verdict.MALFORMED, "this is not JSON"),
        ("Records=%5B%5D", Verdict.MALFORMED, "this is not JSON"),
        (base64.b64encode(_OBJECT.encode()).decode(), Verdict.MALFORMED, "this is not JSON"),
        (base64.b64encode(gzip.compress(_OBJECT.encode(), mtime=0)).decode(), Verdict.MALFORMED, "this is not JSON"),
        (json.dumps(_OBJECT), Verdict.MALFORMED, "the message must be a JSON object"),
        (f"[{_OBJECT}]", Verdict.MALFORMED, "the message must be a JSON object"),
        (f"{_OBJECT}\n{_OBJECT}", Verdict.MALFORMED, "this is not JSON: 'Extra data"),
        ("\ufeff" + _OBJECT, Verdict.MALFORMED, "this is not JSON: 'Unexpected UTF-8 BOM"),
        (f"\n\t {_OBJECT} \r\n", Verdict.EVENT, ""),
        ('{"Type":"Notification","Message":"hello"}', Verdict.MALFORMED, "this is not JSON"),
        ('{"Type":"Notification"}', Verdict.MALFORMED, "this is neither an EventBridge envelope nor"),
        (
            '{"Type":"SubscriptionConfirmation","SubscribeURL":"https://evil.example/"}',
            Verdict.MALFORMED,
            "Type asks to confirm an SNS subscription; do that by hand if it is yours",
        ),
        ('{"Records":[{"EventSource":"aws:sns"}]}', Verdict.MALFORMED, "Records[0].eventSource is missing"),
        ('{"Records":[{"eventSource":"aws:kinesis"}]}', Verdict.IGNORED, "no record tells of an object created"),
        ('{"Service":"Amazon S3","Event":"s3:TestEvent"}', Verdict.IGNORED, "S3 tried whether it can write"),
    ],
)
def test_what_a_foreign_client_may_send_is_told_what_is_wrong_with_it(body: str, verdict: Verdict, why: str) -> None:
    parsed = judged(body)
    assert (parsed.verdict, parsed.why[: len(why)]) == (verdict, why)


def notification(count: int) -> str:
    """So many records that each tell of an object, in one message."""
    record = json.loads(SAMPLES["s3_notification"])["Records"][0]
    return json.dumps({"Records": [record] * count}, separators=(",", ":"))


def test_one_message_tells_of_a_thousand_objects_at_the_most() -> None:
    small = '{"Records":[' + ",".join(['{"eventSource":"x"}'] * 50_000) + "]}"
    assert judged(small).why == "Records has 50000 entries, and at most 1000 are taken"
    assert PARSER.parse(notification(RECORDS_MAX + 1)).verdict is Verdict.MALFORMED
    assert len(PARSER.parse(notification(RECORDS_MAX)).events) == RECORDS_MAX
