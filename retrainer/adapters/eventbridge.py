"""Messages become events: EventBridge envelopes and raw S3 notifications, hostile until parsed.

The registry is keyed by (version, source, detail-type); each entry is a small pure function over fields that are read
with their type, their length and their alphabet. What comes out holds no text that was not checked here.

A message is taken or refused as a whole. One that is not of a kind in the registry is IGNORED, whoever sent it.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn
from urllib.parse import unquote_plus

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

SIZE_MAX_BYTES: Final = 1_048_576
"""SQS and EventBridge take about 1 MiB (AWS, 2025); what is larger did not come through them."""
KEY_MAX_BYTES: Final = 1024
"""S3's own limit on an object key, in UTF-8."""
RECORDS_MAX: Final = 1000
"""Of a raw notification. S3 sends one record a message (AWS, 2025); each can become a decision for every model."""
SCHEDULE_GROUP: Final = "retrainer"
"""An EventBridge Scheduler schedule is ours when it is in this group and named <model>.<schedule>."""

UNKNOWN: Final = "unknown"
KINDS: Final = frozenset(
    {
        "ObjectCreated",
        "TrainingJobChanged",
        "AlarmChanged",
        "ScheduleFired",
        "RetrainingRequested",
        "ApprovalRequested",
        "ExecutionStatusChanged",
        "S3TestEvent",
        UNKNOWN,
    }
)
"""Every `kind` a Parsed can have: they become metric labels."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, halves of surrogate pairs, line breaks, and what turns the text after it round."""
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})")
_STATUS = re.compile("[A-Za-z]{1,64}")
_VERSION = re.compile("[^@]{1,1024}")
"""A sequencer, version id or ETag. The identity is key@version: without an @ in it no two facts share one."""
_MODEL = re.compile(r"[a-z][a-z0-9-]{0,23}")
_EXECUTION = re.compile(r"(?P<model>[a-z][a-z0-9-]{0,23})-g[0-9]{1,9}-[0-9a-f]{8}")
_JOB = re.compile(_EXECUTION.pattern + r"-[a-z0-9-]+")
_SCHEDULE = re.compile(
    rf"arn:aws[a-z-]*:scheduler:[a-z0-9-]+:[0-9]{{12}}:schedule/{SCHEDULE_GROUP}/"
    r"(?P<model>[a-z][a-z0-9-]{0,23})\.(?P<schedule>[a-z0-9-]{1,24})"
)
_PACKAGE = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/[A-Za-z0-9._/-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Whose events are taken. None for state machines or regions means any of the allowed accounts."""

    accounts: frozenset[str]
    buckets: frozenset[str]
    state_machines: frozenset[str] | None = None
    regions: frozenset[str] | None = None


class EnvelopeParser:
    """Implements ports.Parser; `parse` raises on no text whatever."""

    def __init__(self, allow: Allowed, *, size_max_bytes: int = SIZE_MAX_BYTES) -> None:
        self._allow = allow
        self._size_max_bytes = size_max_bytes

    def parse(self, body: str) -> Parsed:
        try:
            return self._parse(_loaded(body, self._size_max_bytes), wrapped=False)
        except _RefusedError as error:
            return Parsed(verdict=error.verdict, kind=error.kind, why=str(error))

    def _parse(self, value: object, *, wrapped: bool) -> Parsed:
        message = _Fields(UNKNOWN, "", value)
        if message.has("Records"):
            return _notifications(message, self._allow)
        if message.values.get("Event") == "s3:TestEvent":
            return _ignored("S3TestEvent", "S3 tried whether it can write to the queue")
        if message.values.get("Type") == "Notification" and message.has("Message") and not wrapped:
            inner = message.values["Message"]
            if not isinstance(inner, str):
                message.wrong("Message", "must be a text")
            return self._parse(_loaded(inner, self._size_max_bytes), wrapped=True)
        if message.values.get("Type") == "SubscriptionConfirmation":
            message.wrong("Type", "asks to confirm an SNS subscription; do that by hand if it is yours")
        return self._envelope(message)

    def _envelope(self, message: "_Fields") -> Parsed:
        if not message.has("detail-type"):
            why = "this is neither an EventBridge envelope nor an S3 notification"
            raise _RefusedError(Verdict.MALFORMED, UNKNOWN, why)
        version, source, detail_type = (message.text(n) for n in ("version", "source", "detail-type"))
        found = _REGISTRY.get((version, source, detail_type))
        if found is None:
            return _ignored(UNKNOWN, f"nothing is done on {_shown(detail_type)} of {_shown(source)}")
        kind, parse = found
        envelope = _Fields(kind, "", message.values)
        _check(envelope, "account", self._allow.accounts)
        if self._allow.regions is not None:
            _check(envelope, "region", self._allow.regions)
        envelope.time("time")
        return parse(envelope, self._allow)


# --- one function a kind ---


def _object_created(envelope: "_Fields", allow: Allowed) -> Parsed:
    detail = envelope.fields("detail")
    bucket = _bucket(detail.fields("bucket"), allow)
    s3_object = detail.fields("object")
    # The key of an EventBridge event is as it is; only raw notifications encode it.
    key = _key(s3_object, s3_object.text("key", most=4 * KEY_MAX_BYTES))
    return _event("ObjectCreated", None, _created(bucket, key, s3_object, ("sequencer", "version-id", "etag")))


def _notifications(message: "_Fields", allow: Allowed) -> Parsed:
    """Raw S3 notifications. Several records make several events; records of other kinds are passed over."""
    records = message.values["Records"]
    if not isinstance(records, list):
        message.wrong("Records", "must be a list")
    if len(records) > RECORDS_MAX:
        message.wrong("Records", f"has {len(records)} entries, and at most {RECORDS_MAX} are taken")
    events = [e for i, r in enumerate(records) if (e := _record(_Fields(UNKNOWN, f"Records[{i}].", r), allow))]
    if not events:
        return _ignored(UNKNOWN, "no record tells of an object created in S3")
    return Parsed(verdict=Verdict.EVENT, kind="ObjectCreated", events=tuple((None, e) for e in events))


def _record(record: "_Fields", allow: Allowed) -> ObjectCreated | None:
    if record.text("eventSource") != "aws:s3":
        return None
    if not record.text("eventName").removeprefix("s3:").startswith("ObjectCreated:"):
        return None
    s3 = _Fields("ObjectCreated", record.where, record.values).fields("s3")
    bucket = _bucket(s3.fields("bucket"), allow)
    s3_object = s3.fields("object")
    try:
        key = unquote_plus(s3_object.text("key", most=4 * KEY_MAX_BYTES), errors="strict")
    except UnicodeDecodeError:
        s3_object.wrong("key", "is not UTF-8 once it is decoded")
    return _created(bucket, _key(s3_object, key), s3_object, ("sequencer", "versionId", "eTag"))


def _execution_status(envelope: "_Fields", allow: Allowed) -> Parsed:
    kind = "ExecutionStatusChanged"
    arn = envelope.fields("detail").text("stateMachineArn")
    if allow.state_machines is not None and arn not in allow.state_machines:
        return _ignored(kind, f"state machine {_shown(arn)} is not one of ours")
    return Parsed(verdict=Verdict.WAKE, kind=kind)


def _training_job(envelope: "_Fields", allow: Allowed) -> Parsed:
    detail = envelope.fields("detail")
    job = detail.text("TrainingJobName", most=63)
    status = detail.text("TrainingJobStatus", pattern=_STATUS)
    secondary = detail.text("SecondaryStatus", pattern=_STATUS)
    named = _JOB.fullmatch(job)
    if not named:
        return _ignored("TrainingJobChanged", f"training job {_shown(job)} is not one of ours")
    event = TrainingJobChanged(job=job, status=status, secondary_status=secondary)
    return _event("TrainingJobChanged", named["model"], event)


def _alarm(envelope: "_Fields", allow: Allowed) -> Parsed:
    detail = envelope.fields("detail")
    state = detail.fields("state")
    value = state.text("value")
    if value not in ("OK", "ALARM", "INSUFFICIENT_DATA"):
        state.wrong("value", f"must be OK, ALARM or INSUFFICIENT_DATA, not {_shown(value)}")
    event = AlarmChanged(alarm=detail.text("alarmName", most=255), state=value, changed_at=state.time("timestamp"))
    return _event("AlarmChanged", None, event)


def _approval(envelope: "_Fields", allow: Allowed) -> Parsed:
    detail = envelope.fields("detail")
    execution = detail.text("execution")
    model = detail.text("model", pattern=_MODEL)
    named = _EXECUTION.fullmatch(execution)
    if not named or named["model"] != model:
        detail.wrong("execution", f"{_shown(execution)} is not an execution of model {model}")
    _check_execution(envelope, execution, allow)
    package = None
    if detail.values.get("model_package_arn") is not None:
        package = detail.text("model_package_arn", pattern=_PACKAGE)
    token = detail.text("task_token", most=2048)
    event = ApprovalRequested(execution=execution, task_token=token, model_package_arn=package)
    return _event("ApprovalRequested", model, event)


def _requested(envelope: "_Fields", allow: Allowed) -> Parsed:
    detail = envelope.fields("detail")
    by = detail.text("by", most=256) if detail.has("by") else f"account {envelope.text('account')}"
    event = RetrainingRequested(request=envelope.text("id", most=128), by=by, why=detail.text("why"))
    return _event("RetrainingRequested", detail.text("model", pattern=_MODEL), event)


def _schedule(envelope: "_Fields", allow: Allowed) -> Parsed:
    """`time` is taken as the moment it was due; EventBridge Scheduler's detail is the text "{}" and says nothing."""
    found = _SCHEDULE.fullmatch(_resource(envelope))
    if not found:
        return _ignored("ScheduleFired", f"the schedule is not <model>.<schedule> in the group {SCHEDULE_GROUP}")
    event = ScheduleFired(schedule=found["schedule"], fire_at=envelope.time("time"))
    return _event("ScheduleFired", found["model"], event)


_REGISTRY: Final[Mapping[tuple[str, str, str], tuple[str, Callable[["_Fields", Allowed], Parsed]]]] = {
    ("0", "aws.s3", "Object Created"): ("ObjectCreated", _object_created),
    ("0", "aws.states", "Step Functions Execution Status Change"): ("ExecutionStatusChanged", _execution_status),
    ("0", "aws.sagemaker", "SageMaker Training Job State Change"): ("TrainingJobChanged", _training_job),
    ("0", "aws.cloudwatch", "CloudWatch Alarm State Change"): ("AlarmChanged", _alarm),
    ("0", "aws.scheduler", "Scheduled Event"): ("ScheduleFired", _schedule),
    ("0", "retrainer", "Approval Requested"): ("ApprovalRequested", _approval),
    ("0", "retrainer.custom", "Retraining Requested"): ("RetrainingRequested", _requested),
}


# --- what they are made of ---


class _RefusedError(Exception):
    """Ends the parsing of a message; never leaves this module."""

    def __init__(self, verdict: Verdict, kind: str, why: str) -> None:
        super().__init__(why)
        self.verdict = verdict
        self.kind = kind


class _Fields:
    """A JSON object and where it stands, so that a wrong field is called by its whole name."""

    __slots__ = ("kind", "values", "where")

    def __init__(self, kind: str, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise _RefusedError(Verdict.MALFORMED, kind, f"{where.rstrip('.') or 'the message'} must be a JSON object")
        self.kind = kind
        self.where = where
        self.values: dict[str, object] = value

    def has(self, name: str) -> bool:
        return name in self.values

    def wrong(self, name: str, why: str) -> NoReturn:
        raise _RefusedError(Verdict.MALFORMED, self.kind, f"{self.where}{name} {why}")

    def get(self, name: str) -> object:
        if name not in self.values:
            self.wrong(name, "is missing")
        return self.values[name]

    def fields(self, name: str) -> "_Fields":
        return _Fields(self.kind, f"{self.where}{name}.", self.get(name))

    def text(self, name: str, *, most: int = 1024, pattern: re.Pattern[str] | None = None) -> str:
        """A text of 1 to `most` characters without control characters, wholly of the pattern if one is given."""
        value = self.get(name)
        if not isinstance(value, str):
            self.wrong(name, "must be a text")
        if not 0 < len(value) <= most:
            self.wrong(name, f"must have 1 to {most} characters, and has {len(value)}")
        if not value.isprintable() and _UNPRINTABLE.search(value):
            self.wrong(name, "has a control character")
        if pattern and not pattern.fullmatch(value):
            self.wrong(name, f"must match {pattern.pattern}, and {_shown(value)} does not")
        return value

    def size(self, name: str) -> int:
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            self.wrong(name, "must be a whole number of bytes")
        return value

    def time(self, name: str) -> datetime:
        """An RFC 3339 time, in UTC. CloudWatch writes its offsets without the colon (+0000), which is taken too."""
        value = self.text(name, most=40)
        if not _TIME.fullmatch(value):
            self.wrong(name, f"must be a time as in 2026-01-31T02:00:00Z, not {_shown(value)}")
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.wrong(name, f"is no time that there is: {_shown(value)}")


def _loaded(body: str, size_max_bytes: int) -> object:
    # A character is at least a byte: a text that is far too long is not even encoded.
    size = len(body) if len(body) > size_max_bytes else len(body.encode(errors="surrogatepass"))
    if size > size_max_bytes:
        why = f"the message has {size} bytes or more, and at most {size_max_bytes} are taken"
        raise _RefusedError(Verdict.MALFORMED, UNKNOWN, why)
    if body.startswith("\ufeff"):
        raise _RefusedError(Verdict.MALFORMED, UNKNOWN, "this is not JSON: 'Unexpected UTF-8 BOM'")
    try:
        return _DECODER.decode(body)
    except RecursionError:
        raise _RefusedError(Verdict.MALFORMED, UNKNOWN, "the JSON is nested too deeply") from None
    except ValueError as error:
        raise _RefusedError(Verdict.MALFORMED, UNKNOWN, f"this is not JSON: {_shown(str(error))}") from error


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """One meaning only: of two equal keys a reader may take either, so both are refused (RFC 8259, section 4)."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has the same key twice")
    return values


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _check(fields: _Fields, name: str, allowed: frozenset[str]) -> str:
    value = fields.text(name)
    if value not in allowed:
        raise _RefusedError(Verdict.FOREIGN, fields.kind, f"{fields.where}{name} {_shown(value)} is not allowed")
    return value


def _bucket(bucket: _Fields, allow: Allowed) -> str:
    return _check(bucket, "name", allow.buckets)


def _key(s3_object: _Fields, key: str) -> str:
    """The decoded key, checked: whatever reads it later may take it for a path."""
    if len(key.encode(errors="surrogatepass")) > KEY_MAX_BYTES:
        s3_object.wrong("key", f"is longer than {KEY_MAX_BYTES} bytes")
    if _UNPRINTABLE.search(key):
        s3_object.wrong("key", "has a control character")
    if ".." in key.split("/"):
        s3_object.wrong("key", "has a segment of two dots")
    return key


def _created(bucket: str, key: str, s3_object: _Fields, versions: tuple[str, ...]) -> ObjectCreated:
    """`versions` are the fields that tell one version of a key from another, the best first."""
    named = next((v for v in versions if s3_object.values.get(v) is not None), versions[0])
    version = s3_object.text(named, pattern=_VERSION)
    return ObjectCreated(bucket=bucket, key=key, version=version, size_bytes=s3_object.size("size"))


def _resource(envelope: _Fields) -> str:
    resources = envelope.get("resources")
    if not isinstance(resources, list) or not resources or not isinstance(resources[0], str):
        envelope.wrong("resources", "must be a list of ARNs")
    return resources[0]


def _check_execution(envelope: _Fields, execution: str, allow: Allowed) -> None:
    """The execution's ARN must be one that an allowed state machine would give it."""
    arn = _resource(envelope)
    machine, _, name = arn.replace(":execution:", ":stateMachine:").rpartition(":")
    if name != execution:
        envelope.wrong("resources", f"names {_shown(name)}, not the execution {execution}")
    if allow.state_machines is not None and machine not in allow.state_machines:
        raise _RefusedError(Verdict.FOREIGN, envelope.kind, f"state machine {_shown(machine)} is not allowed")


def _event(kind: str, model: str | None, event: Event) -> Parsed:
    return Parsed(verdict=Verdict.EVENT, kind=kind, events=((model, event),))


def _ignored(kind: str, why: str) -> Parsed:
    return Parsed(verdict=Verdict.IGNORED, kind=kind, why=why)


def _shown(text: str) -> str:
    """A stranger's text, fit to be shown in a reason: ASCII, quoted, and short."""
    shown = ascii(text[:81])
    return shown if len(text) <= 80 and len(shown) <= 120 else shown[:80] + "...'"
