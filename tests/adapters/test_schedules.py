"""Fire times: unix week days, daylight saving in both directions, windows that neither overlap nor leave a gap."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrainer.adapters.schedules import FIRES_MAX, UnixCronTrigger, due
from retrainer.core.policy import Schedule

BERLIN = ZoneInfo("Europe/Berlin")  # 2026: clocks go forward on 29 March at 02:00, back on 25 October at 03:00


def schedule(cron: str, zone: str = "Europe/Berlin") -> Schedule:
    return Schedule(name="nightly", cron=cron, time_zone=zone)


def on_the_clock(cron: str, day: datetime, zone: str = "Europe/Berlin") -> list[str]:
    """The fires of one local day, as its clocks show them with their offset."""
    there = ZoneInfo(zone)
    begin = day.replace(tzinfo=there)
    fires = due(schedule(cron, zone), begin - timedelta(microseconds=1), begin + timedelta(days=1, microseconds=-1))
    return [f"{f.astimezone(there):%H:%M%z}" for f in fires]


SPRING, AUTUMN = datetime(2026, 3, 29), datetime(2026, 10, 25)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("cron", "day", "fires"),
    [
        ("30 1 * * *", SPRING, ["01:30+0100"]),
        ("30 2 * * *", SPRING, ["03:00+0200"]),  # 02:30 is skipped: at once after the gap
        ("0,30 2 * * *", SPRING, ["03:00+0200"]),  # several skipped times are caught up with once
        ("30 3 * * *", SPRING, ["03:30+0200"]),
        ("30 1 * * *", AUTUMN, ["01:30+0200"]),
        ("30 2 * * *", AUTUMN, ["02:30+0200"]),  # comes twice, fires at its first coming
        ("30 3 * * *", AUTUMN, ["03:30+0100"]),
        (
            "*/30 2-3 * * *",
            AUTUMN,
            ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100", "03:00+0100", "03:30+0100"],
        ),
        ("5 * * * *", SPRING, [f"{h:02}:05+0{1 if h < 2 else 2}00" for h in range(24) if h != 2]),
    ],
)
def test_daylight_saving_is_kept_as_debians_cron_keeps_it(cron: str, day: datetime, fires: list[str]) -> None:
    assert on_the_clock(cron, day) == fires


def test_half_past_one_fires_once_when_new_york_sets_its_clocks_back() -> None:
    assert on_the_clock("30 1 * * *", datetime(2026, 11, 1), "America/New_York") == ["01:30-0400"]  # noqa: DTZ001


@pytest.mark.parametrize("monday", ["1", "MON", "mon"])
def test_day_one_is_monday_and_both_zero_and_seven_are_sunday(monday: str) -> None:
    week = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 8, tzinfo=UTC))
    assert [f.strftime("%a") for f in due(schedule(f"0 9 * * {monday}", "UTC"), *week)] == ["Mon"]
    for sunday in ("0", "7"):
        assert [f.strftime("%a") for f in due(schedule(f"0 9 * * {sunday}", "UTC"), *week)] == ["Sun"]


def test_day_of_month_and_day_of_week_are_either_or() -> None:
    month = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 16, tzinfo=UTC))
    assert [f.day for f in due(schedule("0 9 13 * 1", "UTC"), *month)] == [2, 9, 13]


def test_the_window_leaves_its_beginning_out_and_has_its_end_in() -> None:
    nine, ten = datetime(2026, 11, 1, 9, tzinfo=UTC), datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert due(schedule("0 * * * *", "UTC"), nine, ten) == [ten]
    assert due(schedule("0 * * * *", "UTC"), nine - timedelta(microseconds=1), nine) == [nine]
    assert due(schedule("0 * * * *", "UTC"), ten, ten) == []
    assert due(schedule("0 * * * *", "UTC"), ten, nine) == []


def test_fire_times_are_in_utc_whatever_the_zone_of_the_question() -> None:
    begin = datetime(2026, 7, 1, tzinfo=BERLIN)
    (fire,) = due(schedule("0 2 * * *"), begin, begin + timedelta(days=1))
    assert fire == datetime(2026, 7, 1, 0, tzinfo=UTC)
    assert fire.tzinfo is UTC


def test_a_daemon_that_slept_for_years_wakes_to_the_newest_fires_only() -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    fires = due(schedule("* * * * *", "UTC"), now - timedelta(days=6 * 365), now)
    assert len(fires) == FIRES_MAX
    assert fires[-1] == now


def test_a_rare_schedule_is_found_years_ahead() -> None:
    leap_days = due(schedule("0 0 29 2 *", "UTC"), datetime(2026, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC))
    assert [f.year for f in leap_days] == [2028, 2032]


def test_the_trigger_is_an_apscheduler_trigger_that_goes_on_from_the_last_fire() -> None:
    trigger = UnixCronTrigger("0 2 * * *", BERLIN)
    now = datetime(2026, 7, 1, tzinfo=UTC)
    first = trigger.get_next_fire_time(None, now)
    assert first == datetime(2026, 7, 2, 0, tzinfo=UTC)
    assert trigger.get_next_fire_time(first, now) == datetime(2026, 7, 3, 0, tzinfo=UTC)


@given(
    st.sampled_from(["30 2 * * *", "0,30 1-3 * * *", "*/20 * * * *", "30 */2 * * *", "15 2 25 10 *", "0 3 * * 0"]),
    st.sampled_from(["2026-03-28T20:00", "2026-10-24T20:00"]),
    st.lists(st.integers(0, 36 * 60 * 60), min_size=3, max_size=3).map(sorted),
)
def test_windows_that_meet_have_every_fire_once(cron: str, day: str, seconds: list[int]) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
    a, b, c = (begin + timedelta(seconds=s) for s in seconds)
    asked = schedule(cron)
    assert due(asked, a, b) + due(asked, b, c) == due(asked, a, c)
