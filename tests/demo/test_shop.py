"""The shop knows no future, and its figures are the textbook's."""

import io
import lzma
import pickle
import zipfile
from datetime import UTC, datetime, timedelta
from math import log2
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrainer.demo import movielens, shop
from retrainer.demo.movielens import Quarter
from retrainer.ports import ConfigError

NOW = datetime(2004, 1, 1, tzinfo=UTC)


def quarter(name: str, *pairs: tuple[int, int]) -> Quarter:
    rows = {
        "user_id": [user for user, _ in pairs],
        "item_id": [item for _, item in pairs],
        "timestamp": [NOW + timedelta(seconds=n) for n in range(len(pairs))],
    }
    return Quarter(name, pa.table(rows))


def test_a_request_carries_what_the_user_consumed_before_and_nothing_later() -> None:
    world = shop.Shop()
    world.requests(quarter("before", (1, 10), (2, 20)))
    asked = world.requests(quarter("2004Q1", (1, 11), (1, 12), (2, 21)))
    assert [(r.user_id, r.history, r.item_id) for r in asked] == [(1, (10,), 11), (1, (10, 11), 12), (2, (20,), 21)]


def test_a_score_counts_hits_and_discounts_them_by_their_place() -> None:
    requests = shop.Shop().requests(quarter("q", (1, 7), (2, 8), (3, 9)))
    score = shop.Score()
    score.add(shop.ranks(requests, [[7, 1], [1, 8], [1, 2]]))
    assert (score.requests, score.hits) == (3, 2)
    assert score.ndcg == pytest.approx((1 + 1 / log2(3)) / 3)


def test_predictions_and_labels_share_the_request_id() -> None:
    q = quarter("2004Q1", (1, 7), (2, 8), (3, 9))
    requests = shop.Shop().requests(q)
    logged = pq.read_table(io.BytesIO(shop.predictions(requests, [[7], [1], [9]]))).to_pylist()
    rows = pq.read_table(io.BytesIO(shop.batch(q, requests))).to_pylist()
    labels = {row["request_id"]: row["item_id"] for row in rows if row["request_id"]}
    assert {p["request_id"]: labels[p["request_id"]] for p in logged} == {r.id: r.item_id for r in requests}


def test_quarters_come_in_order_after_all_that_was_before() -> None:
    moments = pd.Series(pd.to_datetime(["2003-05-01", "2003-12-31", "2004-01-01", "2004-07-01"], utc=True))
    table = pa.table({"item_id": [1, 2, 3, 4], "batch": movielens.batches(moments, 2004).tolist()})
    found = [(q.name, q.rows.column("item_id").to_pylist()) for q in movielens.split(table)]
    assert found == [("before", [1, 2]), ("2004Q1", [3]), ("2004Q3", [4])]


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1 + 1",))


def test_a_data_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / movielens.WHEEL, "w") as wheel:
        wheel.writestr(movielens.MEMBER, lzma.compress(pickle.dumps(_Bomb())))
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.eval has no place"):
        movielens.load(tmp_path, 2004)


def test_a_missing_download_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make demo"):
        movielens.read(tmp_path, start=2004)
