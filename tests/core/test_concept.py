"""The promises of concept: few false alarms, a rise found soon, and a tiny one never."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from retrainer.core.concept import LABELS, Detector, Sums, judge
from retrainer.core.evidence import BatchLoss

ERROR, RISEN = 0.2, 0.3


def batches(rows: Sequence[float], size: int = 50) -> tuple[BatchLoss, ...]:
    """Rows of losses, in batches of this size."""
    return tuple(batch(rows[i : i + size], f"{i}") for i in range(0, len(rows), size))


def batch(rows: Sequence[float], key: str = "a") -> BatchLoss:
    mean = sum(rows) / len(rows)
    variance = sum((x - mean) ** 2 for x in rows) / len(rows)
    return BatchLoss(key=key, version="1", labels=len(rows), mean=mean, variance=variance)


def errors(rng: np.random.Generator, labels: int, rate: float) -> list[float]:
    return list((rng.random(labels) < rate).astype(float))


def found_after(rows: Iterable[float]) -> int | None:
    """How many labels the detector takes until it is due, given them one by one."""
    detector = Detector()
    for n, loss in enumerate(rows, 1):
        detector.add(1, loss)
        if detector.due:
            return n
    return None


def test_without_losses_there_is_nothing_to_say() -> None:
    found = judge(())
    assert (found.due, found.value, found.threshold) == (False, 0.0, LABELS / 0.01)
    assert found.why == "0 of 1000 labels for a baseline"


def test_a_rise_of_the_error_rate_is_found_and_told() -> None:
    rng = np.random.default_rng(1)
    steady = errors(rng, 5000, ERROR)
    assert not judge(batches(steady)).due
    found = judge(batches(steady + errors(rng, 1000, RISEN)))
    assert found.due
    assert found.value >= found.threshold
    assert "loss 0.19" in found.why or "loss 0.20" in found.why
    assert "evidence of a rise" in found.why


def test_label_by_label_a_rise_is_found_within_a_few_hundred() -> None:
    waited = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = found_after(errors(rng, 5000, ERROR) + errors(rng, 2000, RISEN))
        assert n is not None
        waited.append(n - 5000)
    assert sorted(waited)[0] > 0
    assert sorted(waited)[10] < 400


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.5])
def test_a_steady_error_rate_is_no_rise(rate: float) -> None:
    alarms = sum(judge(batches(errors(np.random.default_rng(seed), LABELS, rate))).due for seed in range(40))
    assert alarms == 0


def test_a_rise_within_the_margin_is_put_up_with_however_long_it_lasts() -> None:
    rng = np.random.default_rng(3)
    rows = errors(rng, 10_000, ERROR) + errors(rng, 50_000, 1.1 * ERROR)
    assert not judge(batches(rows, 500)).due
    assert judge(batches(rows, 500), margin=0.02).due


def test_a_loss_that_falls_is_no_rise() -> None:
    rng = np.random.default_rng(4)
    assert not judge(batches(errors(rng, 5000, 0.5) + errors(rng, 5000, 0.1))).due


def test_few_errors_make_a_baseline_that_is_not_trusted_far() -> None:
    rng = np.random.default_rng(5)
    rows = errors(rng, 20_000, 0.002)
    assert not judge(batches(rows)).due
    assert judge(batches(rows + errors(rng, 2000, 0.05))).due


def test_a_model_that_never_erred_may_yet_do_so() -> None:
    assert not judge(batches([0.0] * 20_000)).due
    assert judge(batches([0.0] * 20_000 + [1.0] * 100)).due


def test_a_model_that_always_errs_cannot_get_worse() -> None:
    assert not judge(batches([1.0] * 20_000)).due


@pytest.mark.parametrize("shape", [0.5, 2.0, 50.0])
def test_a_rise_of_losses_of_any_shape_is_found_and_a_steady_one_is_none(shape: float) -> None:
    rng = np.random.default_rng(6)
    steady = list(rng.gamma(shape, ERROR / shape, 10_000))
    assert not judge(batches(steady)).due
    assert judge(batches(steady + list(rng.gamma(shape, RISEN / shape, 1500)))).due


def test_one_outlier_is_no_rise() -> None:
    rng = np.random.default_rng(7)
    steady = list(rng.exponential(ERROR, 10_000))
    steady[7000] = 1e6
    assert not judge(batches(steady)).due


@pytest.mark.parametrize("size", [50, 1000, 6000])
@pytest.mark.parametrize("huge", [3e3, 1e9])
def test_an_outlier_in_the_baseline_hides_no_rise(size: int, huge: float) -> None:
    rng = np.random.default_rng(12)
    steady = list(rng.exponential(1.0, 18_000))
    steady[300] = huge
    assert not judge(batches(steady, size)).due
    found = judge(batches(steady + list(rng.exponential(2.0, 6000)), size))
    assert found.due
    assert f"but {size} beside an outlier" in found.why


def test_a_loss_that_is_seldom_anything_keeps_all_of_its_baseline() -> None:
    rng = np.random.default_rng(13)
    steady = list(np.where(rng.random(20_000) < 0.02, rng.lognormal(size=20_000), 0.0))
    found = judge(batches(steady))
    assert not found.due
    assert "outlier" not in found.why


def test_a_loss_that_never_varies_rises_by_more_than_the_margin_or_not_at_all() -> None:
    assert not judge(batches([3.0] * 5000 + [3.3] * 5000)).due
    assert judge(batches([3.0] * 5000 + [6.0] * 500)).due


def test_a_loss_first_seen_after_the_baseline_gives_it_its_scale() -> None:
    assert not judge(batches([0.0] * 10_000 + [7.0] * 50)).due
    rng = np.random.default_rng(8)
    later = list(rng.exponential(1.0, 10_000))
    assert not judge(batches([0.0] * 1000 + later[:1])).due
    assert judge(batches([0.0] * 1000 + later)).due


def test_the_baseline_freezes_so_a_slow_rise_adds_up() -> None:
    rng = np.random.default_rng(9)
    detector = Detector(labels_min=500)
    for rows in batches(errors(rng, 3000, ERROR)):
        detector.add(rows.labels, rows.mean, rows.variance)
    assert detector.frozen
    frozen = detector.baseline.labels
    for step in range(100):
        rows = batch(errors(rng, 200, ERROR + 0.002 * step))
        detector.add(rows.labels, rows.mean, rows.variance)
    assert detector.baseline.labels == frozen
    assert detector.due


def test_a_loss_that_is_well_again_is_soon_known_to_be() -> None:
    rng = np.random.default_rng(10)
    rows = errors(rng, 5000, ERROR) + errors(rng, 20_000, 0.5)
    assert judge(batches(rows)).due
    assert not judge(batches(rows + errors(rng, 1000, ERROR))).due


def test_batches_that_differ_from_one_another_are_allowed_for() -> None:
    def day(rng: np.random.Generator) -> list[float]:
        return errors(rng, 200, rng.uniform(0.1, 0.3))

    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        alarms += judge(batches([x for _ in range(50) for x in day(rng)], 200)).due
    assert alarms <= 4
    counted = Sums()
    for rows in batches([x for _ in range(50) for x in day(np.random.default_rng(1))], 200):
        counted.add(rows.labels, rows.mean, rows.variance)
    assert counted.inflation == 1.0, "the same day again and again differs by nothing"


@pytest.mark.parametrize("huge", [1e150, 1e200])
def test_losses_past_all_reason_are_no_rise_and_no_crash(huge: float) -> None:
    usual = BatchLoss(key="a", version="1", labels=1000, mean=1.0, variance=1.0)
    absurd = BatchLoss(key="b", version="1", labels=10_000_000, mean=huge, variance=1e300)
    for losses in ([usual] * 3 + [absurd] * 3, [absurd] * 3 + [usual] * 3):
        found = judge(losses)
        assert not found.due
        assert math.isfinite(found.value)


def test_losses_too_small_to_reckon_with_are_none() -> None:
    assert not judge(batches([1e-170] * 5000 + [1e-160] * 5000)).due


def test_fewer_false_alarms_ask_for_more_evidence() -> None:
    assert judge((), false_alarms=0.001).threshold == 10 * judge((), false_alarms=0.01).threshold


def test_labels_one_by_one_and_in_batches_make_the_same_baseline() -> None:
    rows = list(np.random.default_rng(11).exponential(1.0, 1000))
    one, many = Detector(), Detector()
    for loss in rows:
        one.add(1, loss)
    for found in batches(rows):
        many.add(found.labels, found.mean, found.variance)
    assert one.baseline.mean == pytest.approx(many.baseline.mean)
    assert one.baseline.variance == pytest.approx(many.baseline.variance)


@pytest.mark.parametrize("x", [k / 10 for k in range(-100, 101)])
def test_what_the_bound_for_any_shape_rests_on_holds(x: float) -> None:
    assert math.exp(x - x * x / 6) <= (1 + x + x * x / 3) * (1 + 1e-12)
