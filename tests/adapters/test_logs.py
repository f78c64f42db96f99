"""The log: one line per unit of work, and never a secret."""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from retrainer.adapters.logs import LogTelemetry, configure, masked
from retrainer.core.decide import Decision
from retrainer.core.effects import AnswerApproval
from retrainer.core.events import ApprovalRequested, EvidenceMeasured
from retrainer.core.evidence import Evidence
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Owed, TransientError, Verdict
from tests.fakes.story import policy_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TOKEN = "AAAAKgAAAAIAAAAA" + "x9/+" * 60
ENTRY = Entry(
    model="recommender",
    event=ApprovalRequested(execution="recommender-g1-00000000", task_token=TOKEN),
    now=NOW,
    decision=Decision(
        state=ModelState(model="recommender", version=17),
        reason=Reason.STALE,
        detail="not the execution awaited",
        effects=(),
    ),
    policy=policy_of("recommender"),
    policy_hash="0" * 64,
    state_before=ModelState(model="recommender", version=16),
)


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    configure(level="debug", stream=stream, secrets=["correct horse battery"])
    yield stream
    root.handlers[:], _ = before
    root.setLevel(before[1])
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_decision_is_one_line_with_its_keys(out: io.StringIO) -> None:
    LogTelemetry().decided(ENTRY, Committed.NEW, 0.0123456789)
    (line,) = lines(out)
    assert list(line)[:3] == ["at", "level", "event"]
    assert line["event"] == "decision"
    assert line["decision"] == "recommender-17"
    assert line["kind"] == "approval_requested"
    assert line["reason"] == "stale"
    assert line["took_seconds"] == 0.012346


def test_a_decision_on_evidence_says_what_was_measured(out: io.StringIO) -> None:
    event = EvidenceMeasured(effect="recommender-16.measure", evidence=Evidence(rows=321))
    entry = Entry(
        model=ENTRY.model,
        event=event,
        now=NOW,
        decision=ENTRY.decision,
        policy=ENTRY.policy,
        policy_hash="h",
        state_before=ENTRY.state_before,
    )
    LogTelemetry().decided(entry, Committed.NEW, 0.01)
    assert lines(out)[0]["rows"] == 321


def test_a_decision_that_only_grows_a_window_is_told_when_debugging(out: io.StringIO) -> None:
    plain = replace(ENTRY, decision=replace(ENTRY.decision, reason=Reason.MEASURING))
    effect = AnswerApproval(key="k", execution="e", approved=True, by="kim", task_token=TOKEN)
    asking = replace(ENTRY, decision=replace(ENTRY.decision, reason=Reason.MEASURING, effects=(effect,)))
    for level in (logging.DEBUG, logging.INFO):
        logging.getLogger().setLevel(level)
        LogTelemetry().decided(plain, Committed.NEW, 0.1)
        LogTelemetry().decided(asking, Committed.NEW, 0.1)
        LogTelemetry().decided(asking, Committed.DUPLICATE, 0.1)
        LogTelemetry().duplicate("recommender", ENTRY.event)
    told = [(line["event"], line["level"]) for line in lines(out)]
    assert told == [
        ("decision", "debug"),
        ("decision", "info"),
        ("decision_not_new", "debug"),
        ("event_known", "debug"),
        ("decision", "info"),
    ]


def test_what_is_refused_and_what_fails_warns(out: io.StringIO) -> None:
    telemetry = LogTelemetry()
    telemetry.received("https://sqs/1/events", "unknown", Verdict.MALFORMED, "not JSON")
    telemetry.failed("observer", TransientError("no route"))
    telemetry.failed("observer", OSError("a defect"))
    refused, failed, defect = lines(out)
    assert (refused["event"], refused["level"], refused["why"]) == ("message_received", "warning", "not JSON")
    assert (failed["event"], failed["error_kind"], failed["error"]) == ("task_failed", "TransientError", "no route")
    assert (failed["level"], defect["level"]) == ("warning", "error")
    assert "exception" not in failed
    assert "exception" in defect


def test_no_secret_is_ever_logged(out: io.StringIO) -> None:
    effect = AnswerApproval(key="k", execution="e", approved=True, by="kim", task_token=TOKEN)
    telemetry = LogTelemetry()
    telemetry.decided(ENTRY, Committed.NEW, 0.1)
    owed = Owed(model="recommender", effect=effect, decision="recommender-17", tries=1, created_at=NOW)
    telemetry.carried_out(owed, f"Invalid Token: '{TOKEN}'", 0.1)
    telemetry.failed("outbox", ValueError("Authorization: Bearer abc.def, password=hunter2"))
    log = structlog.stdlib.get_logger("x")
    log.info("anything", task_token="tok-1", nested=[{"taskToken": "tok-2"}], effect=effect)
    log.info("anything", text='{"task_token": "tok-3"}', url="postgresql://me:tok-4@host/db")
    log.info("anything", text=f"a line with {TOKEN} in it", key="AKIAIOSFODNN7EXAMPLE")
    logging.getLogger("botocore").warning("aws_secret_access_key=%s correct horse battery", "wJalr/XUtn")
    told = out.getvalue()
    secrets = (TOKEN, "tok-1", "tok-2", "tok-3", "tok-4", "hunter2", "abc.def", "AKIA", "wJalr", "horse")
    assert [s for s in secrets if s in told] == []
    assert "***" in told


def test_lines_of_libraries_have_the_same_form(out: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").warning("port %d", 1)
    assert lines(out)[0]["event"] == "port 1"


def test_on_a_console_a_name_cannot_move_the_cursor(out: io.StringIO) -> None:
    configure(level="info", style="console", stream=out)
    structlog.stdlib.get_logger("x").info("decision", identity="object:b/\x1b[2Jkey")
    assert "\x1b" not in out.getvalue()
    assert "object:b/" in out.getvalue()


def test_a_secret_is_masked_in_whatever_is_shown_elsewhere() -> None:
    told = masked({"detail": {"TaskToken": "tok-1", "text": f"{TOKEN} \x1b[2J", "size": 3, "keys": [None, True]}})
    assert told == {"detail": {"TaskToken": "***", "text": "*** \\x1b[2J", "size": 3, "keys": [None, True]}}
