"""The gate's promise: no worse model is promoted, and every no says why."""

import math

import pytest

from retrainer.core.gate import Rule, judge

RULE = Rule(metric="ndcg", min_gain=0.01, baselines=("popularity",))
BASELINES = {"popularity": {"ndcg": 0.05}}


def test_a_challenger_that_gains_enough_is_accepted_with_its_numbers() -> None:
    verdict = judge({"ndcg": 0.12}, {"ndcg": 0.10}, BASELINES, RULE)
    assert verdict.accepted
    assert verdict.gain == pytest.approx(0.02)
    assert verdict.reason == (
        "ndcg 0.1200 against the champion's 0.1000: a gain of +0.0200 meets the least gain of 0.0100."
    )


def test_a_challenger_that_gains_too_little_is_refused() -> None:
    verdict = judge({"ndcg": 0.105}, {"ndcg": 0.10}, BASELINES, RULE)
    assert not verdict.accepted
    assert "misses the least gain of 0.0100" in verdict.reason


def test_a_gain_that_is_exact_in_decimals_is_not_lost_to_binary_rounding() -> None:
    assert judge({"ndcg": 0.11}, {"ndcg": 0.10}, BASELINES, RULE).accepted


def test_an_equal_challenger_passes_a_least_gain_of_zero() -> None:
    assert judge({"ndcg": 0.1}, {"ndcg": 0.1}, {}, Rule(metric="ndcg")).accepted


def test_a_worse_challenger_never_passes_a_least_gain_of_zero() -> None:
    assert not judge({"ndcg": 0.0999999}, {"ndcg": 0.1}, {}, Rule(metric="ndcg")).accepted


def test_without_a_champion_the_baselines_alone_decide() -> None:
    verdict = judge({"ndcg": 0.06}, None, BASELINES, RULE)
    assert verdict.accepted
    assert verdict.gain is None
    assert verdict.reason == "ndcg 0.0600 and beats popularity; there is no champion yet."


def test_without_champion_and_baselines_any_number_will_do() -> None:
    verdict = judge({"ndcg": 0.0}, None, {}, Rule(metric="ndcg"))
    assert verdict.accepted
    assert verdict.reason == "ndcg 0.0000; there is no champion yet."


def test_a_baseline_that_is_equalled_is_not_beaten_and_the_gain_is_still_told() -> None:
    verdict = judge({"ndcg": 0.05}, {"ndcg": 0.01}, BASELINES, RULE)
    assert not verdict.accepted
    assert verdict.gain == pytest.approx(0.04)
    assert verdict.reason == "ndcg 0.0500 does not beat the baseline popularity at 0.0500."


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_challenger_without_a_finite_number_is_refused(value: float | None) -> None:
    metrics = {} if value is None else {"ndcg": value}
    verdict = judge(metrics, {"ndcg": 0.1}, BASELINES, RULE)
    assert not verdict.accepted
    assert verdict.reason == "The challenger has no finite ndcg."


def test_a_champion_without_a_finite_number_refuses_rather_than_waves_through() -> None:
    verdict = judge({"ndcg": 0.2}, {"ndcg": math.nan}, BASELINES, RULE)
    assert not verdict.accepted
    assert verdict.reason == "The champion has no finite ndcg to compare with."


def test_a_baseline_that_was_not_measured_refuses() -> None:
    verdict = judge({"ndcg": 0.2}, None, {}, RULE)
    assert not verdict.accepted
    assert verdict.reason == "The baseline popularity has no finite ndcg to compare with."
