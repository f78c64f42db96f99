"""The same fact has the same identity however it came; two facts never share one; secrets stay out of both."""

from datetime import UTC, datetime
from typing import get_args

from retrainer.core.events import ApprovalRequested, Event, ObjectCreated
from retrainer.core.state import ModelState
from tests.core.event_lines import READERS, read_event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINES = (
    "object a",
    "evidence rows=1",
    "started execution=m-g1-0",
    "ended FAILED execution=m-g1-0",
    "failed measure",
    "approval execution=m-g1-0",
    "approve execution=m-g1-0",
    "pause why",
    "resume",
    "manual why",
    "schedule nightly",
    "alarm slow ALARM",
    "job m-g1-0-a-0 Completed Completed",
    "done m-1.report",
    "woken",
    "repoliced",
)


def test_every_kind_of_event_has_an_identity_of_its_own() -> None:
    events = [read_event(line, ModelState(model="m"), NOW, {}) for line in LINES]
    assert {type(e) for e in events} == set(get_args(Event))
    asked = [e for e in events if e.identity.startswith("request:")]
    assert len({e.identity for e in events}) == len(events) - len(asked) + 1
    assert len(READERS) == len(LINES) + 1


def test_a_new_version_of_an_object_is_a_new_fact() -> None:
    first = ObjectCreated(bucket="b", key="k", version="1", size_bytes=1)
    again = ObjectCreated(bucket="b", key="k", version="1", size_bytes=1)
    newer = ObjectCreated(bucket="b", key="k", version="2", size_bytes=1)
    assert first.identity == again.identity
    assert first.identity != newer.identity


def test_a_task_token_is_neither_shown_nor_part_of_the_identity() -> None:
    event = ApprovalRequested(execution="m-g1-0", task_token="secret-token")
    assert "secret-token" not in repr(event) + event.identity
