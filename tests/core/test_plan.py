"""What is compared with what: seasons of the reference, the grid that profiles are counted on, and where they lie."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retrainer.core import plan
from retrainer.core.effects import PublishReport
from retrainer.core.evidence import Drifting
from retrainer.core.execution import Champion
from retrainer.core.policy import Policy
from retrainer.core.state import ModelState
from retrainer.core.window import Batch, first
from tests.core.transcript import policy_with

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
CHAMPION = Champion(generation=1, execution="m-g1-0", model_package_arn=None, promoted_at=MONDAY, metrics={})


def batch(name: str, arrived_at: datetime | None = None) -> Batch:
    return Batch(bucket="b", key=f"data/m/{name}", version="1", size_bytes=1, rows=10, arrived_at=arrived_at)


def each(wait: timedelta, count: int, start: datetime = MONDAY) -> tuple[Batch, ...]:
    return tuple(batch(f"{start + n * wait:%d-%H}", start + n * wait) for n in range(count))


def names(batches: tuple[Batch, ...]) -> list[str]:
    return [b.key.removeprefix("data/m/") for b in batches]


def compared(state: ModelState, *settings: str) -> list[str]:
    policy = policy_with(*settings)
    asked = plan.measure(policy, state, "m-1.measure", MONDAY)
    assert asked
    return names(asked.reference)


def test_the_reference_of_an_hour_is_what_arrived_in_that_hour_of_other_days() -> None:
    state = ModelState(
        model="m", training=each(timedelta(hours=6), 12), window=(batch("new", MONDAY + timedelta(days=4, hours=6)),)
    )
    assert compared(state, "windows.reference.season = hour") == ["05-06", "06-06", "07-06"]


def test_the_reference_of_a_week_day_is_what_arrived_on_that_day_where_its_time_zone_lies() -> None:
    late = MONDAY + timedelta(days=14, hours=23)  # in Berlin it is Tuesday
    state = ModelState(model="m", training=each(timedelta(days=1), 14), window=(batch("new", late),))
    assert compared(state, "windows.reference.season = weekday") == ["05-00", "12-00"]
    berlin = ('windows.reference = {"season": "weekday", "time_zone": "Europe/Berlin"}',)
    assert compared(state, *berlin) == ["06-00", "13-00"]


def test_a_season_takes_the_newest_batches_of_it() -> None:
    state = ModelState(
        model="m", training=each(timedelta(hours=12), 12), window=(batch("new", MONDAY + timedelta(days=7)),)
    )
    assert compared(state, 'windows.reference = {"season": "hour", "batches": 2}') == ["09-00", "10-00"]


def test_a_trailing_reference_has_seasons_too() -> None:
    state = ModelState(model="m", window=each(timedelta(hours=12), 9))
    assert compared(
        state, 'windows.reference = {"of": "trailing", "season": "hour"}', "windows.current.batches = 1"
    ) == ["05-00", "06-00", "07-00", "08-00"]


def test_without_a_batch_of_the_season_all_are_the_reference() -> None:
    training = (*each(timedelta(days=1), 2), batch("old"))
    state = ModelState(model="m", training=training, window=(batch("new", MONDAY + timedelta(hours=5)),))
    assert compared(state, "windows.reference.season = hour") == ["05-00", "06-00", "old"]
    unknown = replace(state, window=(batch("new"),))
    assert compared(unknown, "windows.reference.season = hour") == ["05-00", "06-00", "old"]


@pytest.mark.parametrize(
    ("reference", "grid"),
    [
        ('{"of": "training"}', []),
        ('{"of": "training", "batches": 1}', []),
        ('{"of": "training", "season": "weekday"}', ["05-00", "06-00"]),
        ('{"of": "trailing", "batches": 1}', ["06-00"]),
        ('{"of": "fixed", "keys": ["data/a"]}', ["05-00", "06-00"]),
        ('{"of": "monitor", "keys": ["data/statistics.json"]}', []),
    ],
)
def test_the_grid_is_of_what_the_champion_learned_from_for_as_long_as_it_serves(
    reference: str, grid: list[str]
) -> None:
    state = ModelState(
        model="m",
        champion=CHAMPION,
        training=each(timedelta(days=1), 2),
        window=each(timedelta(days=7), 3, MONDAY + timedelta(days=7)),
    )
    policy = policy_with(f"windows.reference = {reference}", "windows.current.batches = 1")
    asked = plan.measure(policy, state, "m-1.measure", MONDAY)
    assert asked
    assert names(asked.grid) == grid
    assert asked.profiles == "executions/m-g1-0/profiles/"


@pytest.mark.parametrize(
    ("batches", "grid"), [(1, 0), (2, 0), (3, 0), (4, 2), (5, 0), (6, 4), (8, 4), (9, 0), (10, 8), (16, 8)]
)
def test_without_a_champion_the_grid_of_a_moving_reference_changes_seldom(batches: int, grid: int) -> None:
    state = ModelState(model="m", window=each(timedelta(hours=1), batches))
    policy = policy_with('windows.reference = {"of": "trailing"}', "windows.current.batches = 1")
    asked = plan.measure(policy, state, "m-1.measure", MONDAY)
    assert asked
    assert asked.grid == state.window[:grid]
    assert asked.profiles == "profiles/m/"


def test_a_report_is_of_the_same_profiles_and_says_since_when() -> None:
    since = (Drifting(column="x", since=MONDAY),)
    state = ModelState(model="m", champion=CHAMPION, training=(batch("a"),), window=(batch("b"),), drifting=since)
    told = plan.report(policy_with(), state, "m-7", MONDAY)
    assert told
    assert (told.grid, told.profiles, told.since) == ((), "executions/m-g1-0/profiles/", since)
    assert (told.report_key, told.page_key, told.json_key) == (
        "reports/m/m-7.html",
        "reports/m/m-7.page.html",
        "reports/m/m-7.json",
    )


def test_a_report_has_the_predictions_and_the_classifier_that_are_measured() -> None:
    logged = (batch("p1"), batch("p2"))
    state = ModelState(model="m", training=(batch("a"),), window=(batch("b"),), predictions=logged)
    for changes, threshold in ((("triggers.drift.classifier = 0.7",), 0.7), ((), None)):
        policy = policy_with(*changes)
        asked, told = plan.measure(policy, state, "m-6.measure", MONDAY), plan.report(policy, state, "m-7", MONDAY)
        assert asked
        assert told
        assert (told.predictions, told.classifier) == (asked.predictions, asked.classifier) == (logged, threshold)


def test_a_report_of_another_ending_has_its_own_page_and_json() -> None:
    told = PublishReport(key="k", bucket="b", report_key="r", reference=(), current=())
    assert (told.page_key, told.json_key) == ("r.page.html", "r.json")


def test_the_first_stay_the_first_and_an_overwritten_one_is_replaced() -> None:
    known: tuple[Batch, ...] = ()
    for name in "abc":
        known = first(known, batch(name), most=2)
    assert names(known) == ["a", "b"]
    newer = replace(batch("a"), version="2")
    assert first(known, newer, most=2) == (batch("b"), newer)


def started(policy: Policy, state: ModelState) -> dict[str, Any]:
    planned = plan.execution(policy, state, "x", "m-1", MONDAY)
    given: dict[str, Any] = json.loads(plan.start(policy, state, planned).input)
    return given


def test_a_policy_without_refit_asks_as_before_there_was_one() -> None:
    state = ModelState(model="m", window=(batch("a"),))
    without, having = (started(policy_with(*changes), state) for changes in ((), ("action.refit = true",)))
    assert having == without | {"refit": True}


def test_with_refit_the_gate_judges_on_what_the_champion_has_not_learned_and_the_challenger_has_a_lead() -> None:
    policy = policy_with("action.refit = true", "action.holdout_share = 0.25")
    learned = each(timedelta(days=1), 9)
    cases = [
        (ModelState(model="m", window=learned), 0.25),  # nobody has learned anything
        (
            ModelState(model="m", champion=CHAMPION, training=learned, window=(batch("new"),)),
            0.05,
        ),  # half of what is new
        (ModelState(model="m", champion=CHAMPION, training=learned[:3], window=learned[3:]), 0.25),
        (ModelState(model="m", champion=CHAMPION, training=learned), 0.25),  # it has learned all, and so be it
    ]
    assert [started(policy, state)["data"]["holdout_share"] for state, _ in cases] == [share for _, share in cases]
    always = policy_with("action.holdout_share = 0.25")
    assert {started(always, state)["data"]["holdout_share"] for state, _ in cases} == {0.25}


@pytest.mark.parametrize(("settings", "more"), [((), {}), (("gate.confidence = 0.95",), {"confidence": 0.95})])
def test_a_gate_without_a_confidence_is_asked_as_before_there_was_one(
    settings: tuple[str, ...], more: dict[str, float]
) -> None:
    policy = policy_with(*settings)
    planned = plan.execution(policy, ModelState(model="m"), "x", "m-1", MONDAY)
    gate = json.loads(plan.start(policy, ModelState(model="m"), planned).input)["gate"]
    rule = policy.gate
    assert gate == {"metric": rule.metric, "min_gain": rule.min_gain, "baselines": list(rule.baselines)} | more
