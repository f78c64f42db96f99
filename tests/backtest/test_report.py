"""The sheets and the JSON say what the result says: no other sums, no figure where there is none."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from retrainer.backtest.report import as_json, comparison, figure, headline, said, sheets, span
from retrainer.backtest.results import Result
from retrainer.backtest.summary import costs, money, optimum_costs, summarise, turns, unpaid, waits
from tests.backtest.example import BEGIN, WEEK, example, hostile

KEYS = """name model policy_hash family metric seed history batches first_served price execution_cost error_cost
currency label_delay_seconds training_takes_seconds took_seconds summary reasons triggers retrainings optimum
batch_scores decisions"""
FIGURES = "retrainings fruitless unpaid optimum errors cost ratio regret money difference reaction_seconds"
WEEKLY = tuple(range(14, 100, 4))


def cells(result: Result) -> dict[str, str]:
    return {row[0].strip(): row[1] for row in sheets((result,))[0].rows}


def test_the_costs_of_the_batches_sum_to_the_cost_and_so_does_the_money() -> None:
    made = example(retrain=WEEKLY)
    assert sum(costs(made)) == pytest.approx(made.cost)
    assert made.optimum is not None
    assert sum(optimum_costs(made) or ()) == pytest.approx(made.optimum.cost)
    assert sum(money(made) or ()) == pytest.approx(made.money)


def test_a_retraining_is_paid_at_the_batch_that_was_the_newest_when_it_was_decided() -> None:
    made, never = example(retrain=(20,)), example(retrain=())
    paid = [a - b for a, b in zip(costs(made), costs(never), strict=True)][: 21 - 10]
    assert paid == [0.0] * 10 + [50.0]


def test_a_retraining_after_the_last_batch_or_before_the_first_is_still_paid() -> None:
    made = example(retrain=(20,))
    late = replace(made.counted[0], planned_at=BEGIN + WEEK * 500)
    early = replace(made.counted[0], planned_at=BEGIN)
    changed = replace(made, retrainings=(late, early))
    assert sum(costs(changed)) == pytest.approx(changed.cost)


def test_a_trigger_that_waits_for_one_guard_after_another_is_two_waits_that_meet() -> None:
    made = example(retrain=(20,))
    first, second = waits([replace(s, reason="quiet_hours") if s.reason == "noted" else s for s in made.steps])
    assert (first.reason, second.reason) == ("cooling_down", "quiet_hours")
    assert first.until == second.since
    assert second.until == BEGIN + WEEK * 20


def test_decisions_in_between_that_change_nothing_do_not_cut_a_wait() -> None:
    (wait,) = waits(example(retrain=(20,)).steps)
    assert (wait.since, wait.until) == (BEGIN + WEEK * 19.1, BEGIN + WEEK * 20)
    assert wait.why == "until the cooldown of 6 h is over"


def test_a_wait_that_the_history_ends_in_ends_with_it() -> None:
    made = example(retrain=(20,))
    cut = [s for s in made.steps if s.at < BEGIN + WEEK * 19.4]
    (wait,) = waits(cut)
    assert wait.until == cut[-1].at


def test_what_mattered_is_every_turn_and_the_beginning_of_every_wait() -> None:
    assert [s.reason for s in turns(example())] == [
        *("cooling_down", "retraining", "promoted"),
        *("cooling_down", "retraining", "refused"),
        *("cooling_down", "retraining", "promoted"),
    ]


def test_a_retraining_that_avoided_less_than_its_price_is_unpaid_and_the_last_is_not_judged() -> None:
    made = example(retrain=(20, 40, 60), refused=())
    poor = replace(made, retrainings=tuple(replace(r, avoided=10.0) for r in made.retrainings))
    assert [r.planned_at for r in unpaid(poor) or ()] == [BEGIN + WEEK * 20, BEGIN + WEEK * 40]
    assert unpaid(replace(poor, price=None)) is None
    assert unpaid(replace(made, retrainings=tuple(replace(r, avoided=None) for r in made.retrainings))) is None


def test_one_policy_is_told_in_figures_retrainings_and_reasons() -> None:
    made = example()
    figures, retrainings, reasons = sheets((made,))
    told = cells(made)
    assert told["cost = errors + retrainings x price"] == figure(made.cost)
    assert told["fruitless: not promoted"] == "1"
    assert len(retrainings.rows) == 4
    assert retrainings.rows[0][1] == "the end of the warm-up"
    assert [row[2] for row in retrainings.rows] == ["promoted", "promoted", "refused", "promoted"]
    assert {row[0]: row[1] for row in reasons.rows} == {k: str(v) for k, v in made.reasons.items()}
    assert figures.notes[0].startswith("Under regret the model would have been retrained 3 times (1 not promoted)")


def test_several_policies_are_a_row_each_the_cheapest_first_and_compared_with_the_first_given() -> None:
    given = (example("weekly", retrain=WEEKLY), example("regret"), example("never", retrain=()))
    sheet = comparison(given, summarise(given))
    prices = {r.name: r.cost for r in given}
    assert [row[0] for row in sheet.rows] == sorted(prices, key=lambda name: prices[name])
    by_name = {row[0]: row for row in sheet.rows}
    assert by_name["weekly"][3] == "-"
    assert by_name["never"][3] == figure(prices["never"] - prices["weekly"], sign="+")
    assert by_name["never"][4]


def test_the_cheapest_of_several_is_named_and_called_undecided_when_it_is() -> None:
    given = (example("first", retrain=(20, 46, 70)), example("second", retrain=(20, 45, 70)))
    told = said(given, summarise(given))
    assert "is the cheapest" in told or "None of the 1 compared is cheaper" in told
    worst = (example("never", retrain=()), example("often", retrain=WEEKLY, refused=()))
    assert "often is the cheapest, by" in said(worst, summarise(worst))


def test_policies_that_say_different_prices_are_compared_at_the_first_and_it_is_said() -> None:
    dear, silent = example("dear", price=50.0), example("silent", retrain=WEEKLY, price=None)
    rows = {row[0]: row for row in sheets((silent, dear))[0].rows}
    assert rows["silent"][1] == figure(silent.errors + 50.0 * len(WEEKLY))
    assert rows["silent"][5] == figure((silent.errors + 50.0 * len(WEEKLY)) / dear.optimum.cost, digits=3)  # type: ignore[union-attr]
    assert any("different prices" in note for note in sheets((silent, dear))[0].notes)
    assert as_json(silent, dear)["summary"]["cost"]["value"] == pytest.approx(silent.errors + 50.0 * len(WEEKLY))
    assert not any("different prices" in note for note in sheets((dear, dear))[0].notes)


def test_without_costs_only_errors_count_and_what_to_write_is_said() -> None:
    made = example(price=None)
    told = cells(made)
    assert told["cost = errors + retrainings x price"] == told["errors"]
    assert told["money, USD"] == "-"
    assert any("write costs:" in note for note in sheets((made,))[0].notes)


def test_a_policy_under_which_nothing_ever_served_is_told_without_a_figure() -> None:
    made = example()
    empty = replace(made, scores=(), retrainings=(), steps=(), optimum=None, first_served=None, batches=0)
    assert "no model was ever promoted" in sheets((empty,))[0].notes[0]
    assert "no batches" in headline(empty)
    json.dumps(as_json(empty), allow_nan=False)


def test_a_history_too_short_for_intervals_says_so() -> None:
    made = example(retrain=(), batches=15)
    assert any("too few for intervals" in note for note in sheets((made,))[0].notes)
    assert all(row[2] == "" for row in sheets((made,))[0].rows)


def test_the_json_has_the_keys_that_scripts_rely_on() -> None:
    told = json.loads(json.dumps(as_json(example("a"), example("b", retrain=WEEKLY)), allow_nan=False))
    assert sorted(told) == sorted(KEYS.split())
    assert sorted(told["summary"]) == sorted(FIGURES.split())
    assert sorted(told["summary"]["difference"]) == ["high", "low", "value"]
    assert len(told["decisions"]) == len(example("a").steps)
    assert told["decisions"][0]["state_hash_before"] == "0" * 64
    assert told["retrainings"][2]["verdict"] == "refused"
    assert told["summary"]["reaction_seconds"]["half"] == timedelta(days=3, hours=2).total_seconds()


def test_control_characters_of_a_stranger_are_spelt_out_in_every_title() -> None:
    bad = hostile("a\x1b[2Jb\u202e")
    for sheet in sheets((bad, bad)):
        assert "\x1b" not in "".join((sheet.title, *sheet.columns, *sheet.notes))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (float("nan"), "-"), (0, "0"), (0.1234, "0.123"), (12.34, "12.3"), (1234.5, "1,234"), (-3.0, "-3")],
)
def test_a_figure_has_the_digits_that_can_matter(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
        (timedelta(minutes=90), "1 h 30 min"),
        (timedelta(seconds=61), "1 min 1 s"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(duration: timedelta, text: str) -> None:
    assert span(duration) == text
