"""Grids and profiles as bytes: the same when read back, and an error when they are anything else."""

import contextlib
import dataclasses
import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrainer.drift import stored
from retrainer.drift.grid import choose
from retrainer.drift.keys import Demand, grid_key, profile_key, reference_key
from retrainer.drift.profile import Builder, merge
from retrainer.drift.stored import BrokenProfileError, dump, load_grid, load_profile
from retrainer.drift.values import canonical

SPEC: Any = {"x": "numerical", "c": "categorical", "e": "embedding"}
COLUMNS = {
    "x": canonical(pa.chunked_array([[0.0, -1.5, None, math.inf, 1e300, 5e-324]]), "number"),
    "c": canonical(pa.chunked_array([["a", "é", None, "", "a", "\x00"]]), "text"),
    "e": canonical(pa.chunked_array([[[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0], [0.0, 1.0], [9.0, 9.0]]]), "vector"),
}
GRID = choose([{name: column.slice(0, 4) for name, column in COLUMNS.items()}], SPEC)
BUILDER = Builder(GRID, SPEC, "seed")
BUILDER.add(COLUMNS, pa.chunked_array([[datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 6, UTC)] * 3]))
PROFILE = BUILDER.profile()


def plain(value: Any) -> Any:
    """With lists for arrays, so that NaN and -0.0 are told by their spelling."""
    if isinstance(value, np.ndarray):
        return [str(value.dtype), *map(repr, value.tolist())]
    if isinstance(value, dict):
        return {name: plain(held) for name, held in value.items()}
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return repr(value)


def test_what_is_stored_is_what_is_read() -> None:
    assert plain(load_grid(dump(GRID))) == plain(GRID)
    assert load_grid(dump(GRID)).id == GRID.id == PROFILE.grid
    assert plain(load_profile(dump(PROFILE))) == plain(PROFILE)
    assert dump(load_profile(dump(PROFILE))) == dump(PROFILE)


def test_an_empty_profile_is_stored_too() -> None:
    empty = Builder(GRID, SPEC, "").profile()
    assert plain(load_profile(dump(empty))) == plain(empty)
    assert load_grid(dump(choose([], {}))).columns == {}


def test_what_is_read_merges_as_what_was_stored() -> None:
    assert plain(merge([load_profile(dump(PROFILE)), PROFILE])) == plain(merge([PROFILE, PROFILE]))


def test_a_profile_of_a_small_batch_is_small() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1_000))
    columns = {f"x{n}": canonical(pa.chunked_array([row]), "number") for n, row in enumerate(values)}
    spec: Any = dict.fromkeys(columns, "numerical")
    builder = Builder(choose([columns], spec), spec, "")
    builder.add(columns)
    assert len(dump(builder.profile())) < 3 * values.nbytes


def test_one_is_not_read_as_the_other() -> None:
    with pytest.raises(BrokenProfileError, match="it is a grid"):
        load_profile(dump(GRID))
    with pytest.raises(BrokenProfileError, match="it is a profile"):
        load_grid(dump(PROFILE))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 255))
def test_bytes_that_are_anything_else_raise_one_error_or_are_the_same(noise: bytes, at: int, flip: int) -> None:
    good = dump(PROFILE)
    broken = bytearray(good)
    broken[at % len(good)] ^= flip
    for hostile in (noise, stored._MAGIC + noise, good[: at % len(good)], good[:16] + noise):
        with pytest.raises(BrokenProfileError):
            load_profile(hostile)
    with contextlib.suppress(BrokenProfileError):  # zstd has bits that say nothing
        assert plain(load_profile(bytes(broken))) == plain(PROFILE)


def rewritten(change: Callable[[bytearray], None], good: bytes) -> bytes:
    """With a right checksum, as only one who means it would write."""
    size = stored._HEAD.unpack_from(good)[2]
    body = bytearray(pa.decompress(good[stored._HEAD.size :], decompressed_size=size, codec="zstd", asbytes=True))
    change(body)
    packed: bytes = pa.compress(bytes(body), codec="zstd", asbytes=True)
    return stored._HEAD.pack(stored._MAGIC, zlib.crc32(body), len(body)) + packed


def forged(change: Callable[[Any], Any], good: bytes) -> bytes:
    """With something else in its JSON."""

    def rewrite(body: bytearray) -> None:
        (length,) = struct.unpack_from("<Q", body)
        told = json.loads(body[8 : 8 + length])
        change(told)
        written = json.dumps(told).encode()
        body[: 8 + length] = struct.pack("<Q", len(written)) + written

    return rewritten(rewrite, good)


FORGERIES: list[Callable[[Any], Any]] = [
    lambda told: told.update(rows=-1),
    lambda told: told.update(rows=1.5),
    lambda told: told.update(rows=True),
    lambda told: told.update(grid=None),
    lambda told: told.update(columns=None),
    lambda told: told.update(sample=[]),
    lambda told: told.update(span=[0, 10**30, True]),
    lambda told: told.update(span=[0, 0, "yes"]),
    lambda told: told.update(priorities=[0, 3, 10**17]),
    lambda told: told.update(priorities=[10**17, 3, 6]),
    lambda told: told.update(priorities=[-8, 3, 6]),
    lambda told: told.update(priorities=[0, 99, 6]),
    lambda told: told["columns"][0].__setitem__(2, [0, 5, 2]),
    lambda told: told["columns"][0].__setitem__(3, [0, 5, 1]),
    lambda told: told["columns"][0].__setitem__(0, 7),
    lambda told: told["columns"].__setitem__(0, "x"),
    lambda told: told.pop("is"),
]


@pytest.mark.parametrize("change", FORGERIES)
def test_forged_bytes_with_a_right_checksum_raise_it_too(change: Callable[[Any], Any]) -> None:
    assert plain(load_profile(forged(lambda told: None, dump(PROFILE)))) == plain(PROFILE)
    with pytest.raises(BrokenProfileError):
        load_profile(forged(change, dump(PROFILE)))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from('0123456789[]{}",:-eEnul'), st.integers(0, 10_000))
def test_one_wrong_letter_is_another_profile_or_that_error(at: int, letter: str, other: int) -> None:
    def change(body: bytearray) -> None:
        (length,) = struct.unpack_from("<Q", body)
        body[8 + at % length] = body[8 + other % length] if other % 2 else ord(letter)

    with contextlib.suppress(BrokenProfileError):
        load_profile(rewritten(change, dump(PROFILE)))


def test_a_grid_whose_edges_are_not_sorted_is_broken() -> None:
    with pytest.raises(BrokenProfileError, match="sorted"):
        load_grid(forged(lambda told: told["columns"].append(["y", [8, 5, 3]]), _unsorted()))


def _unsorted() -> bytes:
    grid = load_grid(dump(GRID))
    edges = grid.columns["x"].edges  # type: ignore[union-attr]
    edges[:] = edges[::-1].copy()
    return dump(grid)


def test_bytes_that_claim_to_be_huge_are_not_unpacked() -> None:
    bomb = stored._HEAD.pack(stored._MAGIC, 0, stored.SIZE_MAX + 1) + pa.compress(
        b"0" * 10_000, codec="zstd", asbytes=True
    )
    with pytest.raises(BrokenProfileError, match="too large"):
        load_profile(bomb)


def test_keys_are_the_same_for_the_same_and_differ_for_others() -> None:
    one, two = ("b", "k1", "v"), ("b", "k2", "v")
    some, same = Demand(required=("a", "b"), timestamp="at"), Demand(required=("b", "a", "b"), timestamp="at")
    assert grid_key("p/", [one, two], SPEC, some) == grid_key("p/", [two, one], dict(reversed(SPEC.items())), same)
    assert profile_key("p/", GRID.id, one, some) == profile_key("p/", GRID.id, one, same)
    demands = [Demand(), some, replace(some, timestamp=None), replace(some, written_as="csv"), Demand(required=("at",))]
    keys = [
        key
        for demand in demands
        for key in (
            grid_key("p/", [one], SPEC, demand),
            grid_key("p/", [one], {"x": "numerical"}, demand),
            grid_key("p/", [two], SPEC, demand),
            profile_key("p/", GRID.id, one, demand),
            profile_key("p/", "0" * 16, one, demand),
            profile_key("p/", GRID.id, two, demand),
            reference_key("p/", GRID.id, [one, two], demand),
            reference_key("p/", GRID.id, [two, one], demand),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith("p/") and key.isascii() and len(key) < 120 for key in keys)
