"""What a drift test may be given, and what holds where it has no answer or a wrong one.

Evidently's tests are the engine of record, and these are the places where a window of real data defeats them (each
seen with 0.7.23): a window without values raises, nulls are dropped without a word, one outlier stretches the
equal-width bins until a shift falls into a single one, a spread under 0.001 is taken for 0.001, one unknown category
out of thousands makes chi-square certain, and a single category makes it NaN. A pair of windows that has none of these
is passed on as it is.
"""

import math
import sys
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrainer.core.evidence import ColumnDrift
from retrainer.core.policy import P_VALUES as P_VALUES
from retrainer.core.policy import Column
from retrainer.drift.grid import CENTRE
from retrainer.drift.values import Values as Values

NULL = "(null)"
RARE = "(rare)"

_FARTHEST = {"psi": 18.42, "jensenshannon": math.sqrt(math.log(2)), "wasserstein": 1.0}
"""The score of two windows that have nothing in common. PSI is what Evidently gives for two categories that do not
overlap; Wasserstein has no such bound, and a null counts as a value one standard deviation away. Of the others it is 1,
or as a p-value 0."""

LEAST_EXPECTED = 5
"""Fewer expected rows of a category are no ground for a chi-square statistic (Cochran 1954, Biometrics 10:417)."""

_SPREAD_MIN = 0.001
"""What Evidently's normed Wasserstein distance divides by when the reference's standard deviation is smaller."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One column in both windows: the values a test may be given, and the shares of nulls that were left out."""

    reference: Values
    current: Values
    reference_nulls: float = 0.0
    current_nulls: float = 0.0


def pair(column: Column, reference: Values, current: Values) -> Pair:
    """The column made ready for its test. Neither window may be without rows; either may be without values."""
    if column.kind == "categorical":
        made = Pair(_named(reference), _named(current))
        return _pooled(made) if column.test in P_VALUES else made
    made = _without_nulls(reference, current)
    if not len(made.reference) or not len(made.current):
        return made
    made = _clipped(made)
    return _scaled(made) if column.test == "wasserstein" else made


def settled(column: Column, ready: Pair) -> float | None:
    """The score where no test is needed, because a window has no values or both hold one and the same; else None."""
    if not len(ready.reference) or not len(ready.current):
        return unchanged(column) if len(ready.reference) == len(ready.current) else farthest(column)
    first = ready.reference[0]
    if first == ready.current[0] and bool(np.all(ready.reference == first)) and bool(np.all(ready.current == first)):
        return unchanged(column)
    return None


def nulls(column: Column, ready: Pair, reference_rows: int, current_rows: int) -> Pair | None:
    """Whether each value is null, as a categorical column of its own; None where no value is.

    Only numerical columns are asked: of a categorical one, null is a category.
    """
    if not ready.reference_nulls and not ready.current_nulls:
        return None
    flags = Pair(_flags(ready.reference_nulls, reference_rows), _flags(ready.current_nulls, current_rows))
    return _pooled(flags) if column.test in P_VALUES else flags


def worse(column: Column, values: float, null_share: float) -> float:
    """The score of a numerical column from that of its values and that of its nulls.

    Of two distances the larger; of two p-values twice the smaller, as the column had two chances (Bonferroni).
    """
    return min(1.0, 2 * min(values, null_share)) if column.test in P_VALUES else max(values, null_share)


def unchanged(column: Column) -> float:
    """The score of two windows that are the same."""
    return 1.0 if column.test in P_VALUES else 0.0


def farthest(column: Column) -> float:
    """The score of two windows that have nothing in common; never one that a high threshold would let pass."""
    test, threshold = rule(column)
    return 0.0 if test in P_VALUES else max(_FARTHEST.get(test, 1.0), threshold)


def rule(column: Column) -> tuple[str, float]:
    """The test and the threshold of a column that is watched."""
    assert column.test is not None
    assert column.threshold is not None
    return column.test, column.threshold


def verdict(
    name: str,
    column: Column,
    score: float,
    p_value: float,
    *,
    bounds: tuple[float, float] | None = None,
    nulls: float = 0.0,
    reference_nulls: float = 0.0,
    unseen: float = 0.0,
) -> ColumnDrift:
    """The evidence on one column. JSON has no NaN or infinity: see `_finite`.

    `bounds` are those of a score from profiles; the last three are shares of rows.
    """
    test, threshold = rule(column)
    value, low, high = (_finite(column, x) for x in (score, *(bounds or (score, score))))
    drifted = value < threshold if test in P_VALUES else value >= threshold
    return ColumnDrift(
        column=name,
        test=test,
        score=value,
        threshold=threshold,
        drifted=drifted,
        p_value=p_value,
        low=low if bounds else None,
        high=high if bounds else None,
        nulls=nulls,
        reference_nulls=reference_nulls,
        unseen=unseen,
    )


def _finite(column: Column, score: float) -> float:
    """NaN comes only of rounding between equal windows (a root of -1e-17), an infinite distance of overflow."""
    if math.isnan(score):
        return unchanged(column)
    return max(min(float(score), sys.float_info.max), -sys.float_info.max)


def _named(values: Values) -> NDArray[np.object_]:
    named = np.asarray(values, dtype=object)
    return np.array([NULL if value is None else value for value in named], dtype=object)


def _without_nulls(reference: Values, current: Values) -> Pair:
    old, new = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    kept_old, kept_new = old[np.isfinite(old)], new[np.isfinite(new)]
    return Pair(kept_old, kept_new, 1 - len(kept_old) / len(old), 1 - len(kept_new) / len(new))


def _clipped(ready: Pair) -> Pair:
    """Outliers brought to one width of the reference's central 99.8 % outside it: far enough to count as drift in full,
    too near to decide how wide the bins are."""
    reference, current = (np.asarray(v, dtype=np.float64) for v in (ready.reference, ready.current))
    low, high = (float(q) for q in np.quantile(reference, CENTRE))
    width = high - low
    if not 0 < width < np.inf:
        return ready
    low, high = low - width, high + width
    return replace(ready, reference=np.clip(reference, low, high), current=np.clip(current, low, high))


def _scaled(ready: Pair) -> Pair:
    """In units that leave the normed distance what it is, and above the floor that Evidently divides by.

    A reference without any spread is measured by the spread of both windows together; the factor then undoes the floor.
    """
    reference = np.asarray(ready.reference, dtype=np.float64)
    spread = float(np.std(reference))
    if spread >= _SPREAD_MIN:
        return ready
    middle = float(np.mean(reference))
    if spread > np.finfo(np.float64).eps * abs(middle):
        factor = 1 / spread
    else:
        together = float(np.std(np.concatenate([reference, ready.current])))
        factor = _SPREAD_MIN / together if together > 0 else 1.0
    return replace(ready, reference=(reference - middle) * factor, current=(ready.current - middle) * factor)


def _pooled(ready: Pair) -> Pair:
    """Categories too rare to expect five rows of, taken together as one; where that is no `lone` one, it joins the
    rarest of those that are kept."""
    known, seen = Counter(ready.reference), Counter(ready.current)
    ratio = len(ready.current) / len(ready.reference)
    rare = {name for name in known.keys() | seen.keys() if known[name] * ratio < LEAST_EXPECTED}
    if not rare:
        return ready
    expected = sum(known[name] for name in rare) * ratio
    observed = sum(seen[name] for name in rare)
    kept = [name for name in known if name not in rare]
    name = RARE if lone(expected, observed, ratio) or not kept else min(kept, key=lambda k: (known[k], k))
    return replace(ready, reference=_renamed(ready.reference, rare, name), current=_renamed(ready.current, rare, name))


def lone(expected: float, observed: float, ratio: float) -> bool:
    """Whether the rare categories taken together are a category of their own.

    They are where there are enough of them to expect, or the current window, `ratio` times the reference, holds more
    of them than a reference of its size can have missed (the rule of three: 3/n at 95 %).
    """
    return expected >= LEAST_EXPECTED or observed > LEAST_EXPECTED + 3 * ratio


def _renamed(values: Values, names: set[str], name: str) -> NDArray[np.object_]:
    return np.array([name if value in names else value for value in values], dtype=object)


def _flags(share: float, rows: int) -> NDArray[np.object_]:
    count = round(share * rows)
    flags = np.full(rows, "value", dtype=object)
    flags[:count] = NULL
    return flags
