"""The metric that ours and the peers' lists are held to, and the table that is made of it."""

import math

import numpy as np
import pytest

from bench.trainer import __main__ as told
from bench.trainer.measured import Row, next_ndcg, set_ndcg
from trainer.bootstrap import Scores


def test_the_set_metric_is_that_of_the_published_figures() -> None:
    """By hand, as `ndcg_at_k` of microsoft/recommenders has it: binary gains, an ideal of min(k, wanted) hits."""
    found = [np.array([5, 1, 7]), np.array([9, 8, 7])]
    wanted = [np.array([1, 7, 3, 4]), np.array([9])]
    first = (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3) + 1 / math.log2(4) + 1 / math.log2(5))
    assert set_ndcg(found, wanted) == pytest.approx((first + 1.0) / 2)
    assert set_ndcg(found, wanted, cutoff=1) == pytest.approx(0.5)


def test_the_next_items_metric_is_one_over_the_logarithm_of_its_rank() -> None:
    assert next_ndcg([np.array([4, 2, 3]), np.array([4, 2, 3])], [2, 9]) == pytest.approx(0.5 / math.log2(3))


def test_a_list_that_is_filled_up_with_nothing_is_a_short_list() -> None:
    assert set_ndcg([np.array([3, -1, -1])], [np.array([3, 4])]) == set_ndcg([np.array([3])], [np.array([3, 4])])


def test_ours_is_told_against_the_best_peer_of_the_same_metric() -> None:
    def row(model: str, value: float, seconds: float, note: str = "", metric: str = "nDCG@10") -> Row:
        return Row(task="t", model=model, metric=metric, values=[value, value], cpu_seconds=[seconds], note=note)

    rows = [
        row("ours", 0.5, 1.0),
        row("a", 0.4, 4.0, "peer; a 1.0"),
        row("b", 0.2, 0.5, "peer; b 1.0"),
        row("of another metric", 0.9, 1.0, "peer", "accuracy"),
    ]
    lines = told.table(rows).splitlines()
    assert lines[2] == "| **ours** | nDCG@10 | 0.5000 ± 0.0000 | 2 | - | 1.0000 | 1.25 | 0.25 |  |"
    assert lines[3].startswith("| a | nDCG@10 |")


def test_every_part_that_is_there_has_rows() -> None:
    from importlib import import_module
    from importlib.util import find_spec

    there = [part for part in told.PARTS if find_spec(f"bench.trainer.{part}")]
    assert {"sets", "peers"} <= set(there)
    assert all(callable(import_module(f"bench.trainer.{part}").rows) for part in there)


def test_a_row_keeps_the_interval_over_the_users_of_its_first_seed() -> None:
    users = np.random.default_rng(0).random((200, 1))
    row = Row(task="t", model="m", metric="nDCG@10")
    row.add(Scores(users, np.ones(200)))
    row.add(Scores(users / 2, np.ones(200)))
    low, high = row.interval
    assert row.values == pytest.approx([users.mean(), users.mean() / 2])
    assert low < users.mean() < high < users.mean() + 0.1
