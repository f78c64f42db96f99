"""Profiles add up: the whole's is the sum of its parts', whatever the values and however they are cut."""

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrainer.drift import counting
from retrainer.drift.counting import UNSEEN_MAX, count_numbers, merge_numbers
from retrainer.drift.grid import CategoryGrid, Grid, NumberGrid, choose, number_grid
from retrainer.drift.profile import Builder, Categories, MixedZonesError, Numbers, Profile, merge, reference
from retrainer.drift.sample import SAMPLE_ROWS, rows_max
from retrainer.drift.values import canonical

SPEC: Any = {"x": "numerical", "c": "categorical"}
WORDS = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "unseen", "é", ""]))
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 3.0, math.nan, math.inf, -math.inf, None]),
    st.floats(-1e6, 1e6),
    st.floats(width=32, allow_nan=True, allow_infinity=True),
)
ROWS = st.lists(st.tuples(VALUES, WORDS), max_size=60)
GRID = choose(
    [{"x": canonical(pa.chunked_array([[float(i % 7) + (i % 3) / 9 for i in range(500)]]), "number"),
      "c": canonical(pa.chunked_array([["a", "b", "c", "b"] * 125]), "text")}],
    SPEC,
)  # fmt: skip


def columns(rows: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    return {
        "x": canonical(pa.chunked_array([pa.array([x for x, _ in rows], pa.float64())]), "number"),
        "c": canonical(pa.chunked_array([pa.array([c for _, c in rows], pa.string())]), "text"),
    }


def profile(rows: Sequence[tuple[Any, Any]], seed: str = "", grid: Grid = GRID) -> Profile:
    builder = Builder(grid, SPEC, seed)
    builder.add(columns(rows))
    return builder.profile()


def numbers(found: Profile) -> Numbers:
    column = found.columns["x"]
    assert isinstance(column, Numbers)
    return column


def categories(found: Profile) -> Categories:
    column = found.columns["c"]
    assert isinstance(column, Categories)
    return column


def counted(found: Profile) -> list[Any]:
    """All that must be exact."""
    x, c = numbers(found), categories(found)
    exact = [found.rows, x.counts.tolist(), x.nulls, x.infinite, repr(x.low), repr(x.high)]
    return [*exact, c.counts.tolist(), dict(c.unseen), c.other, c.nulls]


@settings(max_examples=200, deadline=None)
@given(a=ROWS, b=ROWS, seen=ROWS)
def test_the_profile_of_the_whole_is_the_sum_of_its_parts(a: list[Any], b: list[Any], seen: list[Any]) -> None:
    grid = choose([columns(seen)], SPEC)
    whole, summed = profile([*a, *b], "", grid), merge([profile(a, "a", grid), profile(b, "b", grid)])
    assert counted(whole) == counted(summed)
    one, two = numbers(whole), numbers(summed)
    np.testing.assert_allclose(one.sums, two.sums, rtol=1e-12, atol=1e-300)
    finite = [x for x, _ in (*a, *b) if x is not None and math.isfinite(x)]
    size = max(map(abs, finite), default=0.0)
    np.testing.assert_allclose([one.mean, one.m2], [two.mean, two.m2], rtol=1e-9, atol=1e-9 * size * (1 + size))


@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_it_counts_what_a_loop_over_the_rows_counts(rows: list[Any]) -> None:
    found, (values, words) = profile(rows), ([x for x, _ in rows], [c for _, c in rows])
    finite = [x for x in values if x is not None and math.isfinite(x)]
    x, c = numbers(found), categories(found)
    assert (found.rows, x.values) == (len(rows), len(finite))
    assert x.nulls == sum(v is None or math.isnan(v) for v in values)
    assert x.infinite == sum(v is not None and math.isinf(v) for v in values)
    grid = GRID.columns["x"]
    assert isinstance(grid, NumberGrid)
    assert (
        x.counts.tolist()
        == np.bincount(np.searchsorted(grid.edges, finite, side="right"), minlength=len(grid.edges) + 1).tolist()
    )
    if finite:
        assert (x.low, x.high) == (min(finite), max(finite))
        assert x.mean == pytest.approx(np.mean(finite), rel=1e-9, abs=1e-9 * max(map(abs, finite)))
    assert Counter(words) == Counter(
        {None: c.nulls, **dict(zip(GRID.columns["c"].names, c.counts.tolist(), strict=True)), **c.unseen}  # type: ignore[union-attr]
    )
    assert c.other == 0


def test_a_column_without_a_value_has_no_mean() -> None:
    x = numbers(profile([(None, None), (math.nan, "a"), (math.inf, "b")]))
    assert (x.values, x.nulls, x.infinite, x.m2) == (0, 2, 1, 0.0)
    assert math.isnan(x.low)
    assert math.isnan(x.high)
    assert math.isnan(x.mean)


def test_no_rows_at_all_are_a_profile_too() -> None:
    empty, some = profile([]), profile([(1.0, "a")], "other")
    assert empty.rows == 0
    assert counted(merge([empty, some])) == counted(some)
    assert len(merge([empty, empty]).sample.columns["x"]) == 0


def test_a_grid_chosen_without_a_value_still_counts() -> None:
    grid = choose([columns([(None, None)])], SPEC)
    found = profile([(1.0, "a"), (2.0, "a"), (None, None)], grid=grid)
    assert (numbers(found).counts.tolist(), numbers(found).sums.tolist()) == ([2], [3.0])
    assert dict(categories(found).unseen) == {"a": 2}


def test_chunks_of_any_length_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=5_000)
    edges = number_grid(values[:900]).edges
    whole = count_numbers(values.copy(), edges)
    parts = merge_numbers([count_numbers(part.copy(), edges) for part in np.array_split(values, 37)])
    assert whole.counts.tolist() == parts.counts.tolist()
    np.testing.assert_allclose(parts.sums, whole.sums, rtol=1e-12)
    assert (parts.mean, parts.m2) == pytest.approx((values.mean(), values.var() * len(values)), rel=1e-12)


def test_a_spread_far_from_zero_keeps_its_digits() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=300_000)
    found = numbers(profile([(x, None) for x in values]))
    assert found.m2 / len(values) == pytest.approx(values.var(), rel=1e-6)


@pytest.mark.parametrize("values", [[1.7e308] * 4, [1.7e308, -1.7e308, 1.0, None], [5e-324, 0.0, 1.0]])
def test_values_near_the_largest_and_smallest_float_do_no_harm(values: list[float | None]) -> None:
    found = merge([profile([(x, None) for x in values], seed) for seed in "abc"])
    assert numbers(found).values == 3 * sum(x is not None for x in values)
    assert math.isfinite(numbers(found).mean)
    assert numbers(found).m2 >= 0


def test_the_largest_inflation_of_the_parts_is_the_whole_s() -> None:
    parts = [
        replace(numbers(profile([(1.0, "a")], seed)), inflation=spread) for seed, spread in (("a", 1.0), ("b", 2.5))
    ]
    assert merge_numbers(parts).inflation == 2.5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), skew=st.floats(1.05, 2.5))
def test_names_the_grid_lacks_are_counted_within_the_stated_bound(seed: int, skew: float) -> None:
    drawn = np.random.default_rng(seed).zipf(skew, size=6_000) % 4_000
    words = [f"new {number}" for number in drawn]
    parts = [profile([(None, word) for word in words[at : at + 1_500]], str(at)) for at in range(0, 6_000, 1_500)]
    found, true = categories(merge(parts)), Counter(words)
    assert len(found.unseen) <= UNSEEN_MAX
    assert found.other + sum(found.unseen.values()) == len(words)
    for word, rows in true.items():
        assert found.unseen.get(word, 0) <= rows <= found.unseen.get(word, 0) + found.other / (UNSEEN_MAX + 1)


def test_ids_that_never_repeat_are_not_kept() -> None:
    found = categories(profile([(None, f"id {number}") for number in range(50_000)]))
    assert (len(found.unseen), found.other) == (0, 50_000)


def test_a_text_that_is_too_long_is_counted_but_not_named() -> None:
    whole = profile([(None, "x" * 10_000), (None, "new")])
    found = categories(whole)
    assert (dict(found.unseen), found.other) == ({"new": 1}, 1)
    assert {len(word) for word in whole.sample.columns["c"]} == {3, counting.NAME_LENGTH_MAX + 1}


def test_profiles_on_different_grids_do_not_merge() -> None:
    other = replace(GRID, columns={**GRID.columns, "c": CategoryGrid(("z",), True)})
    with pytest.raises(ValueError, match="one grid"):
        merge([profile([(1.0, "a")]), profile([(1.0, "a")], grid=other)])
    with pytest.raises(ValueError, match="one grid"):
        merge([])


def test_a_reference_knows_how_much_its_batches_differ() -> None:
    shifts = np.random.default_rng(0).normal(size=20)
    alike = [profile([(float(i % 7), "ab"[i % 2]) for i in range(200)], str(n)) for n in range(20)]
    apart = [profile([(float(i % 7) + shift, "a") for i in range(200)], str(n)) for n, shift in enumerate(shifts)]
    assert numbers(reference(alike)).inflation == 1.0
    assert numbers(reference(apart)).inflation > 5.0
    assert counted(reference(apart)) == counted(merge(apart))


def rows_of(found: Profile) -> list[tuple[Any, Any]]:
    return list(zip(found.sample.columns["x"].tolist(), found.sample.columns["c"].tolist(), strict=True))


def test_counting_needs_no_more_than_numpy_and_pyarrow() -> None:
    code = "import sys, retrainer.drift.stored; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pyarrow" in loaded
    assert not {"pydantic", "pandas", "scipy", "sklearn", "PIL", "retrainer.core"} & set(loaded)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(4)), cut=st.integers(1, 3))
def test_the_sample_is_the_same_in_whatever_order_parts_merge(order: list[int], cut: int) -> None:
    parts = [profile([(float(1_000 * n + i), f"w{n}") for i in range(700)], str(n)) for n in range(4)]
    shuffled = [parts[n] for n in order]
    straight, nested = merge(parts), merge([merge(shuffled[:cut]), merge(shuffled[cut:])])
    assert rows_of(straight) == rows_of(nested)
    assert np.all(np.diff(straight.sample.priorities.astype(object)) > 0)


def test_the_sample_is_the_same_however_the_rows_came() -> None:
    rows = [(float(i), str(i % 3)) for i in range(12_000)]
    one, many = Builder(GRID, SPEC, "seed"), Builder(GRID, SPEC, "seed")
    one.add(columns(rows))
    for at in range(0, len(rows), 1_111):
        many.add(columns(rows[at : at + 1_111]))
    assert rows_of(one.profile()) == rows_of(many.profile())
    assert len(one.profile().sample.priorities) == SAMPLE_ROWS
    assert counted(one.profile()) == counted(many.profile())


def test_the_sample_is_uniform_over_batches_and_rows() -> None:
    parts = [profile([(float(i), "a") for i in range(n * 20_000, (n + 1) * 20_000)], f"batch {n}") for n in range(5)]
    drawn = merge(parts).sample.columns["x"]
    shares = np.histogram(drawn, bins=10, range=(0, 100_000))[0]
    assert ((shares - 500) ** 2 / 500).sum() < 27.9  # chi-square with 9 degrees of freedom, p = 0.001


def test_a_wide_sample_has_fewer_rows() -> None:
    assert (rows_max(1), rows_max(200), rows_max(1_000), rows_max(100_000)) == (5_000, 5_000, 1_000, 100)


UTC_NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("times", "began", "zoned"),
    [
        (pa.array([UTC_NOON, None]), UTC_NOON, True),
        (pa.array([UTC_NOON.astimezone(timezone(timedelta(hours=5)))]), UTC_NOON, True),
        (pa.array([UTC_NOON.replace(tzinfo=None)]), UTC_NOON, False),
        (pa.array([UTC_NOON.replace(tzinfo=None)], pa.timestamp("ns")), UTC_NOON, False),
        (pa.array([date(2026, 3, 1)]), UTC_NOON.replace(hour=0), False),
        (pa.array(["2026-03-01T12:00:00Z", None, ""]), UTC_NOON, True),
        (pa.array(["2026-03-01 14:00:00.000+02:00", "2026-03-01T12:00:01Z"]), UTC_NOON, True),
        (pa.array(["2026-03-01T12:00:00.123456789"]), UTC_NOON.replace(microsecond=123_456), False),
        (pa.array(["2026-03-01T12:00:00"]).dictionary_encode(), UTC_NOON, False),
        (pa.array(["2026-03-01"]), UTC_NOON.replace(hour=0), False),
        (pa.array(["yesterday", "2026-13-45"]), None, None),
        (pa.array([17, 18]), None, None),
        (pa.nulls(3), None, None),
        (pa.nulls(3, pa.timestamp("us", "UTC")), None, None),
        (pa.array([2**62], pa.timestamp("us")), None, None),
    ],
)
def test_a_time_span_is_read_of_times_dates_and_texts(times: Any, began: datetime | None, zoned: bool | None) -> None:
    builder = Builder(GRID, SPEC, "")
    builder.add(columns([(1.0, "a")] * len(times)), pa.chunked_array([times]))
    found = builder.profile()
    assert (found.began, found.zoned) == (began, zoned)
    assert (found.ended is None) == (began is None)


MIXED: list[Mapping[int, Any]] = [
    {0: ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00"]},
    {0: ["2026-03-01T12:00:00", "2026-03-01T12:00:00+02:00"]},
    {0: ["2026-03-01T12:00:00Z"], 1: ["2026-03-01T12:00:00"]},
]


@pytest.mark.parametrize("chunks", MIXED)
def test_times_with_and_without_a_zone_are_refused_before_their_rows_are_counted(chunks: Mapping[int, Any]) -> None:
    builder = Builder(GRID, SPEC, "")
    *good, bad = chunks.values()
    for times in good:
        builder.add(columns([(1.0, "a")] * len(times)), pa.chunked_array([times]))
    with pytest.raises(MixedZonesError):
        builder.add(columns([(1.0, "a")] * len(bad)), pa.chunked_array([bad]))
    assert builder.profile().rows == sum(map(len, good))


def test_batches_that_disagree_about_zones_have_no_time_span_together() -> None:
    one, other = Builder(GRID, SPEC, "1"), Builder(GRID, SPEC, "2")
    one.add(columns([(1.0, "a")]), pa.chunked_array([["2026-03-01T12:00:00Z"]]))
    other.add(columns([(1.0, "a")]), pa.chunked_array([["2026-03-02T12:00:00"]]))
    found = merge([one.profile(), other.profile()])
    assert (found.rows, found.began, found.ended, found.zoned) == (2, None, None, None)
    early, late = merge([one.profile(), profile([], "3")]), merge([other.profile(), profile([], "3")])
    assert (early.zoned, late.zoned) == (True, False)
