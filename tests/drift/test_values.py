"""One form for values that writers spell differently."""

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrainer.drift import values
from retrainer.drift.values import Kind, WrongTypeError, canonical


def column(array: Any) -> Any:
    return pa.chunked_array([array])


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([3, None]),
        pa.array([3.0, float("nan")]),
        pa.array(["3", None]),
        pa.array(["3", None]).dictionary_encode(),
        pa.array([decimal.Decimal("3.00"), None]),
        pa.array([3, None], pa.float32()),
    ],
)
def test_an_id_is_the_same_however_it_is_stored(ids: Any) -> None:
    assert values.texts(canonical(column(ids), "text")).tolist() == ["3", None]


def test_large_and_broken_numbers_keep_their_digits() -> None:
    written = canonical(column(pa.array([123456789012345.0, 0.1, float("inf")])), "text")
    assert values.texts(written).tolist() == ["123456789012345", "0.1", None]


def test_texts_of_several_batches_are_one_column() -> None:
    parts = pa.chunked_array([pa.array(["a"]).dictionary_encode(), pa.array(["b", None]).dictionary_encode()])
    assert values.texts(parts).tolist() == ["a", "b", None]


def test_numbers_have_nan_for_null_and_booleans_are_numbers() -> None:
    found = values.numbers(canonical(column(pa.array([True, None])), "number"))
    assert np.array_equal(found, [1.0, np.nan], equal_nan=True)
    assert np.isnan(values.numbers(canonical(column(pa.nulls(2)), "number"))).all()


def test_lists_hold_texts_and_may_be_null() -> None:
    found = values.lists(canonical(column(pa.array([[1, 2], None, [], [3, None]])), "list"))
    assert found == [["1", "2"], None, [], ["3", None]]


@pytest.mark.parametrize(
    ("array", "kind", "why"),
    [
        (pa.array(["a"]), "number", "holds string, not numbers"),
        (pa.array([datetime.datetime(2020, 1, 1)]), "number", "not numbers"),  # noqa: DTZ001
        (pa.array([1]), "list", "holds int64, not lists"),
        (pa.array([[[1]]]), "list", "not lists"),
        (pa.array([b"a"]), "text", "holds binary, not texts or numbers"),
    ],
)
def test_a_column_of_another_kind_says_what_it_holds(array: Any, kind: Kind, why: str) -> None:
    with pytest.raises(WrongTypeError, match=why):
        canonical(column(array), kind)
