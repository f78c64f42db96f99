from __future__ import annotations

import numpy as np
import pytest

from trainer.bootstrap import SAMPLES, UNITS_MAX, Scores, intervals, paired

NAMES = ("one", "two")


def scores(units: int, seed: int = 0, mean: float = 0.5) -> Scores:
    draws = np.random.default_rng(seed)
    count_U = draws.integers(1, 6, units).astype(np.float64)
    return Scores(draws.normal(mean, 0.2, (units, 2)) * count_U[:, None], count_U)


def moved(given: Scores, by: float, spread: float = 0.0, seed: int = 9) -> Scores:
    noise_UM = np.random.default_rng(seed).normal(by, spread, given.total_UM.shape)
    return Scores(given.total_UM + noise_UM * given.count_U[:, None], given.count_U)


def test_an_interval_holds_its_value_and_is_as_wide_as_the_standard_error_says() -> None:
    draws = np.random.default_rng(1)
    value_U = draws.normal(0.3, 0.1, 2000)
    one = intervals(Scores(value_U[:, None], np.ones(2000)), ("one",))["one"]
    error = value_U.std() / 2000**0.5
    assert one["value"] == pytest.approx(value_U.mean())
    assert one["standard_deviation"] == pytest.approx(error, rel=0.08)
    assert (one["low"], one["high"]) == pytest.approx(
        (one["value"] - 1.96 * error, one["value"] + 1.96 * error), rel=0.01
    )


def test_more_units_than_are_resampled_singly_give_the_same_width() -> None:
    draws = np.random.default_rng(2)
    value_U = draws.normal(0.3, 0.1, UNITS_MAX * 3 + 7)
    one = intervals(Scores(value_U[:, None], np.ones(len(value_U))), ("one",))["one"]
    assert one["standard_deviation"] == pytest.approx(value_U.std() / len(value_U) ** 0.5, rel=0.08)


def test_a_paired_comparison_sees_what_two_intervals_hide() -> None:
    champion = scores(300)
    challenger = moved(champion, by=0.01, spread=0.02)
    wide = intervals(champion, NAMES)["one"]
    found = paired(challenger, champion, NAMES)["one"]
    assert wide["low"] < intervals(challenger, NAMES)["one"]["value"] < wide["high"]
    assert found["low"] > 0
    assert found["probability_better"] > 0.999


def test_ninety_five_of_a_hundred_intervals_of_a_difference_hold_the_true_one() -> None:
    held = 0
    for seed in range(100):
        champion = scores(80, seed)
        found = paired(moved(champion, 0.02, 0.1, 1000 + seed), champion, NAMES, seed)["one"]
        held += found["low"] <= 0.02 <= found["high"]
    assert 90 <= held <= 99


def test_the_same_model_is_better_in_half_of_the_resamplings() -> None:
    found = paired(scores(50), scores(50), NAMES)["two"]
    assert (found["difference"], found["low"], found["high"], found["probability_better"]) == (0, 0, 0, 0.5)


def test_the_resampled_differences_are_all_there_in_order() -> None:
    champion = scores(60)
    found = paired(moved(champion, 0.0, 0.1), champion, NAMES)["one"]
    assert len(found["resampled"]) == SAMPLES
    assert found["resampled"] == sorted(found["resampled"])
    share = sum(one > 0 for one in found["resampled"]) / SAMPLES
    assert found["probability_better"] == pytest.approx(share)


def test_models_that_answered_different_cases_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different cases"):
        paired(scores(50), scores(51), NAMES)


def test_without_a_case_nothing_is_better() -> None:
    nothing = Scores(np.zeros((0, 2)), np.zeros(0))
    assert intervals(nothing, NAMES)["one"] == {"value": 0, "low": 0, "high": 0, "standard_deviation": 0}
    found = paired(nothing, nothing, NAMES)["one"]
    assert (found["difference"], found["probability_better"]) == (0, 0.5)


@pytest.mark.parametrize("units", [1, 2, 300])
def test_the_same_seed_gives_the_same_interval_and_another_does_not_move_the_value(units: int) -> None:
    first, again, other = (intervals(scores(units), NAMES, seed)["one"] for seed in (0, 0, 1))
    assert first == again
    assert first["value"] == other["value"]
