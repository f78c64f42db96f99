"""Evidently, the engine of record for drift, and its report. The only module that imports it, which takes about 8 s.

A score comes from the registered test that Evidently's own ValueDrift calls, and is the same number: ValueDrift also
draws the column, in time that grows with the square of its categories (21 s at 9,000 of them, measured with 0.7.23).
"""

import html
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from evidently import ColumnType, DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.calculations.stattests.tvd_stattest import _total_variation_distance
from evidently.metrics import MissingValueCount, UniqueValueCount, ValueDrift
from scipy.stats import power_divergence

from retrainer.core.evidence import ColumnDrift
from retrainer.core.policy import Column
from retrainer.drift import columns
from retrainer.drift.columns import Pair, Values
from retrainer.drift.profile import Sample

COLUMNS_MAX = 50
"""Columns that the report draws: the first of the evidence it is given."""

CATEGORIES_MAX = 200
"""Categories of a column that the report draws; the others are drawn as one."""

OTHER = "(other)"

_OWN_TESTS = ("missing", "unseen", "classifier")
"""Tests that Evidently does not have."""


@dataclass(frozen=True, slots=True)
class Windows:
    """A column in both windows; each has at least one row."""

    reference: Values
    current: Values


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
    if test == "TVD":  # its score is a p-value, by permutation, of this distance
        return float(_total_variation_distance(reference, current))
    if test == "g_test" and len(reference) != len(current):  # it raises: it does not scale what it expects
        return _g_test(reference.value_counts(), current.value_counts())
    column_type = ColumnType.Numerical if kind == "numerical" else ColumnType.Categorical
    found = get_stattest(reference, current, column_type, test)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return float(found(reference, current, column_type, threshold).drift_score)


def _g_test(known: pd.Series, seen: pd.Series) -> float:
    known, seen = known.align(seen, fill_value=0)
    with np.errstate(divide="ignore"):
        return float(power_divergence(seen, known * (seen.sum() / known.sum()), lambda_="log-likelihood").pvalue)


def page(title: str, facts: Sequence[str], evidence: Sequence[ColumnDrift], reference: Sample, current: Sample) -> str:
    """The report as one HTML page that opens without a network: the evidence on all rows, then Evidently's drawings.

    The drawings are of the rows that the profiles kept, with the same tests, so a score in them is that of a sample.
    """
    drawn = [c for c in evidence if c.column in reference.columns and c.column in current.columns][:COLUMNS_MAX]
    head = _head(title, facts, evidence)
    if not drawn or not len(reference.priorities) or not len(current.priorities):
        return f'<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8"></head><body>{head}</body></html>'
    before, body, after = _drawn(drawn, reference, current).partition("<body>")
    assert body, "Evidently's page has another shape than 0.7.23's"
    return f"{before}{body}{head}{after}"


def _drawn(evidence: Sequence[ColumnDrift], reference: Sample, current: Sample) -> str:
    """Evidently's page: each column that has values in both windows is drawn, and nulls are counted."""
    frames: tuple[dict[str, pd.Series], dict[str, pd.Series]] = ({}, {})
    named: dict[str, list[str]] = {"numerical": [], "categorical": []}
    metrics: list[Any] = []
    for found in evidence:
        raw = Pair(reference.columns[found.column], current.columns[found.column])
        column, name = _column(found, raw), _harmless(found.column)
        ready = columns.pair(column, raw.reference, raw.current)
        shown = raw if found.test == "missing" else ready
        if column.kind == "categorical":
            shown = _folded(shown)
        frames[0][name] = pd.Series(shown.reference).reindex(range(len(raw.reference)))
        frames[1][name] = pd.Series(shown.current).reindex(range(len(raw.current)))
        named[column.kind].append(name)
        metrics += _metrics(replace(found, column=name), ready)
    definition = DataDefinition(numerical_columns=named["numerical"], categorical_columns=named["categorical"])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        old, new = (Dataset.from_pandas(pd.DataFrame(frame), definition) for frame in frames)
        drawn: str = Report(metrics).run(new, old).get_html_str(as_iframe=False)
    return drawn


def _harmless(text: str) -> str:
    """Evidently 0.7.23 puts texts into a script element as they are, where </script> would end it."""
    return text.replace("<", "‹")


def _metrics(found: ColumnDrift, ready: Pair) -> list[Any]:
    has_nulls = ready.reference_nulls or ready.current_nulls
    counted = [MissingValueCount(column=found.column)] if has_nulls or found.test == "missing" else []
    if not len(ready.reference) or not len(ready.current) or found.test == "missing":
        return counted
    if found.test in _OWN_TESTS:
        return [UniqueValueCount(column=found.column), *counted]
    return [ValueDrift(column=found.column, method=found.test, threshold=found.threshold), *counted]


def _column(found: ColumnDrift, raw: Pair) -> Column:
    """The column as a test takes it; how far it may be does not matter to a drawing."""
    kind: Literal["numerical", "categorical"] = "categorical" if raw.current.dtype == object else "numerical"
    return Column.model_construct(kind=kind, test=found.test, threshold=found.threshold)


def _folded(shown: Pair) -> Pair:
    """The most frequent categories by name, a null as none, the others as one."""
    both = pd.Series(np.concatenate([shown.reference, shown.current]), dtype=object)
    names = {name: _harmless(str(name)) for name in both.value_counts().index[:CATEGORIES_MAX]}
    folded = [None if name is None else names.get(name, OTHER) for name in both]
    whole = np.array(folded, dtype=object)
    return Pair(whole[: len(shown.reference)], whole[len(shown.reference) :])


def _head(title: str, facts: Sequence[str], evidence: Sequence[ColumnDrift]) -> str:
    said = "".join(f"<p>{html.escape(fact)}</p>" for fact in facts)
    rows = "".join(
        f"<tr><td style='overflow-wrap:anywhere'>{html.escape(c.column)}</td><td>{html.escape(c.test)}</td>"
        f"<td>{c.score:.4g}</td><td>{c.threshold:g}</td><td>{'drifted' if c.drifted else 'no drift'}</td>"
        f"<td>{'' if c.p_value is None else f'{c.p_value:.2g}'}</td></tr>"
        for c in evidence
    )
    titles = "<tr><th>column<th>test<th>score<th>threshold<th><th>p-value</tr>"
    table = f"<table cellpadding=6>{titles}{rows}</table>" if rows else ""
    return f'<header style="font-family:sans-serif;margin:2em"><h1>{html.escape(title)}</h1>{said}{table}</header>'
