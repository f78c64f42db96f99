"""The rules that people use, as they are played: each fires on an obvious step, none on the labels of another model."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.policies import detectors, figures, matrices
from bench.policies.default import DEFAULT
from bench.policies.detectors import DETECTORS, Evidently, fires
from bench.policies.distance import Distances
from bench.policies.figures import Score
from bench.policies.game import Rule, play
from bench.policies.matrices import Played
from bench.policies.peers import PEERS, Every, OnCost, OnErrors, OnFeatures, OnPerformance, Setting
from bench.policies.streams import own

ROWS, BATCHES, STEP = 100, 30, 15


def a_step(seed: int = 0) -> Played:
    """One error in ten, and from batch STEP on six in ten under every model that has learned from nothing later."""
    random = np.random.default_rng(seed)
    bounds = np.arange(BATCHES + 1) * ROWS
    batch = np.repeat(np.arange(BATCHES), ROWS)
    stale = (np.arange(BATCHES)[:, None] < STEP) & (batch >= STEP)
    errors = random.random((BATCHES, len(batch))) < np.where(stale, 0.6, 0.1)
    features = random.normal(np.where(batch >= STEP, 3.0, 0.0)[:, None], 1.0, (len(batch), 4))
    return Played(
        name="step",
        seed=seed,
        key="step",
        errors=errors,
        bounds=bounds,
        features=features,
        names=("a", "b", "c", "d"),
        categorical=frozenset(),
        game=matrices.game("step", errors, bounds),
    )


def a_setting(tmp_path: Path, price: float = 100.0) -> Setting:
    step = a_step()
    evidently = Evidently(step, tmp_path / "evidently.json")
    return Setting(played=step, delay=0, price=price, evidently=evidently, distances=Distances(step))


def first_after(rule: Rule) -> int:
    return min(t for t in play(a_step().game, rule, 0.0)[1] if t >= STEP)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_each_detector_fires_on_a_step_and_is_quiet_on_a_constant(name: str) -> None:
    assert not fires(DETECTORS[name](), [False] * 300)
    random = np.random.default_rng(0)
    errors = np.r_[random.random(300) < 0.1, random.random(500) < 0.6]
    assert fires(DETECTORS[name](), errors.tolist())


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_each_detector_has_the_model_retrained_soon_after_the_step(name: str) -> None:
    step = a_step()
    assert first_after(OnErrors(step, DETECTORS[name])) <= STEP + 2


def test_triggers_on_features_performance_and_cost_fire_on_the_step() -> None:
    step = a_step()
    distances = Distances(step)
    rules: list[Rule] = [
        OnFeatures(lambda i, t: distances.of(i, t, 1, "mean") > 0.4, 0),
        OnPerformance(step, 0.2, 1),
        OnCost(step, 30.0, "sum"),
    ]
    for rule in rules:
        assert play(step.game, rule, 0.0)[1][0] == STEP


def test_features_are_there_at_once_however_late_the_labels() -> None:
    asked: list[tuple[int, int]] = []

    def verdict(model: int, t: int) -> bool:
        asked.append((model, t))
        return False

    play(a_step().game, OnFeatures(verdict, 5), 0.0, 5)
    assert asked == [(0, t) for t in range(6, BATCHES)]


def test_a_period_is_kept() -> None:
    assert play(a_step().game, Every(10), 0.0)[1] == (10, 20)


def test_evidently_sees_the_step_and_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidently = Evidently(a_step(), tmp_path / "verdicts.json")
    assert evidently.drifted(10, STEP + 1)
    assert not evidently.drifted(10, STEP - 2)
    evidently.save()
    monkeypatch.delattr(detectors, "share")
    assert Evidently(a_step(), tmp_path / "verdicts.json").drifted(10, STEP + 1)


def test_the_kolmogorov_smirnov_test_of_zeros_and_ones_is_scipy_s() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        one, other = (random.random((2, 30)) < random.random((2, 1))).astype(int).tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=RuntimeWarning)
            expected = stats.ks_2samp(one, other)
        found = detectors.kswin.stats.ks_2samp(one, other, method="auto")  # type: ignore[attr-defined]
        assert found == pytest.approx((expected.statistic, expected.pvalue))


def test_a_model_remembers_nothing_from_after_its_training() -> None:
    random = np.random.default_rng(0)
    values, classes = random.integers(0, 5, 60), random.integers(0, 2, 60)
    found = matrices.memory(values, classes, 40)
    prior = classes[:40].mean() * matrices.PRIOR_ROWS
    for row in range(60):
        before = (values == values[row]) & (np.arange(60) < min(row, 40))
        mean = (classes[before].sum() + prior) / (before.sum() + matrices.PRIOR_ROWS)
        assert found[row] == pytest.approx([before.sum(), mean])


def test_a_rule_that_is_tuned_gets_its_best_parameters_for_each_stream_and_price() -> None:
    def score(variant: str, stream: str, ratio: float) -> Score:
        return Score(
            rule="r", variant=variant, stream=stream, seed=0, delay=0, multiple=1.0, ratio=ratio, excess=0.0,
            retrainings=1, needed=1,
        )  # fmt: skip

    found = [score("a", "x", 1.1), score("b", "x", 1.3), score("a", "y", 1.5), score("b", "y", 1.2)]
    assert [(s.stream, s.variant) for s in figures.in_hindsight(found)] == [("x", "a"), ("y", "b")]


def test_no_rule_beats_the_optimum_and_the_table_names_all(tmp_path: Path) -> None:
    rules = [DEFAULT, *(rule for rule in PEERS if "Evidently" not in rule.name)]
    found = list(figures.scores(rules, {1.0: a_setting(tmp_path)}))
    assert min(s.ratio for s in found) >= 1 - 1e-9
    text = figures.tables(rules, figures.in_hindsight(found))
    assert all(f"| {rule.name} |" in text or f"| **{rule.name}** |" in text for rule in rules)


def test_a_csv_of_one_s_own_becomes_a_game(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["day,colour,size,price"]
    lines += [
        f"2024-01-{1 + k // 40:02},{'red' if k % 3 else 'blue'},{k % 7},{random.random():.4f}" for k in range(1200)
    ]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join(lines))
    stream = own(path, "price", "day", 12)
    assert stream.names == ("colour", "size")
    assert stream.categorical == {"colour"}
    once, again = (matrices.played(stream, 3, tmp_path / "cache") for _ in range(2))
    assert once.game.batches == 10
    assert np.array_equal(once.errors, again.errors)
