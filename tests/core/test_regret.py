"""The regret's promises: nothing to tune, and no retraining that the losses, the gate and the price do not pay for."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from retrainer.core.evidence import BatchLoss
from retrainer.core.execution import Cycle, Verdict
from retrainer.core.regret import FASTEST, SHARE, Regret, judge

LABELS = 100


def losses(*means: float, labels: int = LABELS) -> tuple[BatchLoss, ...]:
    return tuple(
        BatchLoss(key=f"{n}", version="1", labels=labels, mean=mean, variance=mean * (1 - mean))
        for n, mean in enumerate(means)
    )


def cycle(
    gain: float, *, labels: int = 1000, verdict: Verdict = Verdict.PROMOTED, champion: float = 0.8, rows: int = 10_000
) -> Cycle:
    return Cycle(
        generation=1,
        verdict=verdict,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        labels=labels,
        challenger=champion + gain,
        champion=champion,
        rows=rows,
    )


def batches_until_due(means: Sequence[float], cycles: Sequence[Cycle], price: float) -> int | None:
    return next((n for n in range(1, len(means) + 1) if judge(losses(*means[:n]), cycles, price).due), None)


def test_without_labels_nothing_is_avoidable() -> None:
    assert judge((), (), 10.0) == Regret(avoidable=0.0, price=10.0, due=False, why="no loss since the last retraining")


def test_a_model_that_never_errs_is_never_retrained() -> None:
    assert not judge(losses(*[0.0] * 500), (), 0.001).due


def test_a_free_retraining_is_due_as_soon_as_there_is_a_loss() -> None:
    assert judge(losses(0.1), (), 0.0).due
    assert not judge(losses(0.0), (), 0.0).due


def test_nothing_else_known_a_retraining_is_due_after_ten_prices_of_loss() -> None:
    assert batches_until_due([0.2] * 100, (), price=100.0) == 50  # 50 batches x 100 labels x 0.2 = 1,000 errors


def test_the_phrase_says_what_counts_against_the_price() -> None:
    found = judge(losses(*[0.2] * 5, *[0.3] * 5), (), 20.0)
    assert found.why == (
        "avoidable 41.25 of 20: 31.25 expected of a loss of 250 since the last retraining, and 20% of its rise of 50"
    )
    assert found.due


def test_a_rise_brings_the_retraining_forward() -> None:
    flat = batches_until_due([0.1] * 200, (), price=100.0)
    stepped = batches_until_due([0.1] * 20 + [0.5] * 180, (), price=100.0)
    assert flat == 100
    assert stepped is not None
    assert 20 < stepped <= 32  # before the step has cost five prices, at 40 errors a batch


def test_a_fall_does_not_bring_it_forward_nor_hides_a_later_rise() -> None:
    means = [0.3] * 5 + [0.1] * 20 + [0.6] * 10
    fallen = judge(losses(*means[:25]), (), 1000.0)
    risen = judge(losses(*means), (), 1000.0)
    assert "rise of 0" in fallen.why
    assert "rise of 300" in risen.why


def test_what_the_gate_gained_brings_the_next_retraining_forward_and_what_it_did_not_puts_it_off() -> None:
    flat = [0.2] * 400
    untold = batches_until_due(flat, (), price=50.0)
    fruitful = batches_until_due(flat, [cycle(0.1)] * 5, price=50.0)
    fruitless = batches_until_due(flat, [cycle(0.0)] * 5, price=50.0)
    assert fruitful is not None
    assert untold is not None
    assert fruitless is not None
    assert fruitful < untold < fruitless


def test_a_gain_on_a_few_rows_moves_less_than_one_on_many() -> None:
    flat = losses(*[0.2] * 10)
    certain = judge(flat, [cycle(0.1, rows=10_000)], 50.0).avoidable
    doubtful = judge(flat, [cycle(0.1, rows=10)], 50.0).avoidable
    assert judge(flat, (), 50.0).avoidable < doubtful < certain


def test_a_steady_decay_is_retrained_at_its_best_period_once_the_gate_has_seen_it() -> None:
    """Excess errors per label grow by 0.002 a batch on 0.2: the best period is sqrt(2 price / growth) batches."""
    growth, price, base = 0.002, 200.0, 0.2
    best = math.sqrt(2 * price / (growth * LABELS))
    cycles: list[Cycle] = []
    periods = []
    for _ in range(10):
        period = batches_until_due([base + growth * n for n in range(200)], cycles, price)
        assert period is not None
        cycles.append(cycle(growth * period, labels=period * LABELS, champion=1 - base - growth * period))
        periods.append(period)

    def rate(period: float) -> float:
        return price / period + growth * LABELS * period / 2

    assert all(rate(period) <= 1.15 * rate(best) for period in periods[1:])


def test_the_pace_is_the_mean_of_one_and_of_what_the_gate_measured() -> None:
    """Half of the loss gained after 200 errors, at a price of 10: a pace of 0.5 x 10 / (2 x 0.1^2 x 200) = 1.25."""
    flat = losses(*[0.2] * 5)
    assert judge(flat, [cycle(0.1, rows=10**15)], 10.0).avoidable == pytest.approx(
        (1 + 1.25) / 2 * (0.1 * 100) ** 2 / 10
    )
    assert judge(flat, [cycle(0.2, labels=1, rows=10**15)], 10.0).avoidable == pytest.approx(4 * 10)
    assert judge(flat, [cycle(-0.1, labels=1, rows=10**15)], 10.0).avoidable == pytest.approx(0.04 * 10)


def test_a_gain_as_uncertain_as_one_cycle_differs_from_another_weighs_half() -> None:
    found = judge(losses(*[0.2] * 5), [cycle(0.1, rows=25)], 10.0)
    assert found.avoidable == pytest.approx((1 + 1.25 / 2) / 1.5 * (0.1 * 100) ** 2 / 10)


def test_only_the_last_ten_retrainings_count() -> None:
    flat = losses(*[0.2] * 10)
    assert judge(flat, [cycle(0.1), *[cycle(0.0)] * 10], 50.0) == judge(flat, [cycle(0.0)] * 10, 50.0)
    assert judge(flat, [cycle(0.1), *[cycle(0.0)] * 9], 50.0) != judge(flat, [cycle(0.0)] * 9, 50.0)


def test_a_rise_is_one_above_the_mean_of_the_first_five_batches() -> None:
    assert judge(losses(0.2, 0.2, 0.2, 0.2, 0.3, 0.4), (), 1000.0).why.endswith("its rise of 18")


@pytest.mark.parametrize("verdict", [Verdict.REFUSED, Verdict.REJECTED, Verdict.SUPERSEDED])
def test_a_retraining_that_was_not_promoted_begins_the_count_anew_too(verdict: Verdict) -> None:
    seen = losses(*[0.2] * 60)
    refused = cycle(-0.001, labels=60 * LABELS, verdict=verdict)
    assert judge(seen, (), 100.0).due
    assert judge(seen, [refused], 100.0).avoidable == 0.0
    assert "a loss of 20 since" in judge(losses(*[0.2] * 61), [refused], 100.0).why
    assert "a loss of 1200 since" in judge(seen, [cycle(0.1)], 100.0).why
    assert "a loss of 1200 since" in judge(seen, [refused, cycle(0.1)], 100.0).why


def test_a_rise_that_a_refused_retraining_did_not_mend_is_the_new_baseline() -> None:
    refused = cycle(0.0, labels=20 * LABELS, verdict=Verdict.REFUSED)
    assert "its rise of 0" in judge(losses(*[0.1] * 10, *[0.4] * 30), [refused], 1000.0).why


def test_an_error_metric_counts_as_it_is_and_a_score_as_what_is_missing_to_one() -> None:
    flat = losses(*[0.2] * 10)
    as_score = judge(flat, [cycle(0.1, champion=0.8)], 50.0)
    as_error = judge(flat, [cycle(-0.1, champion=0.2)], 50.0, metric="mae")
    assert as_error.avoidable == pytest.approx(as_score.avoidable)


@pytest.mark.parametrize(
    "unusable",
    [
        replace(cycle(0.1), challenger=None),
        replace(cycle(0.1), champion=None),
        replace(cycle(0.1), rows=None),
        replace(cycle(0.1), rows=0),
        replace(cycle(0.1), labels=0),
        cycle(0.0, champion=1.0),
    ],
)
def test_a_cycle_without_a_comparison_teaches_nothing(unusable: Cycle) -> None:
    flat = losses(*[0.2] * 10)
    assert judge(flat, [unusable], 50.0) == judge(flat, (), 50.0)


def test_a_late_correction_counts_as_if_it_had_always_been_so() -> None:
    first = losses(0.2, 0.2, 0.2)
    corrected = (*first[:1], replace(first[1], mean=0.4, labels=150, variance=0.24), *first[2:])
    assert judge(corrected, (), 50.0).avoidable == pytest.approx((SHARE * 100) ** 2 / 50)


shares = some.floats(0, 1, allow_subnormal=False)
streams = some.lists(shares, min_size=1, max_size=30).map(lambda means: losses(*means))
prices = some.floats(0.01, 1e5)


@given(streams, prices, prices)
def test_a_dearer_retraining_is_never_due_sooner(stream: tuple[BatchLoss, ...], one: float, other: float) -> None:
    if judge(stream, (), max(one, other)).due:
        assert judge(stream, (), min(one, other)).due


gains = some.lists(some.floats(-0.1, 0.1).map(cycle), max_size=5)


@given(streams, gains, prices)
def test_whatever_the_gate_says_five_prices_must_be_lost_or_a_rise_be_seen(
    stream: tuple[BatchLoss, ...], cycles: list[Cycle], price: float
) -> None:
    found = judge(stream, cycles, price)
    lost = sum(batch.labels * batch.mean for batch in stream)
    assert found.avoidable >= 0
    if found.due and found.why.endswith("rise of 0"):
        assert lost >= price / (SHARE * math.sqrt(FASTEST)) * (1 - 1e-9)


@given(streams, gains, prices)
def test_losses_and_price_in_another_currency_lead_to_the_same_decision(
    stream: tuple[BatchLoss, ...], cycles: list[Cycle], price: float
) -> None:
    dearer = tuple(replace(batch, mean=8 * batch.mean, variance=64 * batch.variance) for batch in stream)
    assert judge(dearer, cycles, 8 * price).avoidable == pytest.approx(8 * judge(stream, cycles, price).avoidable)
