"""The domain classifier: sees what no column shows, is certain only of what is there, takes any columns."""

import math

import numpy as np
import pytest
from scipy import stats

from retrainer.drift.classifier import classifier, mann_whitney
from retrainer.drift.sample import Sample
from retrainer.drift.values import Values


def sample(**columns: Values) -> Sample:
    rows = len(next(iter(columns.values())))
    return Sample(np.arange(rows, dtype=np.uint64), columns)


def plain(rng: np.random.Generator, rows: int, shift: float = 0.0) -> Sample:
    words = np.array(["a", "b", "c", None], object)
    return sample(
        x=np.where(rng.random(rows) < 0.1, np.nan, rng.normal(shift, size=rows)),
        y=rng.lognormal(size=rows),
        z=words[rng.integers(0, 4, rows)],
    )


def test_samples_of_one_distribution_are_not_told_apart_more_often_than_promised() -> None:
    rng = np.random.default_rng(0)
    found = np.array([classifier(plain(rng, 300), plain(rng, 200)) for _ in range(60)])
    assert np.mean(found[:, 0]) == pytest.approx(0.5, abs=0.015)
    for level in (0.01, 0.05, 0.2):
        assert np.mean(found[:, 1] <= level) <= level + 3 * math.sqrt(level / 60)


def test_a_shift_is_found_and_the_further_it_goes_the_better() -> None:
    rng = np.random.default_rng(1)
    near, far = (classifier(plain(rng, 2000), plain(rng, 2000, shift)) for shift in (0.5, 2.0))
    assert 0.57 < near[0] < far[0] < 1
    assert max(near[1], far[1]) < 1e-6


def test_columns_that_change_only_together_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    one, other, third = (rng.normal(size=3000) for _ in range(3))
    auc, chance = classifier(sample(x=one, y=one + 0.3 * third), sample(x=other, y=-other + 0.3 * third))
    assert auc > 0.85
    assert chance < 1e-12


def test_a_new_category_nulls_and_a_constant_are_seen() -> None:
    rng = np.random.default_rng(3)
    words = np.array(["a", "b"], object)[rng.integers(0, 2, 1000)]
    new = np.where(rng.random(1000) < 0.4, "new", words).astype(object)
    assert classifier(sample(x=words), sample(x=new))[1] < 1e-6
    holed = words.copy()
    holed[rng.random(1000) < 0.4] = None
    assert classifier(sample(x=words), sample(x=holed))[1] < 1e-6
    ones = np.ones(1000)
    assert classifier(sample(x=ones), sample(x=ones)) == (0.5, 1.0)
    auc, chance = classifier(sample(x=ones), sample(x=ones + 1))
    assert auc == 1.0
    assert chance < 1e-12


def test_an_id_in_every_row_tells_nothing() -> None:
    ids = np.array([f"id{i}" for i in range(4000)], object)
    auc, chance = classifier(sample(x=ids[:2000]), sample(x=ids[2000:]))
    assert auc == pytest.approx(0.5, abs=0.05)
    assert chance > 0.01


@pytest.mark.parametrize(
    "column", [np.full(50, np.nan), np.full(50, None, object), np.full(50, np.inf)], ids=["nan", "null", "infinite"]
)
def test_a_column_without_values_is_no_error(column: Values) -> None:
    assert classifier(sample(x=column), sample(x=column)) == (0.5, 1.0)


def test_too_few_rows_or_no_common_column_tell_nothing() -> None:
    few, many = sample(x=np.zeros(5)), sample(x=np.ones(500))
    assert classifier(few, many) == (0.5, 1.0)
    assert classifier(sample(y=np.zeros(500)), many) == (0.5, 1.0)


def test_the_same_samples_have_the_same_answer() -> None:
    first, second = (plain(np.random.default_rng(seed), 300) for seed in (4, 5))
    assert classifier(first, second) == classifier(first, second)


@pytest.mark.parametrize("values", [3, 1000])
def test_mann_whitney_is_that_of_scipy(values: int) -> None:
    rng = np.random.default_rng(6)
    scores, is_new = rng.integers(0, values, 500).astype(float), rng.random(500) < 0.3
    scores[is_new] += 0.1 * values
    auc, chance = mann_whitney(scores, is_new)
    told = stats.mannwhitneyu(
        scores[is_new], scores[~is_new], alternative="greater", method="asymptotic", use_continuity=False
    )
    assert auc == pytest.approx(told.statistic / (is_new.sum() * (~is_new).sum()))
    assert chance == pytest.approx(told.pvalue)
