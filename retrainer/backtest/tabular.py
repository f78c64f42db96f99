"""Rows of a table as the numbers that a model takes: categories by codes, and what was never seen as unknown."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrainer.backtest.task import Task, known_labels
from retrainer.drift import values
from retrainer.ports import PermanentError

CATEGORIES_MAX = 250
"""The most frequent ones get a code; scikit-learn's histograms have room for 255."""

ONE_HOT_MAX = 50
"""As columns of their own only so many."""


class Estimator(Protocol):
    """A scikit-learn estimator."""

    def fit(self, given: Any, labels: Any, **parameters: Any) -> Any: ...

    def predict(self, given: Any) -> Any: ...


def labels_of(table: pa.Table, task: Task) -> tuple[pa.Table, NDArray[Any]]:
    """The rows that have a label, and the labels. Raises PermanentError where none has."""
    known, labels = known_labels(table, task)
    if not known.any():
        raise PermanentError(f"no row has a label in {task.label!r}")
    return (table if known.all() else table.filter(pa.array(known))), labels[known]


@dataclass(frozen=True, slots=True)
class _Column:
    """How a column becomes numbers: by `codes` if it is categorical, else moved by `middle` and scaled by `spread`."""

    name: str
    codes: dict[str, int] | None
    middle: float = 0.0
    spread: float = 1.0


@dataclass(frozen=True, slots=True)
class Encoding:
    """What was seen in training decides; a table without one of the columns has nulls there."""

    columns: tuple[_Column, ...]
    one_hot: bool

    @classmethod
    def of(cls, table: pa.Table, task: Task, *, one_hot: bool) -> "Encoding":
        """`one_hot`: a column for each category, numbers standardised and nulls filled, for models that need it so."""
        left_out = {task.label, task.timestamp, *task.ignored}
        names = [n for n in (task.features or table.column_names) if n not in left_out and n in table.column_names]
        columns = [_learned(table, name, task, one_hot) for name in names]
        kept = tuple(c for c in columns if c is not None)
        if not kept:
            raise PermanentError(f"there is no feature to learn from; there are {', '.join(table.column_names)}")
        return cls(kept, one_hot)

    @property
    def is_categorical(self) -> list[bool]:
        """Of each encoded column; meant for codes."""
        return [c.codes is not None for c in self.columns]

    def encoded(self, table: pa.Table) -> NDArray[np.float64]:
        """One row of numbers a row; an unknown category and a null are NaN, or zeros where `one_hot`."""
        parts = [self._encoded(table, column) for column in self.columns]
        return np.column_stack(parts)

    def _encoded(self, table: pa.Table, column: _Column) -> NDArray[np.float64]:
        if column.codes is None:
            given = _numbers(table, column.name)
            return np.where(np.isfinite(given), (given - column.middle) / column.spread, 0.0) if self.one_hot else given
        codes = _codes(table, column)
        if not self.one_hot:
            return np.where(codes < 0, np.nan, codes)
        found: NDArray[np.float64] = (codes[:, None] == np.arange(len(column.codes))).astype(np.float64)
        return found


def _learned(table: pa.Table, name: str, task: Task, one_hot: bool) -> _Column | None:
    held = table.column(name).type
    is_number = pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_boolean(held)
    if name in task.numerical or (name not in task.categorical and (is_number or pa.types.is_decimal(held))):
        found = _numbers(table, name)
        known = found[np.isfinite(found)]
        if not one_hot or not len(known):
            return _Column(name, None)
        return _Column(name, None, float(known.mean()), float(known.std()) or 1.0)
    if pa.types.is_nested(held) or pa.types.is_temporal(held):
        return None
    words = values.texts(values.canonical(table.column(name), "text"))
    seen, count = np.unique([w for w in words if w is not None], return_counts=True)
    most = seen[np.lexsort((seen, -count))][: ONE_HOT_MAX if one_hot else CATEGORIES_MAX]
    return _Column(name, {str(word): code for code, word in enumerate(most)})


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    try:
        return values.numbers(values.canonical(table.column(name), "number"))
    except values.WrongTypeError as error:
        raise PermanentError(f"column {name!r} {error}") from error


def _codes(table: pa.Table, column: _Column) -> NDArray[np.float64]:
    if column.name not in table.column_names:
        return np.full(table.num_rows, -1.0)
    assert column.codes is not None
    held = values.canonical(table.column(column.name), "text").combine_chunks()
    held = held.chunk(0) if isinstance(held, pa.ChunkedArray) and held.num_chunks else held
    if not len(held):
        return np.zeros(0)
    codes = np.array([*(column.codes.get(w, -1) for w in held.dictionary.to_pylist()), -1], dtype=np.float64)
    found: NDArray[np.float64] = codes[pc.fill_null(held.indices, len(codes) - 1).to_numpy(zero_copy_only=False)]
    return found
