from __future__ import annotations

import math

import numpy as np
import pytest

from trainer import ranking
from trainer.data import Interactions, in_order
from trainer.popularity import Popularity, popularity, recent_popularity


def rows(*triples: tuple[int, int, int]) -> Interactions:
    user_N, item_N, time_N = np.array(triples, dtype=np.int64).T
    return in_order(user_N, item_N, time_N)


def fixed(**score: float) -> Popularity:
    items = sorted(int(name[1:]) for name in score)
    return Popularity(np.array(items), np.array([score[f"i{item}"] for item in items], dtype=np.float32))


RANKER = fixed(i1=9, i2=8, i3=7, i4=6, i5=5)


def test_ndcg_and_hit_rate_of_a_case_worked_by_hand() -> None:
    # User 1 had item 1. Then comes item 3: among 2 3 4 5 it is second. Then item 2: among 2 4 5 it is first.
    cases = ranking.cases_of(rows((1, 1, 0)), rows((1, 3, 10), (1, 2, 20)))
    assert ranking.ranks(RANKER, cases.users[0]).tolist() == [2, 1]
    metrics = ranking.measure(RANKER, cases)
    assert metrics["ndcg_at_10"]["value"] == pytest.approx((1 / math.log2(3) + 1) / 2)
    assert metrics["hit_rate_at_10"]["value"] == 1.0


def test_an_item_consumed_again_is_no_case() -> None:
    cases = ranking.cases_of(rows((1, 1, 0)), rows((1, 1, 10), (1, 2, 20), (1, 2, 30)))
    assert cases.users[0].position_C.tolist() == [2]


def test_a_user_without_history_is_a_case_too() -> None:
    cases = ranking.cases_of(rows((1, 1, 0)), rows((2, 5, 10)))
    assert ranking.ranks(RANKER, cases.users[0]).tolist() == [5]


def test_a_training_row_of_the_holdouts_first_moment_is_no_case() -> None:
    cases = ranking.cases_of(rows((1, 1, 10), (2, 4, 10)), rows((1, 2, 10), (1, 3, 20)))
    assert len(cases) == 2


def test_an_item_the_model_does_not_know_is_a_miss_and_no_part_of_the_history() -> None:
    cases = ranking.cases_of(rows((1, 77, 0)), rows((1, 88, 10), (1, 1, 20)))
    assert ranking.ranks(RANKER, cases.users[0]).tolist() == [0, 1]
    assert ranking.measure(RANKER, cases)["hit_rate_at_10"]["value"] == 0.5


def test_equal_scores_are_ordered_by_item_id() -> None:
    cases = ranking.cases_of(rows((1, 9, 0)), rows((1, 3, 10)))
    assert ranking.ranks(fixed(i1=1, i2=1, i3=1, i4=1), cases.users[0]).tolist() == [3]


def test_a_rank_beyond_ten_counts_nothing() -> None:
    ranker = fixed(**{f"i{item}": -item for item in range(1, 21)})
    ten, eleven = (ranking.cases_of(rows((1, 99, 0)), rows((1, item, 10))) for item in (10, 11))
    assert ranking.measure(ranker, ten)["ndcg_at_10"]["value"] == pytest.approx(1 / math.log2(11))
    assert ranking.measure(ranker, eleven)["ndcg_at_10"]["value"] == 0.0


def test_the_interval_is_over_users_and_holds_the_value() -> None:
    draws = np.random.default_rng(0)
    holdout = rows(
        *[(int(user), int(draws.integers(1, 6)), 10 + n) for n, user in enumerate(draws.integers(0, 50, 200))]
    )
    metric = ranking.measure(RANKER, ranking.cases_of(rows((1, 99, 0)), holdout))["ndcg_at_10"]
    assert metric["low"] < metric["value"] < metric["high"]
    assert metric == ranking.measure(RANKER, ranking.cases_of(rows((1, 99, 0)), holdout))["ndcg_at_10"]


def test_without_cases_every_metric_is_zero() -> None:
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0, "standard_deviation": 0.0}
    assert ranking.measure(RANKER, ranking.Cases([], rows((1, 1, 0)), 0))["ndcg_at_10"] == nothing


def test_recent_popularity_forgets_what_was_popular_long_ago() -> None:
    old = [(user, 1, user) for user in range(90)]
    new = [(user, 2, user) for user in range(100, 110)]
    train = rows(*old, *new)
    assert popularity(train).popularity_I.tolist() == [90, 10]
    recent_I = recent_popularity(train).popularity_I
    assert recent_I[1] > recent_I[0] > 0
