"""The report as a document of plain values: which columns drifted, how far, since when, and what could not be used.

It is stored as JSON beside the page, and is the page's only source. Its form is what the types below say; whoever reads
it looks at `version` first, which is raised when a field changes its meaning or goes. New fields may come at any time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypedDict

from retrainer.core.evidence import ALL_COLUMNS, ColumnDrift, Drifting, Evidence, Performance
from retrainer.core.policy.data import P_VALUES
from retrainer.core.window import Batch
from retrainer.drift.grid import Grid
from retrainer.drift.profile import Profile
from retrainer.report.shapes import Shape, shape

VERSION = 1
DRAWN_MAX = 50
"""Columns with a shape: those furthest past their thresholds."""

REFUSED_MAX = 1_000

_TIMES_MAX = 1e6


class Column(TypedDict):
    """One column. `score`, `low`, `high` and `threshold` are on the scale of `test`.

    times_threshold: how far it is, from 1 on it has drifted: the score over the threshold; where the test gives a
    p-value, its logarithm over the threshold's; of the classifier's AUC what is above one half. Columns are in this
    order, the furthest first.
    low, high: what the score is certain to lie between; null where it was computed on the rows themselves.
    nulls, unseen: shares of the rows; `reference_nulls` is the reference's. since: when it was first found drifted and
    ever since, null where it has not drifted or that was not followed. shape: null beyond the first 50.
    """

    column: str
    test: str
    score: float
    low: float | None
    high: float | None
    threshold: float
    times_threshold: float
    drifted: bool
    p_value: float | None
    nulls: float
    reference_nulls: float
    unseen: float
    since: str | None
    shape: Shape | None


class Window(TypedDict):
    """One of the two windows. `began` and `ended` are of its rows' timestamps, null where these were not read."""

    rows: int
    batches: int
    began: str | None
    ended: str | None
    first: str | None
    last: str | None


class Measure(TypedDict):
    """A metric of the predictions; `labels` is how many pairs it is of."""

    metric: str
    value: float
    labels: int


class Unused(TypedDict):
    """A column or a batch that could not be used, and why."""

    what: str
    why: str


class Document(TypedDict):
    """The whole. `measured_at` is null in what is stored at a decision, whose name says when.

    measured, drifted: how many columns were, the predictions among them, "(all columns)" not.
    refused: at most 1,000 of `refused_batches`.
    """

    version: int
    model: str
    decision: str
    measured_at: str | None
    measured: int
    drifted: int
    drift_share: float
    reference: Window
    current: Window
    columns: list[Column]
    unusable: list[Unused]
    refused: list[Unused]
    refused_batches: int
    performance: Measure | None
    estimated: Measure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """The profiles of both windows, and the grid that they were counted on."""

    grid: Grid
    reference: Profile
    current: Profile


def document(
    *,
    model: str,
    decision: str,
    evidence: Evidence,
    reference: Sequence[Batch],
    profiles: Profiles | None = None,
    since: Sequence[Drifting] = (),
    measured_at: datetime | None = None,
) -> Document:
    """The document on one measurement. `reference`: the batches of its window. Without profiles there are no shapes."""
    found = ordered(evidence.drift)
    single = [c for c in found if c.column != ALL_COLUMNS]
    known = {d.column: d.since for d in since}
    drawn = {c.column: _shape(c.column, profiles) for c in found[:DRAWN_MAX]} if profiles else {}
    span = (profiles.reference.began, profiles.reference.ended) if profiles else (None, None)
    return {
        "version": VERSION,
        "model": model,
        "decision": decision,
        "measured_at": _stamp(measured_at),
        "measured": len(single),
        "drifted": sum(c.drifted for c in single),
        "drift_share": evidence.drift_share,
        "reference": _window(evidence.reference_rows, reference, *span),
        "current": _window(evidence.rows, evidence.batches, evidence.began, evidence.ended),
        "columns": [_column(c, known.get(c.column), drawn.get(c.column)) for c in found],
        "unusable": [{"what": u.column, "why": u.why} for u in evidence.unusable],
        "refused": [{"what": f"s3://{r.bucket}/{r.key}", "why": r.why} for r in evidence.refused[:REFUSED_MAX]],
        "refused_batches": len(evidence.refused),
        "performance": _measure(evidence.performance),
        "estimated": _measure(evidence.estimated),
    }


def ordered(drift: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The columns, those that drifted first, and of these the furthest past its threshold."""
    return sorted(drift, key=lambda c: (not c.drifted, -times_threshold(c), c.column))


def times_threshold(column: ColumnDrift) -> float:
    """How many times its threshold the column is; of p-values how many times as many orders of magnitude."""
    score, threshold = column.score, column.threshold
    if column.column == ALL_COLUMNS:
        score, threshold = score - 0.5, threshold - 0.5
    if column.test not in P_VALUES:
        return min(max(score, 0.0) / threshold, _TIMES_MAX) if threshold > 0 else 0.0
    if not 0 < threshold < 1:
        return 1.0 if column.drifted else 0.0
    return min(math.log(max(score, math.ulp(0.0))) / math.log(threshold), _TIMES_MAX) if score < 1 else 0.0


def _column(found: ColumnDrift, since: datetime | None, drawn: Shape | None) -> Column:
    return {
        "column": found.column,
        "test": found.test,
        "score": found.score,
        "low": found.low,
        "high": found.high,
        "threshold": found.threshold,
        "times_threshold": round(times_threshold(found), 4),
        "drifted": found.drifted,
        "p_value": found.p_value,
        "nulls": found.nulls,
        "reference_nulls": found.reference_nulls,
        "unseen": found.unseen,
        "since": _stamp(since) if found.drifted else None,
        "shape": drawn,
    }


def _shape(name: str, profiles: Profiles) -> Shape | None:
    held = profiles.grid.columns.get(name)
    old, new = (window.columns.get(name) for window in (profiles.reference, profiles.current))
    return shape(held, old, new) if held is not None and old is not None and new is not None else None


def _window(rows: int, batches: Sequence[Batch], began: datetime | None, ended: datetime | None) -> Window:
    return {
        "rows": rows,
        "batches": len(batches),
        "began": _stamp(began),
        "ended": _stamp(ended),
        "first": batches[0].uri if batches else None,
        "last": batches[-1].uri if batches else None,
    }


def _measure(found: Performance | None) -> Measure | None:
    return {"metric": found.metric, "value": found.value, "labels": found.labels} if found else None


def _stamp(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
