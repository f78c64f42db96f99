"""Quiet hours and freezes end when the clocks on the wall say so; a budget has room when enough of it has passed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retrainer.core.costs import standing
from retrainer.core.policy import Budget, Freeze, QuietHours
from retrainer.core.policy.guards import last_end
from retrainer.core.state import Spent

NOW = datetime(2026, 1, 10, tzinfo=UTC)


def quiet(start: str, end: str, **told: Any) -> QuietHours:
    return QuietHours.model_validate({"from": start, "to": end, "time_zone": "Europe/Berlin"} | told)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "now", "end"),
    [
        (quiet("22:00", "06:00"), "2026-01-09T20:59", None),
        (quiet("22:00", "06:00"), "2026-01-09T21:00", "2026-01-10T05:00"),
        (quiet("22:00", "06:00"), "2026-01-10T04:59", "2026-01-10T05:00"),
        (quiet("22:00", "06:00"), "2026-01-10T05:00", None),
        # The day it begins on: Friday night is quiet, Saturday night is not.
        (quiet("22:00", "06:00", days=["fri"]), "2026-01-10T04:00", "2026-01-10T05:00"),
        (quiet("22:00", "06:00", days=["fri"]), "2026-01-10T22:00", None),
        (quiet("09:00", "17:00", days=["sat"]), "2026-01-10T08:00", "2026-01-10T16:00"),
        # On 29 March the clocks skip from 2:00 to 3:00, on 25 October they show 2:00 to 3:00 twice.
        (quiet("22:00", "06:00"), "2026-03-28T21:00", "2026-03-29T04:00"),
        (quiet("22:00", "06:00"), "2026-10-24T20:00", "2026-10-25T05:00"),
        (quiet("22:00", "02:30"), "2026-03-28T22:00", "2026-03-29T01:30"),
        (quiet("22:00", "02:30"), "2026-10-25T00:45", "2026-10-25T01:30"),
        (quiet("02:30", "06:00"), "2026-03-29T01:15", None),
        (quiet("02:30", "06:00"), "2026-03-29T01:30", "2026-03-29T04:00"),
        (quiet("02:30", "06:00"), "2026-10-25T00:30", "2026-10-25T05:00"),
    ],
)
def test_quiet_hours_end_as_the_clocks_on_the_wall_show(hours: QuietHours, now: str, end: str | None) -> None:
    assert hours.ends_at(at(now)) == (at(end) if end else None)


def test_quiet_hours_that_follow_one_another_are_one_wait() -> None:
    hours = [quiet("22:00", "06:00"), quiet("05:30", "07:00", days=["sat"]), quiet("09:00", "10:00")]
    assert last_end([q.ends_at for q in hours], at("2026-01-09T22:00")) == at("2026-01-10T06:00")
    assert last_end([q.ends_at for q in hours], at("2026-01-10T07:00")) is None


def test_a_week_of_working_hours_and_nights_leaves_the_evenings() -> None:
    hours = [quiet("20:00", "08:00"), quiet("08:00", "18:00", days=["mon", "tue", "wed", "thu", "fri"])]
    assert last_end([q.ends_at for q in hours], at("2026-01-12T08:00")) == at("2026-01-12T17:00")


def test_a_day_given_as_the_end_of_a_freeze_is_the_last_of_it() -> None:
    freeze = Freeze.model_validate({"from": "2026-12-24", "to": "2026-12-26", "why": "holidays"})
    assert freeze.ends_at(at("2026-12-23T23:59")) is None
    assert freeze.ends_at(at("2026-12-24T00:00")) == at("2026-12-27T00:00")
    assert freeze.ends_at(at("2026-12-27T00:00")) is None


def test_a_freeze_between_moments_is_exact() -> None:
    told = {"from": "2026-12-24T18:00:00+01:00", "to": "2026-12-24T20:00:00Z", "why": "x"}
    assert Freeze.model_validate(told).ends_at(at("2026-12-24T16:59")) is None
    assert Freeze.model_validate(told).ends_at(at("2026-12-24T17:00")) == at("2026-12-24T20:00")


def test_a_freeze_of_one_day_is_one() -> None:
    freeze = Freeze.model_validate({"from": "2026-12-24", "to": "2026-12-24", "why": "x"})
    assert freeze.end - freeze.starts_at == timedelta(days=1)


def spent(*paid: tuple[int, float]) -> list[Spent]:
    return [Spent(at=NOW - timedelta(days=days), money=money) for days, money in paid]


@pytest.mark.parametrize(
    ("paid", "cost", "until"),
    [
        ([], 10.0, NOW),
        ([(1, 5.0)], 5.0, NOW),
        ([(1, 3.0), (2, 3.0)], 5.0, NOW + timedelta(days=5)),
        ([(1, 3.0), (2, 3.0), (3, 1.0)], 5.0, NOW + timedelta(days=5)),
        ([(1, 3.0), (2, 3.0), (3, 1.0)], 9.5, NOW + timedelta(days=6)),
        ([(7, 100.0)], 10.0, NOW),
        ([(1, 9.0)], None, NOW),
        ([(1, 11.0)], None, NOW + timedelta(days=6)),
        ([(1, 1.0)], 11.0, None),
    ],
)
def test_money_has_room_again_once_enough_has_left_the_period(
    paid: list[tuple[int, float]], cost: float | None, until: datetime | None
) -> None:
    budget = Budget(money=10.0, period=timedelta(days=7))
    stands = standing(budget, [], spent(*paid), cost, "USD", NOW)
    assert (stands.until if stands.why else NOW) == until


def test_thirds_of_a_budget_are_three() -> None:
    budget = Budget(money=0.3, period=timedelta(days=7))
    assert not standing(budget, [], spent((1, 0.1), (2, 0.1)), 0.1, "USD", NOW).why


def test_of_two_limits_the_later_says_when_and_both_are_told() -> None:
    budget = Budget(money=10.0, executions=1, period=timedelta(days=7))
    stands = standing(budget, [NOW - timedelta(days=1)], spent((3, 9.0)), 5.0, "USD", NOW)
    assert stands.until == NOW + timedelta(days=6)
    assert stands.why.count(";") == 1


def test_a_limit_that_time_does_not_lift_is_not_lifted_by_another_that_it_does() -> None:
    budget = Budget(money=10.0, executions=1, period=timedelta(days=7))
    stands = standing(budget, [NOW - timedelta(days=1)], [], 11.0, "USD", NOW)
    assert stands.why
    assert stands.until is None
