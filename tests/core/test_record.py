"""The canonical text: the same for equal values, however they came to be, and pydantic's own reading of each field."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from retrainer.core import record
from retrainer.core.effects import Effect, MeasureEvidence, PublishReport
from retrainer.core.events import AlarmChanged, Event, EvidenceMeasured, ExecutionEnded
from retrainer.core.evidence import ColumnDrift, Drifting, Evidence, Unusable
from retrainer.core.execution import Outcome, Status, Verdict
from retrainer.core.fleet import Fleet, Start
from retrainer.core.state import ModelState
from retrainer.core.window import Batch
from tests.fakes.small_daemon import POLICY

# SQLite and SQS know no lone surrogates; the parser lets none in.
st.register_type_strategy(str, st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
CLASSES = (ModelState, *get_args(Event), *get_args(Effect))
VALUES = st.one_of([st.from_type(cls) for cls in CLASSES])


def as_pydantic(value: Any) -> str:
    plain = TypeAdapter(type(value)).dump_python(value, mode="json")
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@settings(deadline=None)  # the first of each class builds its schema
@given(VALUES)
def test_each_field_is_written_as_pydantic_would_with_the_keys_sorted(value: Any) -> None:
    assert record.dump(value) == as_pydantic(value)


def test_a_policy_is_written_as_pydantic_would() -> None:
    assert record.dump(POLICY) == as_pydantic(POLICY)


@settings(deadline=None)  # the first of each class builds its schema
@given(VALUES)
def test_what_was_written_is_read_again_and_written_the_same(value: Any) -> None:
    read = TypeAdapter(type(value)).validate_json(record.dump(value))
    assert read == value
    assert record.dump(read) == record.dump(value)


def test_the_order_of_a_dictionary_says_nothing() -> None:
    def ended(metrics: dict[str, float]) -> str:
        outcome = Outcome(verdict=Verdict.PROMOTED, why="", metrics=metrics)
        return record.dump(ExecutionEnded(execution="m-g1-0a1b2c3d", status=Status.SUCCEEDED, outcome=outcome))

    assert ended({"a": 1.0, "b": 2.0}) == ended({"b": 2.0, "a": 1.0})


def test_an_end_of_before_gains_were_resampled_and_jobs_billed_is_read() -> None:
    text = '{"execution":"m-g1-0","status":"SUCCEEDED","outcome":{"verdict":"promoted","why":"better","cost":2.5}}'
    ended = record.load_event("ExecutionEnded", text)
    assert isinstance(ended, ExecutionEnded)
    assert ended.outcome == Outcome(verdict=Verdict.PROMOTED, why="better", cost=2.5, comparison=None, billing=None)
    assert ended.billing is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_cannot_be_written_down(value: float) -> None:
    outcome = Outcome(verdict=Verdict.PROMOTED, why="", challenger=value)
    with pytest.raises(ValueError, match="cannot be written down"):
        record.dump(ExecutionEnded(execution="m-g1-0a1b2c3d", status=Status.SUCCEEDED, outcome=outcome))
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.canonical({"value": value})


def test_a_value_without_a_canonical_text_is_a_defect() -> None:
    with pytest.raises(TypeError, match="set has no canonical text"):
        record.dump(AlarmChanged(alarm={1}, state="OK", changed_at=datetime(2026, 1, 1, tzinfo=UTC)))  # type: ignore[arg-type]


def test_texts_that_are_remembered_are_bounded_and_still_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "PARTS_MAX", 3)
    monkeypatch.setattr(record, "_parts", {})
    window = tuple(Batch(bucket="b", key=f"k{i}", version="1", size_bytes=i) for i in range(10))
    state = ModelState(model="m", window=window)
    for _ in range(2):
        assert record.dump(state) == as_pydantic(state)
    assert len(record._parts) <= 3


def test_a_policy_and_a_fleet_that_were_written_are_read_again() -> None:
    fleet = Fleet(waiting=("b",), starts=(Start(model="a", at=datetime(2026, 1, 1, tzinfo=UTC), cost=None),))
    assert record.load_policy(record.dump(POLICY)) == POLICY
    assert record.load_fleet(record.dump(fleet)) == fleet


def test_a_state_of_before_a_field_was_there_loads_with_its_default() -> None:
    known = json.loads(record.dump(ModelState(model="m", generation=3)))
    for field in ("losses", "cycles", "fruitless", "costs", "spent", "levels", "edges", "drift_checked_at"):
        del known[field]
    for field in ("drifting", "first_predictions"):
        del known[field]
    assert record.load_state(json.dumps(known)) == ModelState(model="m", generation=3)


@pytest.mark.parametrize(
    ("value", "new"),
    [
        (
            EvidenceMeasured(effect="m-1.measure", evidence=Evidence(rows=3)),
            ("unusable", "began", "ended"),
        ),
        (
            MeasureEvidence(key="m-1.measure", reference=(), current=(), predictions=()),
            ("grid", "profiles", "first_predictions", "classifier"),
        ),
        (
            PublishReport(key="m-1.report", bucket="b", report_key="r.html", reference=(), current=()),
            ("grid", "profiles", "first_predictions", "since", "predictions", "classifier"),
        ),
    ],
)
def test_an_event_or_effect_of_before_a_field_was_there_loads_with_its_default(
    value: Event | Effect, new: tuple[str, ...]
) -> None:
    known = json.loads(record.dump(value))
    for field in new:
        del known.get("evidence", known)[field]
    load = record.load_event if isinstance(value, EvidenceMeasured) else record.load_effect
    assert load(type(value).__name__, json.dumps(known)) == value


def test_a_column_of_before_its_score_was_an_interval_loads_with_none() -> None:
    column = ColumnDrift(column="x", test="psi", score=0.3, threshold=0.2, drifted=True)
    seen = EvidenceMeasured(effect="m-1.measure", evidence=Evidence(rows=3, drift=(column,)))
    known = json.loads(record.dump(seen))
    for field in ("low", "high", "nulls", "reference_nulls", "unseen"):
        del known["evidence"]["drift"][0][field]
    assert record.load_event("EvidenceMeasured", json.dumps(known)) == seen


def test_a_state_is_written_as_before_some_fields_were_there() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    column = ColumnDrift(column="x", test="psi", score=0.3, threshold=0.2, drifted=True)
    seen = Evidence(rows=3, drift=(column,), unusable=(Unusable(column="x", why="infinite"),), began=at)
    old = ModelState(model="m", ended_at=at, evidence=replace(seen, unusable=(), began=None))
    new = replace(old, evidence=seen, drifting=(Drifting(column="x", since=at),))
    text = record.dump_as_before(new)
    assert record.load_state(text) == old
    written = json.loads(record.dump(old))
    for where, cls in ((written, "ModelState"), (written["evidence"], "Evidence")):
        for field in record.ADDED[cls]:
            del where[field]
    for field in record.ADDED["ColumnDrift"]:
        del written["evidence"]["drift"][0][field]
    assert text == record.canonical(written)


def test_fields_that_were_added_are_fields() -> None:
    classes = {cls.__name__: cls for cls in (*CLASSES, Evidence, ColumnDrift)}
    for name, added in record.ADDED.items():
        assert set(added) <= {f.name for f in fields(classes[name])}
