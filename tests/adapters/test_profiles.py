"""A batch is counted once on each grid, wherever the profile is remembered; what is stored may be missing or broken."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from retrainer.adapters.datasets.profiles import Profiles, Unread, Watch
from retrainer.core.window import Batch
from retrainer.drift import profile as profiling
from retrainer.drift.grid import Grid
from retrainer.drift.profile import Categories, Numbers, Profile
from tests.fakes.lake import Lake

WATCH = Watch(
    spec={"amount": "numerical", "item": "categorical"},
    bucket="lake",
    prefix="profiles/m/",
    required=("request",),
    timestamp="at",
)


def rows(seed: int, count: int = 1_000) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "request": [f"{seed}-{i}" for i in range(count)],
        "at": [f"2026-01-{1 + seed:02}T00:00:{i % 60:02}Z" for i in range(count)],
        "amount": rng.normal(size=count),
        "item": [f"i{i}" for i in rng.integers(0, 5, count)],
    }


@pytest.fixture
def lake() -> Lake:
    return Lake()


def counted(lake: Lake, batches: list[Batch], profiles: Profiles | None = None) -> Profile:
    profiles = profiles or Profiles(lake)
    found = profiles.window(batches, profiles.grid(batches[:2], WATCH), WATCH).profile
    assert found
    return found


def same(one: Profile, other: Profile) -> bool:
    def told(profile: Profile) -> list[Any]:
        return [
            (name, held.counts.tolist(), held.nulls, held.sums.tolist() if isinstance(held, Numbers) else held.unseen)
            for name, held in profile.columns.items()
        ]

    return told(one) == told(other) and (one.rows, one.began, one.ended) == (other.rows, other.began, other.ended)


def test_sliding_windows_read_each_batch_once_and_so_does_another_worker_after_them(lake: Lake) -> None:
    batches = [lake.put(f"b{i}", rows(i)) for i in range(8)]
    first = Profiles(lake)
    grid = first.grid(batches[:2], WATCH)
    windows = [first.window(batches[i : i + 3], grid, WATCH).profile for i in range(6)]
    assert sorted(lake.keys_read) == sorted(["b0", "b1", *(b.key for b in batches)])
    lake.read_.clear()
    second = Profiles(lake)
    assert second.grid(batches[:2], WATCH).id == grid.id
    again = [second.window(batches[i : i + 3], grid, WATCH).profile for i in range(6)]
    assert lake.keys_read == []
    assert all(old and new and same(old, new) for old, new in zip(windows, again, strict=True))


def test_a_window_has_the_rows_and_the_time_span_of_its_batches(lake: Lake) -> None:
    batches = [lake.put(f"b{i}", rows(i)) for i in range(3)]
    found = counted(lake, batches)
    assert (found.rows, found.columns["amount"].counts.sum()) == (3_000, 3_000)
    assert (str(found.began), str(found.ended)) == ("2026-01-01 00:00:00+00:00", "2026-01-03 00:00:59+00:00")


def test_two_workers_that_race_store_the_same_bytes(lake: Lake) -> None:
    other = Lake()
    for house in (lake, other):
        counted(house, [house.put(f"b{i}", rows(i)) for i in range(3)])
    assert lake.objects == other.objects
    assert len(lake.objects) == 4


@pytest.mark.parametrize("broken", [b"", b"RTP1", b"\x00" * 1_000, None], ids=["empty", "cut", "zeros", "foreign"])
def test_a_broken_stored_object_is_made_anew(lake: Lake, broken: bytes | None) -> None:
    batches = [lake.put(f"b{i}", rows(i)) for i in range(3)]
    before = counted(lake, batches)
    whole = dict(lake.objects)
    foreign = next(body for key, body in whole.items() if "batch-" in key)
    lake.objects = dict.fromkeys(whole, foreign[::-1] if broken is None else broken)
    assert same(counted(lake, batches), before)
    assert lake.objects == whole


def test_a_profile_of_another_grid_in_its_place_is_not_believed(lake: Lake) -> None:
    batches = [lake.put(f"b{i}", rows(i)) for i in range(3)]
    before = counted(lake, batches)
    other = Lake()
    counted(other, [other.put("b9", rows(9)), other.put("b8", rows(8))])
    foreign = next(body for key, body in other.objects.items() if "batch-" in key)
    lake.objects |= {key: foreign for key in lake.objects if "batch-" in key}
    assert same(counted(lake, batches), before)


def test_where_nothing_can_be_stored_the_rows_are_read_again_after_a_restart(lake: Lake) -> None:
    lake.is_readonly = True
    batches = [lake.put(f"b{i}", rows(i)) for i in range(3)]
    before = counted(lake, batches)
    assert same(counted(lake, batches), before)
    assert lake.keys_read.count("b2") == 2


def test_under_another_policy_a_batch_is_checked_again_and_under_the_old_one_it_is_known(lake: Lake) -> None:
    batch = lake.put("b", rows(0))
    grid = Profiles(lake).grid([batch], WATCH)
    assert not Profiles(lake).window([batch], grid, WATCH).unread
    for changed, why in (
        ({"required": ("request", "label")}, "it has no column 'label'"),
        ({"timestamp": "seen_at"}, "it has no column 'seen_at'"),
        ({"written_as": "jsonl"}, "line 1 is not JSON"),
    ):
        watch = replace(WATCH, **changed)
        for found in (Profiles(lake).window([batch], grid, watch), Profiles(lake).reference([batch], grid, watch)):
            assert [why in u.refusal.why for u in found.unread] == [True]
    lake.read_.clear()
    assert not Profiles(lake).window([batch], grid, WATCH).unread
    assert lake.keys_read == []


def test_without_a_prefix_nothing_is_stored_and_all_is_remembered(lake: Lake) -> None:
    batch, watch = lake.put("b", rows(0)), replace(WATCH, prefix="")
    profiles = Profiles(lake)
    for _ in range(3):
        profiles.window([batch], profiles.grid([batch], watch), watch)
    assert (lake.keys_read, lake.objects) == (["b", "b"], {})


def test_what_is_remembered_is_bounded_and_then_it_is_loaded(lake: Lake) -> None:
    batches = [lake.put(f"b{i}", rows(i)) for i in range(4)]
    small = Profiles(lake, cache_bytes=100_000)
    before = counted(lake, batches, small)
    lake.read_.clear()
    assert same(counted(lake, batches, small), before)
    assert lake.keys_read == []
    assert len(small._known) < 4


def test_the_references_sum_is_stored_and_needs_none_of_its_batches(lake: Lake) -> None:
    batches = [lake.put(f"b{i}", rows(i)) for i in range(10)]
    profiles = Profiles(lake)
    grid = profiles.grid(batches, WATCH)
    before = profiles.reference(batches, grid, WATCH)
    parts = [cast(Profile, profiles.batch(b, grid, WATCH)) for b in batches]
    whole = profiling.reference(parts)
    assert before.profile
    assert same(before.profile, whole)
    assert {n: c.inflation for n, c in before.profile.columns.items()} == {
        n: c.inflation for n, c in whole.columns.items()
    }
    lake.objects = {key: body for key, body in lake.objects.items() if "batch-" not in key}
    lake.batches.clear()
    after = Profiles(lake).reference(batches, grid, WATCH)
    assert after.profile
    assert same(after.profile, before.profile)
    assert after.rows == 10_000


def test_a_reference_of_which_a_batch_is_gone_is_not_stored(lake: Lake) -> None:
    batches = [lake.put(f"b{i}", rows(i)) for i in range(3)]
    del lake.batches["b1"]
    profiles = Profiles(lake)
    grid = profiles.grid(batches, WATCH)
    for _ in range(2):
        found = profiles.reference(batches, grid, WATCH)
        assert (found.rows, [r.key for r in found.refused]) == (2_000, ["b1"])
    assert not [key for key in lake.objects if "reference-" in key]


def bad(**changed: Any) -> dict[str, Any]:
    return {**rows(0), **changed}


@pytest.mark.parametrize(
    ("columns", "why", "column"),
    [
        (b"PAR1", "it cannot be read as parquet: ", None),
        (bad(amount=["old"] * 1_000), "column 'amount' holds string, not numbers", "amount"),
        (bad(item=[[1]] * 1_000), "column 'item' holds list<element: int64>, not texts or numbers", "item"),
        (
            bad(at=["2026-01-01", "2026-01-01T00:00Z"] * 500),
            "column 'at': some of its times have a time zone and some have none",
            "at",
        ),
        ({k: v for k, v in rows(0).items() if k != "request"}, "it has no column 'request'; it has at, amount", None),
        ({k: v for k, v in rows(0).items() if k != "at"}, "it has no column 'at'", None),
    ],
    ids=["cut", "words", "lists", "zones", "no request", "no at"],
)
def test_a_batch_that_cannot_be_used_says_why(
    lake: Lake, columns: dict[str, Any] | bytes, why: str, column: str | None
) -> None:
    profiles = Profiles(lake)
    grid = profiles.grid([lake.put("good", rows(1))], WATCH)
    found = profiles.batch(lake.put("bad", columns), grid, WATCH)
    assert isinstance(found, Unread)
    assert found.refusal.why.startswith(why)
    assert found.column == column
    assert not [key for key in lake.objects if "batch-" in key]


@pytest.mark.parametrize(
    "columns",
    [
        bad(amount=[np.inf, -np.inf, np.nan, 1e308, -1e308] * 200),
        bad(amount=[None] * 1_000, item=[None] * 1_000),
        bad(item=["x" * 10_000] * 1_000),
        bad(item=[f"once {i}" for i in range(1_000)]),
        bad(at=[True] * 1_000),
        bad(at=[[1]] * 1_000),
        bad(at=["9999-12-31T23:59:59Z", "not a time"] * 500),
        bad(amount=[True] * 1_000, item=[1e300] * 1_000),
    ],
    ids=["infinite", "null", "long", "unique", "flags", "lists", "far", "other types"],
)
def test_strange_values_are_counted(lake: Lake, columns: dict[str, Any]) -> None:
    profiles = Profiles(lake)
    strange, good = lake.put("strange", columns), lake.put("good", rows(1))
    for grid_of in ([strange], [good], [good, strange]):
        grid = profiles.grid(grid_of, WATCH)
        found = profiles.window([strange, good], grid, WATCH)
        assert (found.rows, found.unread) == (2_000, ())
        held = found.profile.columns["item"] if found.profile else None
        assert isinstance(held, Categories)
        assert held.counts.sum() + sum(held.unseen.values()) + held.other + held.nulls == 2_000
    again = Profiles(lake).window([strange, good], grid, WATCH)
    assert again.profile
    assert found.profile
    assert same(again.profile, found.profile)


def test_batches_with_and_without_time_zones_are_told_apart(lake: Lake) -> None:
    zoned, plain = lake.put("z", rows(0)), lake.put("p", bad(at=["2026-01-01T00:00:00"] * 1_000))
    profiles = Profiles(lake)
    found = profiles.window([zoned, plain, zoned], profiles.grid([zoned], WATCH), WATCH)
    assert found.zoned == (2, 1)
    assert found.rows == 3_000


def test_vectors_of_another_length_are_refused_and_choose_no_grid(lake: Lake) -> None:
    watch = Watch(spec={"v": "embedding"}, bucket="lake", prefix="p/")
    long, short = lake.put("long", {"v": [[1.0, 2.0, 3.0]] * 50}), lake.put("short", {"v": [[1.0, 2.0]] * 50})
    profiles = Profiles(lake)
    grid = profiles.grid([long, short], watch)
    found = profiles.window([short, long], grid, watch)
    assert found.rows == 50
    assert [r.why for r in found.refused] == ["one of its columns holds vectors of 2 numbers, not 3"]


def test_without_anything_to_compare_with_rows_are_still_counted(lake: Lake) -> None:
    profiles = Profiles(lake)
    assert profiles.grid([], WATCH) == Grid({}, {})
    found = profiles.window([lake.put("b", rows(0)), lake.put("bad", bad(amount=["x"] * 1_000))], Grid({}, {}), WATCH)
    assert (found.rows, [r.key for r in found.refused]) == (1_000, ["bad"])
    assert Profiles(lake).window([lake.put("b", rows(0))], Grid({}, {}), WATCH).rows == 1_000


def test_a_fixed_reference_that_is_overwritten_is_counted_again(lake: Lake) -> None:
    lake.put("fixed", rows(0))
    named = Batch(bucket="lake", key="fixed", version="", size_bytes=0)
    before = Profiles(lake).against([named], [named], WATCH)[1]
    lake.put("fixed", rows(1, 500))
    after = Profiles(lake).against([named], [named], WATCH)[1]
    assert (before.rows, after.rows) == (1_000, 500)


def test_one_column_can_be_had_row_by_row_and_one_that_is_derived_too(lake: Lake) -> None:
    batches = [lake.put(f"b{i}", rows(i)) for i in range(2)]
    profiles = Profiles(lake)
    grid = profiles.grid(batches, WATCH)
    amounts = profiles.rows("amount", batches, grid, WATCH)
    assert amounts is not None
    assert np.array_equal(amounts, np.concatenate([rows(i)["amount"] for i in range(2)]))
    items = profiles.rows("item", batches, grid, WATCH)
    assert items is not None
    assert items.tolist() == [*rows(0)["item"], *rows(1)["item"]]
    watch = Watch(spec={"v": "embedding"}, bucket="lake", prefix="p/")
    vectors = [lake.put("v", {"v": [[3.0, 4.0], [0.0, 0.0]]})]
    norms = profiles.rows("v.norm", vectors, profiles.grid(vectors, watch), watch)
    assert norms is not None
    assert norms.tolist() == [5.0, 0.0]
    lake.batches.clear()
    assert profiles.rows("amount", batches, grid, WATCH) is None
