"""From two windows' profiles to the evidence on each watched column; from the rows only where these leave doubt."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from retrainer.core.evidence import ALL_COLUMNS, ColumnDrift
from retrainer.core.policy import Column
from retrainer.drift import columns, derived, distances
from retrainer.drift.categories import union
from retrainer.drift.grid import CategoryGrid, Grid
from retrainer.drift.p_value import p_value
from retrainer.drift.profile import Categories, Numbers, Profile
from retrainer.drift.values import Values

EVIDENTLY = "retrainer.adapters.evidently_report"
"""Loaded when it is first asked, which takes seconds."""

ROWS_MAX = 2_000_000
"""Of both windows together: in more rows no column's doubt is settled, and its middle value stands."""

_OURS = frozenset({"missing", "unseen"})
"""Tests that Evidently does not have; `missing` is exact, and doubt never lets `unseen` fire."""

Watched = Mapping[str, Column]
"""Columns by name, each with its test."""

RowsOfBoth = tuple[Values, Values]
"""A column in the reference and in the current window."""

RowsOf = Callable[[str], RowsOfBoth | None]
"""A column's rows, None where they cannot be had."""


def drift(
    watched: Watched, grid: Grid, reference: Profile, current: Profile, rows_of: RowsOf
) -> tuple[ColumnDrift, ...]:
    """The evidence on every column, of an embedding or an image on those derived of it. Both windows have rows."""
    if reference.rows + current.rows > ROWS_MAX:
        rows_of = _nothing
    return tuple(
        _measured(name, column, grid, reference, current, rows_of) for name, column in _tested(watched).items()
    )


def together(reference: Profile, current: Profile, threshold: float) -> ColumnDrift:
    """The evidence on all columns: how well the windows' samples are told apart."""
    classifier = importlib.import_module("retrainer.drift.classifier").classifier
    score, chance = classifier(reference.sample, current.sample)
    return ColumnDrift(
        column=ALL_COLUMNS,
        test="classifier",
        score=score,
        threshold=threshold,
        drifted=score >= threshold,
        p_value=chance,
    )


def _tested(watched: Watched) -> dict[str, Column]:
    """The columns of the grid with their tests: for an embedding or an image those that are derived of it."""
    found = {}
    for name, column in watched.items():
        is_derived = column.kind in ("embedding", "image")
        as_counted = column.model_copy(update={"kind": "numerical"}) if is_derived else column
        found.update(dict.fromkeys(derived.names({name: column.kind}), as_counted))
    return found


def _measured(
    name: str, column: Column, grid: Grid, reference: Profile, current: Profile, rows_of: RowsOf
) -> ColumnDrift:
    held, old, new = grid.columns[name], reference.columns[name], current.columns[name]
    score = distances.score(column, held, old, new)
    value = score.value
    bounds: tuple[float, float] | None = (score.low, score.high)
    if not distances.decided(column, score) and column.test not in _OURS and (rows := rows_of(name)):
        exact = _evidently(column, rows)
        value, bounds = (value, bounds) if exact is None else (exact, None)
    return columns.verdict(
        name,
        column,
        value,
        p_value(old, new),
        bounds=bounds,
        nulls=new.nulls / current.rows,
        reference_nulls=old.nulls / reference.rows,
        unseen=_unseen(held, old, new),
    )


def _evidently(column: Column, rows: RowsOfBoth) -> float | None:
    """Its own score on the rows; None for rows that it cannot take."""
    engine: Any = importlib.import_module(EVIDENTLY)
    try:
        return float(engine.score(column, engine.Windows(*rows)))
    except (ValueError, TypeError, ArithmeticError, LookupError, MemoryError):
        return None


def _unseen(held: object, old: Numbers | Categories, new: Numbers | Categories) -> float:
    """The share of rows known to be in categories that the reference does not have."""
    if not isinstance(held, CategoryGrid) or not isinstance(old, Categories) or not isinstance(new, Categories):
        return 0.0
    return union(held, old, new).unseen[0]


def _nothing(name: str) -> None:
    del name
