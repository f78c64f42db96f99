"""Evidently, the engine of record for drift, and its report. The only module that imports it, which takes about 8 s.

A score comes from the registered test that Evidently's own ValueDrift calls, and is the same number: ValueDrift also
draws the column, in time that grows with the square of its categories (21 s at 9,000 of them, measured with 0.7.23).
"""

import html
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from evidently import ColumnType, DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import get_stattest
from evidently.metrics import MissingValueCount, ValueDrift

from retrainer.core.evidence import ColumnDrift
from retrainer.core.policy import Column
from retrainer.drift import columns
from retrainer.drift.columns import Pair, Values
from retrainer.drift.p_value import p_value

SAMPLE_ROWS = 20_000
"""Rows of each window that the report draws."""

CATEGORIES_MAX = 200
"""Categories of a column that the report draws; the others are drawn as one."""

OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class Windows:
    """A column in both windows; each has at least one row. `batches`: the rows of each batch of the reference."""

    reference: Values
    current: Values
    batches: Sequence[int] = ()


def drift(declared: Mapping[str, Column], windows: Mapping[str, Windows]) -> tuple[ColumnDrift, ...]:
    """The evidence on every declared column."""
    return tuple(_measured(name, column, windows[name]) for name, column in declared.items())


def _measured(name: str, column: Column, windows: Windows) -> ColumnDrift:
    chance = p_value(column, windows.reference, windows.current, windows.batches)
    return columns.verdict(name, column, score(column, windows), chance)


def score(column: Column, windows: Windows) -> float:
    """The column's score on the scale of its test, its nulls counted in."""
    ready = columns.pair(column, windows.reference, windows.current)
    value = columns.settled(column, ready)
    if value is None:
        value = _evidently(column.kind, *columns.rule(column), ready)
    flags = columns.nulls(column, ready, len(windows.reference), len(windows.current))
    return value if flags is None else columns.worse(column, value, _null_score(column, ready, flags))


def _null_score(column: Column, ready: Pair, flags: Pair) -> float:
    if column.test == "wasserstein":
        return abs(ready.current_nulls - ready.reference_nulls)
    value = columns.settled(column, flags)
    test, threshold = columns.rule(column)
    test = "chisquare" if test == "ks" else test
    return _evidently("categorical", test, threshold, flags) if value is None else value


def _evidently(kind: str, test: str, threshold: float, ready: Pair) -> float:
    reference, current = pd.Series(ready.reference), pd.Series(ready.current)
    column_type = ColumnType.Numerical if kind == "numerical" else ColumnType.Categorical
    found = get_stattest(reference, current, column_type, test)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return float(found(reference, current, column_type, threshold).drift_score)


def page(
    title: str, facts: Sequence[str], declared: Mapping[str, Column], windows: Mapping[str, Windows], *, seed: int = 0
) -> str:
    """The report as one HTML page that opens without a network: the evidence on all rows, then Evidently's drawings.

    The drawings are of a sample, with the same tests; up to SAMPLE_ROWS rows they have the same scores.
    """
    head = _head(title, facts, drift(declared, windows))
    if not declared:
        return f'<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8"></head><body>{head}</body></html>'
    drawn = _drawn(declared, {name: _sample(w, seed) for name, w in windows.items()})
    before, body, after = drawn.partition("<body>")
    assert body, "Evidently's page has another shape than 0.7.23's"
    return f"{before}{body}{head}{after}"


def _drawn(declared: Mapping[str, Column], windows: Mapping[str, Windows]) -> str:
    """Evidently's page: each column that has values in both windows is drawn, and nulls are counted."""
    frames: tuple[dict[str, pd.Series], dict[str, pd.Series]] = ({}, {})
    metrics = []
    for name, column in declared.items():
        ready = columns.pair(column, windows[name].reference, windows[name].current)
        values = _folded(ready) if column.kind == "categorical" else ready
        frames[0][name] = pd.Series(values.reference).reindex(range(len(windows[name].reference)))
        frames[1][name] = pd.Series(values.current).reindex(range(len(windows[name].current)))
        if len(ready.reference) and len(ready.current):
            metrics.append(ValueDrift(column=name, method=column.test, threshold=column.threshold))
        if ready.reference_nulls or ready.current_nulls:
            metrics.append(MissingValueCount(column=name))
    definition = DataDefinition(
        numerical_columns=[name for name, column in declared.items() if column.kind == "numerical"],
        categorical_columns=[name for name, column in declared.items() if column.kind == "categorical"],
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        reference, current = (Dataset.from_pandas(pd.DataFrame(frame), definition) for frame in frames)
        drawn: str = Report(metrics).run(current, reference).get_html_str(as_iframe=False)
    return drawn


def _sample(windows: Windows, seed: int) -> Windows:
    return Windows(_some(windows.reference, seed), _some(windows.current, seed))


def _some(values: Values, seed: int) -> Values:
    if len(values) <= SAMPLE_ROWS:
        return values
    return values[np.sort(np.random.default_rng(seed).choice(len(values), SAMPLE_ROWS, replace=False))]


def _folded(ready: Pair) -> Pair:
    both = pd.Series(np.concatenate([ready.reference, ready.current]))
    common = both.value_counts().index[:CATEGORIES_MAX]
    if both.nunique() <= CATEGORIES_MAX:
        return ready
    folded = both.where(both.isin(common), OTHER).to_numpy(dtype=object)
    return Pair(folded[: len(ready.reference)], folded[len(ready.reference) :])


def _head(title: str, facts: Sequence[str], evidence: Sequence[ColumnDrift]) -> str:
    said = "".join(f"<p>{html.escape(fact)}</p>" for fact in facts)
    rows = "".join(
        f"<tr><td>{html.escape(c.column)}</td><td>{c.test}</td><td>{c.score:.4g}</td>"
        f"<td>{c.threshold:g}</td><td>{'drifted' if c.drifted else 'no drift'}</td><td>{c.p_value:.2g}</td></tr>"
        for c in evidence
    )
    titles = "<tr><th>column<th>test<th>score<th>threshold<th><th>p-value</tr>"
    table = f"<table cellpadding=6>{titles}{rows}</table>" if rows else ""
    return f'<header style="font-family:sans-serif;margin:2em"><h1>{html.escape(title)}</h1>{said}{table}</header>'
