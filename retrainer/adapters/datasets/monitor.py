"""The baseline of SageMaker Model Monitor, statistics.json and constraints.json, as a grid and a reference profile.

A number's distribution is a KLL sketch there, whose ranks are off by about 1.7 / k of the rows (k is 2,048 as Model
Monitor makes it; Karnin, Lang and Liberty 2016, FOCS), or, where it is missing, ten buckets. So bounds of distances
are only as good as those, and a column's null share, its categories and the number of rows are exact.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrainer.drift.counting import Categories, Numbers
from retrainer.drift.derived import Spec
from retrainer.drift.grid import CategoryGrid, Grid, NumberGrid, number_grid
from retrainer.drift.profile import Profile, Sample
from retrainer.drift.values import Floats, Ints, Values

BYTES_MAX = 64 << 20
ITEMS_MAX = 1_000_000
"""Of a sketch; one of k = 2,048 holds some 6,000 items."""

LEVELS_MAX = 48
"""Of a sketch: more rows than there are."""


class MonitorError(ValueError):
    """The document is no baseline of Model Monitor, or lacks a column; the message says which."""


def baseline(documents: Sequence[bytes], spec: Spec) -> tuple[Grid, Profile]:
    """The watched columns of statistics.json; constraints.json, if it is there, adds the categories that are allowed.

    Captured CSV has places for names, so `_c3` is the fourth feature where none is called so. The profile has no sample
    of rows and no time span. Raises MonitorError.
    """
    features, domains = _read(documents)
    columns: dict[str, NumberGrid | CategoryGrid] = {}
    counted: dict[str, Numbers | Categories] = {}
    for name, kind in spec.items():
        called = _called(name, list(features))
        try:
            feature = features[called]
            held = _number(feature) if kind == "numerical" else _text(feature, domains.get(called, ()))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
            raise MonitorError(f"feature {name!r} is not as Model Monitor writes a {kind} one: {error!r}") from error
        columns[name], counted[name] = held
    grid = Grid(columns, {})
    rows = max((_rows(held) for held in counted.values()), default=0)
    sample = Sample(np.empty(0, np.uint64), {name: _no_values(held) for name, held in columns.items()})
    return grid, Profile(grid=grid.id, rows=rows, began=None, ended=None, zoned=None, columns=counted, sample=sample)


def _called(name: str, features: list[str]) -> str:
    place = re.fullmatch(r"_c(\d{1,5})", name)
    if name not in features and place and int(place[1]) < len(features):
        return features[int(place[1])]
    if name not in features:
        raise MonitorError(f"it has no feature {name!r}; it has {', '.join(features[:12])}")
    return name


def _read(documents: Sequence[bytes]) -> tuple[dict[str, Mapping[str, Any]], dict[str, tuple[str, ...]]]:
    """The features by name, and the allowed categories of those that have them."""
    features: dict[str, Mapping[str, Any]] = {}
    domains: dict[str, tuple[str, ...]] = {}
    for document in documents:
        try:
            listed = json.loads(document)["features"]
            for feature in listed:
                name = str(feature["name"])
                if "numerical_statistics" in feature or "string_statistics" in feature:
                    features[name] = feature
                elif allowed := feature.get("string_constraints", {}).get("domains"):
                    domains[name] = tuple(map(str, allowed))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MonitorError(f"it is no statistics.json or constraints.json: {error!r}") from error
    if not features:
        raise MonitorError("it has no statistics; name Model Monitor's statistics.json")
    return features, domains


def _number(feature: Mapping[str, Any]) -> tuple[NumberGrid, Numbers]:
    held = feature["numerical_statistics"]
    present, missing = _count(held["common"]["num_present"]), _count(held["common"]["num_missing"])
    if not present:
        return NumberGrid(np.empty(0)), _numbers(np.zeros(1, np.int64), np.zeros(1), missing, held)
    kll = held["distribution"]["kll"]
    if not kll.get("sketch"):
        edges, counts, means = _buckets(kll["buckets"])
        return NumberGrid(edges), _numbers(counts, counts * means, missing, held)
    values, weights = _sketch(kll["sketch"]["data"])
    grid = number_grid(np.repeat(values, np.maximum(1, np.round(weights * 100_000 / weights.sum()).astype(np.int64))))
    cell = np.searchsorted(grid.edges, values, "right")
    mass, sums = (np.bincount(cell, w, len(grid.edges) + 1) for w in (weights, weights * values))
    upto = np.round(np.cumsum(mass) * (present / weights.sum())).astype(np.int64)
    counts = np.diff(np.concatenate(([0], upto)))
    return grid, _numbers(counts, counts * sums / np.maximum(mass, 1e-300), missing, held)


def _numbers(counts: Ints, sums: Floats, missing: int, held: Mapping[str, Any]) -> Numbers:
    present = int(counts.sum())
    low, high, mean, spread = (float(held[n]) if present else math.nan for n in ("min", "max", "mean", "std_dev"))
    if present and not all(map(math.isfinite, (low, high, mean, spread))):
        raise ValueError("its moments are not numbers")
    m2 = present * spread * spread if present else 0.0
    return Numbers(counts=counts, sums=sums, nulls=missing, infinite=0, low=low, high=high, mean=mean, m2=m2)


def _sketch(data: Sequence[Sequence[float]]) -> tuple[Floats, Floats]:
    """An item of a sketch's n-th compactor stands for 2**n values."""
    if len(data) > LEVELS_MAX or sum(map(len, data)) > ITEMS_MAX:
        raise ValueError("its sketch is too large")
    values = np.concatenate([np.asarray(level, np.float64) for level in data])
    weights = np.concatenate([np.full(len(level), 2.0**n) for n, level in enumerate(data)])
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("its sketch holds no numbers")
    return values, weights


def _buckets(buckets: Sequence[Mapping[str, float]]) -> tuple[Floats, Ints, Floats]:
    """The bounds as edges, the counts between them, and the middles: nothing is known of where in a bucket rows are."""
    if not 0 < len(buckets) <= LEVELS_MAX:
        raise ValueError("its distribution has no buckets")
    ends = sorted((float(b["lower_bound"]), float(b["upper_bound"]), _count(b["count"])) for b in buckets)
    low, high = (np.array([end[i] for end in ends]) for i in (0, 1))
    edges = np.append(low, np.nextafter(high[-1], np.inf))
    if not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise ValueError("its buckets do not follow one another")
    counts = np.array([0, *(end[2] for end in ends), 0], np.int64)
    return edges, counts, np.concatenate(([0.0], (low + high) / 2, [0.0]))


def _text(feature: Mapping[str, Any], allowed: Sequence[str]) -> tuple[CategoryGrid, Categories]:
    held = feature["string_statistics"]
    present, missing = _count(held["common"]["num_present"]), _count(held["common"]["num_missing"])
    buckets = held.get("distribution", {}).get("categorical", {}).get("buckets", [])
    known = {str(b["value"]): _count(b["count"]) for b in buckets[:10_000]}
    for name in allowed[:10_000]:
        known.setdefault(name, 0)
    counts = np.array(list(known.values()), np.int64)
    other = max(0, present - int(counts.sum()))
    return CategoryGrid(tuple(known), other == 0), Categories(counts=counts, unseen={}, other=other, nulls=missing)


def _count(number: object) -> int:
    found = int(float(str(number)))
    if not 0 <= found < 2**60:
        raise ValueError("a count is out of range")
    return found


def _rows(held: Numbers | Categories) -> int:
    if isinstance(held, Numbers):
        return int(held.counts.sum()) + held.nulls + held.infinite
    return int(held.counts.sum()) + held.other + held.nulls + sum(held.unseen.values())


def _no_values(held: NumberGrid | CategoryGrid) -> Values:
    return np.empty(0, np.float64 if isinstance(held, NumberGrid) else object)
