"""A column's distribution in both windows, small enough to be drawn and kept: from the counts of two profiles."""

import math
from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np

from retrainer.drift.grid import CategoryGrid, NumberGrid
from retrainer.drift.profile import Categories, Numbers
from retrainer.drift.values import Floats, Ints

BINS = (8, 40)
"""At the least and at the most: as many as the root of a window's values, so that chance does not make the shape."""

CENTRAL = 0.99
"""The share of the reference's values that is drawn bin by bin; what lies outside is told as two shares."""

BARS = 8
"""Categories that are drawn, and of new ones that are named."""

NAME_MAX = 100
"""Characters of a category's name that are kept."""

_ATOMS = 0.9
"""With so large a share of repeated values a column is discrete, and its bins are whole steps."""

Both = tuple[float, float]
"""A share in the reference and in the current window."""


class Density(TypedDict):
    """Of numbers: shares of the values in bins of equal width from `low` to `high`, and outside of them."""

    kind: Literal["density"]
    low: float
    high: float
    reference: list[float]
    current: list[float]
    below: Both
    above: Both


class Bar(TypedDict):
    """A category's share of the rows in both windows, nulls left out."""

    name: str
    shares: Both


class Bars(TypedDict):
    """Of categories: the most frequent of either window; `new` are those that the reference does not have.

    `rest` are the known ones that are not among `bars`, `new_rest` the new ones not among `new`.
    """

    kind: Literal["bars"]
    bars: list[Bar]
    rest: Both
    new: list[Bar]
    new_rest: float


Shape = Density | Bars


def shape(
    grid: NumberGrid | CategoryGrid, reference: Numbers | Categories, current: Numbers | Categories
) -> Shape | None:
    """What can be drawn of a column; None where a window has no values, or the three do not belong together."""
    if isinstance(grid, NumberGrid) and isinstance(reference, Numbers) and isinstance(current, Numbers):
        return _density(np.asarray(grid.edges, dtype=np.float64), reference, current)
    if isinstance(grid, CategoryGrid) and isinstance(reference, Categories) and isinstance(current, Categories):
        return _bars(grid.names, reference, current)
    return None


def _density(edges: Floats, reference: Numbers, current: Numbers) -> Density | None:
    if not reference.values or not current.values or not len(edges):
        return None
    most = min(max(math.isqrt(min(reference.values, current.values)), BINS[0]), BINS[1])
    bins = _bins(edges, reference.counts, most)
    if not np.isfinite(bins).all():
        return None
    (below, old, above), (less, new, more) = (_binned(bins, edges, side) for side in (reference, current))
    return {
        "kind": "density",
        "low": float(bins[0]),
        "high": float(bins[-1]),
        "reference": old,
        "current": new,
        "below": (below, less),
        "above": (above, more),
    }


def _bins(edges: Floats, counts: Ints, most: int) -> Floats:
    """At most so many bins over the reference's central values; of a discrete column all of one number of steps."""
    low, high = _central(edges, counts)
    atoms = np.flatnonzero(np.nextafter(edges[:-1], np.inf) == edges[1:])
    inside = edges[atoms][(edges[atoms] >= low) & (edges[atoms] <= high)]
    with np.errstate(all="ignore"):
        bins: Floats = np.linspace(low, high, most + 1)
        if counts[atoms + 1].sum() >= _ATOMS * counts.sum() and len(inside) > 1:
            step = float(np.min(np.diff(inside)))
            step *= max(1.0, np.ceil((inside[-1] - inside[0]) / step / most))
            bins = inside[0] + step * (np.arange(min(most, (inside[-1] - inside[0]) // step) + 2) - 0.5)
        # Where the range is narrower than floats can divide it, there is one value, and one bin to draw it in.
        return bins if (np.diff(bins) > 0).all() else low + max(abs(low) / 10, 0.5) * np.array([-1.0, 1.0])


def _central(edges: Floats, counts: Ints) -> tuple[float, float]:
    """The edges between which the central share of the values lies; the same edge twice where all lie outside."""
    upto = np.cumsum(counts) / counts.sum()
    outside = (1 - CENTRAL) / 2
    # Cell i is [edges[i-1], edges[i]): up to edges[i] there is upto[i].
    last = min(len(edges) - 1, int(np.searchsorted(upto, 1 - outside, "left")))
    first = min(last, max(0, int(np.searchsorted(upto, outside, "right")) - 1))
    return float(edges[first]), float(edges[last])


def _binned(bins: Floats, edges: Floats, side: Numbers) -> tuple[float, list[float], float]:
    """The shares below, within each bin and from the last bin on, a cell's values taken for evenly spread."""
    low, high = min(side.low, edges[0]), np.nextafter(max(side.high, edges[-1]), np.inf)
    ends = np.concatenate(([low], edges, [high]))
    cell = np.clip(np.searchsorted(ends, bins, "right") - 1, 0, len(edges))
    with np.errstate(all="ignore"):
        part = np.nan_to_num((bins - ends[cell]) / (ends[cell + 1] - ends[cell]))
    shares = side.counts / side.values
    upto = np.cumsum(shares)[cell] - shares[cell] * (1 - np.clip(part, 0.0, 1.0))
    return _kept(upto[0]), [_kept(share) for share in np.diff(upto)], _kept(1.0 - upto[-1])


def _bars(names: Sequence[str], reference: Categories, current: Categories) -> Bars | None:
    totals = [int(side.counts.sum()) + sum(side.unseen.values()) + side.other for side in (reference, current)]
    if not all(totals):
        return None
    old, new = (np.asarray(side.counts) / total for side, total in zip((reference, current), totals, strict=True))
    # A category that the grid's sample missed may still be the reference's own, and one that it had may be no one's.
    known = np.flatnonzero(old)
    top = known[np.lexsort((known, -np.maximum(old, new)[known]))[:BARS]]
    bars = [_bar(names[i], float(old[i]), float(new[i])) for i in top.tolist()]
    foreign = {name: count / totals[1] for name, count in current.unseen.items() if name not in reference.unseen}
    foreign |= {names[i]: float(new[i]) for i in np.flatnonzero((old == 0) & (new > 0)).tolist()}
    strange = [_bar(name, 0.0, share) for name, share in sorted(foreign.items(), key=lambda f: (-f[1], f[0]))]
    unnamed = current.other / totals[1] if not reference.other else 0.0
    new_rest = sum(bar["shares"][1] for bar in strange[BARS:]) + unnamed
    shown = [bar["shares"] for bar in (*bars, *strange[:BARS])]
    rest_old = 1.0 - sum(shares[0] for shares in shown)
    rest_new = 1.0 - sum(shares[1] for shares in shown) - new_rest
    return {
        "kind": "bars",
        "bars": bars,
        "rest": (_kept(rest_old), _kept(rest_new)),
        "new": strange[:BARS],
        "new_rest": _kept(new_rest),
    }


def _bar(name: str, reference: float, current: float) -> Bar:
    kept = name if len(name) <= NAME_MAX else name[: NAME_MAX - 1] + "…"
    return {"name": kept, "shares": (_kept(reference), _kept(current))}


def _kept(share: float) -> float:
    """Six digits after the point are more than a plot can show; rounding leaves no share below nothing."""
    return max(0.0, round(float(share), 6))
