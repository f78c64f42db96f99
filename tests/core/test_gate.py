"""The gate's promise: no worse model is promoted, and every no says why."""

import math

import pytest

from retrainer.core.execution import Billing
from retrainer.core.gate import Comparison, Rule, compare, judge

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


# --- how sure the gain is ---

SEEN = Comparison(low=0.005, high=0.0218, better=0.998, enough=0.812, resamplings=1000)


def test_the_verdict_says_by_how_much_and_how_sure() -> None:
    verdict = judge({"ndcg": 0.1134}, {"ndcg": 0.1}, {}, Rule(metric="ndcg", min_gain=0.01), SEEN)
    assert verdict.accepted
    assert verdict.reason == (
        "ndcg 0.1134 against the champion's 0.1000: a gain of +0.0134 (95 % interval +0.0050 to +0.0218, "
        "better in 99.8 % of 1,000 resamplings) meets the least gain of 0.0100."
    )


@pytest.mark.parametrize(("confidence", "accepted"), [(0.8, True), (0.812, True), (0.9, False)])
def test_a_confidence_asks_for_the_gain_in_that_share_of_the_resamplings(confidence: float, accepted: bool) -> None:
    rule = Rule(metric="ndcg", min_gain=0.01, confidence=confidence)
    verdict = judge({"ndcg": 0.1134}, {"ndcg": 0.1}, {}, rule, SEEN)
    assert verdict.accepted is accepted
    said = f"{'meets' if accepted else 'misses'} the least gain of 0.0100 in {100 * confidence:.3g} %"
    assert verdict.reason.endswith(f"{said}: it is exceeded in 81.2 % of them.")


def test_a_confidence_without_a_comparison_refuses_rather_than_waves_through() -> None:
    verdict = judge({"ndcg": 0.2}, {"ndcg": 0.1}, {}, Rule(metric="ndcg", confidence=0.95))
    assert not verdict.accepted
    assert verdict.gain == pytest.approx(0.1)
    assert verdict.reason == (
        "ndcg 0.2000 against the champion's 0.1000: a gain of +0.1000, and the evaluation does not say how sure it is: "
        "against_champion of evaluation.json is needed for a confidence of 95 %."
    )


def test_without_a_champion_a_confidence_asks_for_nothing() -> None:
    assert judge({"ndcg": 0.06}, None, BASELINES, Rule(metric="ndcg", confidence=0.95)).accepted


def test_a_tie_with_the_least_gain_is_half_and_rounding_costs_nothing() -> None:
    resampled = [-0.01, 0.0, 0.02, 0.01 - 1e-15]
    found = compare(low=-0.01, high=0.01, better=0.625, resampled=resampled, min_gain=0.01)
    assert (found.enough, found.resamplings) == (0.375, 4)


def test_an_equal_challenger_is_not_surely_better() -> None:
    found = compare(low=0.0, high=0.0, better=0.5, resampled=[0.0] * 10, min_gain=0.0)
    assert found.enough == found.better
    assert not judge({"ndcg": 0.1}, {"ndcg": 0.1}, {}, Rule(metric="ndcg", confidence=0.95), found).accepted


def test_being_no_worse_by_much_can_be_asked_for() -> None:
    found = compare(low=-0.004, high=0.002, better=0.3, resampled=[-0.004] * 4 + [0.002], min_gain=-0.005)
    rule = Rule(metric="ndcg", min_gain=-0.005, confidence=0.95)
    assert judge({"ndcg": 0.099}, {"ndcg": 0.1}, {}, rule, found).accepted


@pytest.mark.parametrize(("seconds", "billable", "saving"), [(120, 40, 2 / 3), (120, 120, 0.0), (0, 0, 0.0)])
def test_what_spot_has_saved_is_the_share_that_is_not_billed(seconds: float, billable: float, saving: float) -> None:
    assert Billing(seconds=seconds, billable_seconds=billable, interruptions=1).saving == pytest.approx(saving)
