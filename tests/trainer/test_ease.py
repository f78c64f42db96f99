from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trainer import ease, ranking
from trainer.data import Interactions, in_order
from trainer.ease import Hyperparameters
from trainer.popularity import popularity


def random_rows(users: int = 30, items: int = 8, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(3)
    pairs = np.unique(np.stack([draws.integers(0, users, count), draws.integers(0, items, count)], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def test_the_weights_solve_the_constrained_ridge_regression_column_by_column() -> None:
    user_N, item_N = random_rows()
    rows = in_order(user_N, item_N, np.arange(len(user_N)))
    model = ease.fit(rows, Hyperparameters(count_min=1, regularisation=2.0))
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
    assert ease.fit(rows, Hyperparameters(count_min=2)).item_I.tolist() == [1, 2, 3]
    assert ease.fit(rows, Hyperparameters(items_max=2)).item_I.tolist() == [1, 2]
    assert ease.fit(rows, Hyperparameters(count_min=100)).item_I.tolist() == [1]


def test_it_beats_popularity_where_items_go_together() -> None:
    draws = np.random.default_rng(1)
    group_U = draws.integers(0, 6, 200)  # six tastes of ten items each
    item_UT = np.stack([group * 10 + draws.permutation(10)[:8] for group in group_U])
    rows = in_order(np.repeat(np.arange(200), 8), item_UT.reshape(-1), np.tile(np.arange(8), 200))
    train, holdout = rows.rows(slice(0, 1200)), rows.rows(slice(1200, None))
    users = ranking.cases_of(train, holdout)
    ndcg = [
        ranking.measure(ranker, users)["ndcg_at_10"]["value"]
        for ranker in (ease.fit(train, Hyperparameters()), popularity(train))
    ]
    assert ndcg[0] > 2 * ndcg[1]


def weights(rows: Interactions, **settings: Any) -> np.ndarray:
    return ease.fit(rows, replace(Hyperparameters(count_min=1, regularisation=2.0), **settings)).weight_II


def test_a_gram_matrix_of_full_rank_gives_the_same_weights_without_an_inverse() -> None:
    gram_II = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    gram_II = gram_II.T @ gram_II
    np.testing.assert_allclose(ease.low_rank(gram_II.copy(), 12, 3.0), ease.closed_form(gram_II, 3.0), atol=1e-4)


def test_a_low_rank_gives_the_weights_of_the_gram_matrix_best_approximation() -> None:
    x_UI = np.random.default_rng(1).normal(size=(60, 30)).astype(np.float32) * np.linspace(3, 0.1, 30, dtype=np.float32)
    w_I, v_II = np.linalg.eigh(x_UI.T @ x_UI)
    best_II = (v_II[:, -5:] * w_I[-5:]) @ v_II[:, -5:].T
    np.testing.assert_allclose(ease.low_rank(x_UI.T @ x_UI, 5, 3.0), ease.closed_form(best_II, 3.0), atol=1e-3)


def test_the_weights_of_normalised_users_and_items_are_those_of_the_scaled_matrix() -> None:
    user_N, item_N = random_rows()
    rows = in_order(user_N, item_N, np.arange(len(user_N)))
    x_UI = np.zeros((30, 8))
    x_UI[user_N, item_N] = 1
    scaled_UI = x_UI * np.maximum(x_UI.sum(axis=1, keepdims=True), 1) ** -0.375
    count_I = (scaled_UI**2).sum(axis=0)
    scaled_UI = scaled_UI * count_I**-0.25
    gram_II = scaled_UI.T @ scaled_UI
    factor_I = count_I**-0.25 * np.sqrt(count_I.sum() / (count_I**0.5).sum())
    want_II = ease.closed_form(gram_II * len(user_N) / np.trace(gram_II), 2.0) * factor_I[:, None]
    got_II = weights(rows, user_exponent=0.75, item_exponent=0.25)
    np.testing.assert_allclose(got_II, want_II, rtol=1e-3, atol=1e-5)


def test_with_a_user_exponent_of_one_a_user_of_many_items_says_no_more_than_one_of_few() -> None:
    many = [(0, item) for item in range(2, 10)] + [(0, 0)]
    few = [(user, item) for user in range(1, 4) for item in (0, 1)]
    user_N, item_N = np.array(many + few).T
    rows = in_order(user_N, item_N, np.arange(len(user_N)))
    plain_II, even_II = weights(rows), weights(rows, user_exponent=1.0)
    assert even_II[0, 2] / even_II[0, 1] < plain_II[0, 2] / plain_II[0, 1]


def test_with_an_item_exponent_a_rare_companion_comes_before_the_item_that_everyone_has() -> None:
    pairs = [(user, 0) for user in range(20)] + [(user, item) for user in range(8) for item in (1, 2)]
    user_N, item_N = np.array(pairs).T
    rows = in_order(user_N, item_N, np.arange(len(user_N)))
    plain_II, fair_II = weights(rows), weights(rows, item_exponent=0.5)
    assert fair_II[1, 0] / fair_II[1, 2] < plain_II[1, 0] / plain_II[1, 2]


def test_an_item_had_twice_by_a_user_counts_once() -> None:
    user_N, item_N = random_rows()
    once, twice = (in_order(np.tile(user_N, n), np.tile(item_N, n), np.arange(n * len(user_N))) for n in (1, 2))
    np.testing.assert_allclose(weights(twice), weights(once), rtol=1e-5)


def test_what_is_stored_scores_as_what_was_fitted() -> None:
    user_N, item_N = random_rows()
    rows = in_order(user_N, item_N, np.arange(len(user_N)))
    p = Hyperparameters(count_min=1, neighbours=3, rank=4, user_exponent=0.5, item_exponent=0.2)
    model = ease.fit(rows, p)
    loaded = ease.load(ease.tensors_of(model, p.neighbours), {"family": "ease", "halflife": p.halflife})
    history_T = np.array([3, 1, 4])
    np.testing.assert_array_equal(loaded.rolling(history_T, 0), model.rolling(history_T, 0))
