from __future__ import annotations

import numpy as np

from trainer import ease, evaluate
from trainer.data import in_order
from trainer.ease import EaseHyperparameters
from trainer.popularity import popularity


def random_rows(users: int = 30, items: int = 8, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(3)
    pairs = np.unique(np.stack([draws.integers(0, users, count), draws.integers(0, items, count)], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def test_the_weights_solve_the_constrained_ridge_regression_column_by_column() -> None:
    user_N, item_N = random_rows()
    rows = in_order(user_N, item_N, np.arange(len(user_N)))
    model = ease.train(rows, EaseHyperparameters(count_min=1, regularisation=2.0))
    x_UI = np.zeros((30, 8))
    x_UI[user_N, item_N] = 1
    for target in range(8):  # min |x_t - X b|^2 + 2 |b|^2 with b_t = 0: an ordinary ridge over the other items
        others = np.delete(np.arange(8), target)
        a = x_UI[:, others]
        brute = np.linalg.solve(a.T @ a + 2.0 * np.eye(7), a.T @ x_UI[:, target])
        np.testing.assert_allclose(model.weight_II[others, target], brute, atol=1e-4)
    assert not np.diag(model.weight_II).any()


def test_a_rolling_score_weighs_the_history_by_its_halflife() -> None:
    weight_II = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    popularity_I = np.arange(5, dtype=np.float32)
    model = ease.Ease(np.arange(5), popularity_I, weight_II, halflife=2.0)
    history_T = np.array([3, 1, 4])
    score_PI = model.rolling(history_T, 0)
    np.testing.assert_allclose(score_PI[0], popularity_I)
    want_I = weight_II[4] + weight_II[1] * 0.5**0.5 + weight_II[3] * 0.5
    np.testing.assert_allclose(score_PI[3], want_I, rtol=1e-5)
    for start in (1, 2, 3):
        np.testing.assert_allclose(model.rolling(history_T, start), score_PI[start:], rtol=1e-5)


def test_rare_items_are_dropped_so_that_the_inverse_stays_small() -> None:
    item_N = np.array([1] * 5 + [2] * 4 + [3] * 2 + [4])
    rows = in_order(np.arange(12), item_N, np.arange(12))
    assert ease.train(rows, EaseHyperparameters(count_min=2)).item_I.tolist() == [1, 2, 3]
    assert ease.train(rows, EaseHyperparameters(items_max=2)).item_I.tolist() == [1, 2]
    assert ease.train(rows, EaseHyperparameters(count_min=100)).item_I.tolist() == [1]


def test_it_beats_popularity_where_items_go_together() -> None:
    draws = np.random.default_rng(1)
    group_U = draws.integers(0, 6, 200)  # six tastes of ten items each
    item_UT = np.stack([group * 10 + draws.permutation(10)[:8] for group in group_U])
    rows = in_order(np.repeat(np.arange(200), 8), item_UT.reshape(-1), np.tile(np.arange(8), 200))
    train, holdout = rows.rows(slice(0, 1200)), rows.rows(slice(1200, None))
    users = evaluate.cases(train, holdout)
    ndcg = [
        evaluate.measure(ranker, users)["ndcg_at_10"]["value"]
        for ranker in (ease.train(train, EaseHyperparameters()), popularity(train))
    ]
    assert ndcg[0] > 2 * ndcg[1]
