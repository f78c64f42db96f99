"""Embeddings and images as a few numbers each."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrainer.drift import derived
from retrainer.drift.derived import OF_EMBEDDING, OF_IMAGE
from retrainer.drift.grid import choose
from retrainer.drift.profile import Builder, Numbers, merge
from retrainer.drift.values import WrongTypeError, canonical, numbers

RNG = np.random.default_rng(0)
SPREAD = np.array([5.0, 3.0, 2.0, 1.5, 0.1, 0.1, 0.1, 0.1])
VECTORS = (RNG.normal(size=(2_000, 8)) * SPREAD + 1).astype(np.float32)
SPEC: Any = {"e": "embedding"}


def vectors(rows: Any, size: int = -1) -> Any:
    return canonical(pa.chunked_array([pa.array(list(rows), pa.list_(pa.float32(), size))]), "vector")


def spread(rows: Any) -> dict[str, Any]:
    grid = choose([{"e": vectors(VECTORS)}], SPEC)
    made = derived.spread({"e": vectors(rows)}, SPEC, grid.projections)
    return {name: numbers(column) for name, column in made.items()}


def test_components_are_the_principal_ones() -> None:
    found = derived.project(VECTORS)
    _, _, true = np.linalg.svd(VECTORS - VECTORS.mean(axis=0), full_matrices=False)
    assert np.abs((found.components @ true[:4].T).diagonal()) == pytest.approx(np.ones(4), abs=1e-3)
    assert found.mean == pytest.approx(VECTORS.mean(axis=0), rel=1e-5)


def test_an_embedding_is_its_length_its_distance_and_its_place() -> None:
    found = spread(VECTORS[:5])
    assert list(found) == [f"e.{suffix}" for suffix in OF_EMBEDDING]
    assert found["e.norm"] == pytest.approx(np.linalg.norm(VECTORS[:5], axis=1))
    assert found["e.distance"] == pytest.approx(np.linalg.norm(VECTORS[:5] - VECTORS.mean(axis=0), axis=1), rel=1e-4)


def test_a_null_or_broken_vector_is_null() -> None:
    found = spread([None, VECTORS[0], [np.nan] * 8])
    assert np.isnan(found["e.pc1"]).tolist() == [True, False, True]


def test_a_window_without_a_vector_has_nulls_only() -> None:
    assert np.isnan(spread([None, None])["e.norm"]).all()
    assert len(spread([])["e.norm"]) == 0
    column = canonical(pa.chunked_array([pa.nulls(2)]), "vector")
    grid = choose([{"e": column}], SPEC)
    builder = Builder(grid, SPEC, "")
    builder.add({"e": column})
    builder.add({"e": vectors(VECTORS)})
    norm = builder.profile().columns["e.norm"]
    assert isinstance(norm, Numbers)
    assert (norm.nulls, norm.values) == (2_002, 0)


def test_vectors_of_another_length_are_of_the_wrong_type() -> None:
    with pytest.raises(WrongTypeError, match="vectors of 3 numbers, not 8"):
        spread([[1, 2, 3]])
    with pytest.raises(WrongTypeError, match="vectors of 1 to 2 numbers"):
        vectors([[1], [1, 2]])
    with pytest.raises(WrongTypeError, match="not lists of numbers"):
        canonical(pa.chunked_array([[["a"]]]), "vector")


def test_a_grid_is_chosen_from_the_vectors_of_the_most_common_length() -> None:
    none = canonical(pa.chunked_array([pa.nulls(5)]), "vector")
    grid = choose([{"e": none}, {"e": vectors([[1, 2, 3]])}, {"e": vectors(VECTORS)}], SPEC)
    assert grid.projections["e"].mean == pytest.approx(VECTORS.mean(axis=0), rel=1e-4)


@pytest.mark.parametrize("of", [pa.float64(), pa.int32(), pa.float16()])
def test_vectors_of_any_numbers_are_read(of: Any) -> None:
    held = pa.chunked_array([pa.array([[1, 2], None, [3, 4]], pa.list_(of))])
    rows = derived.vectors(canonical(held, "vector").chunk(0).slice(1))
    assert rows.tolist()[1] == [3.0, 4.0]
    assert np.isnan(rows[0]).all()


def test_profiles_of_embeddings_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "_BLOCK", 800)
    grid = choose([{"e": vectors(VECTORS)}], SPEC)
    whole, *parts = (Builder(grid, SPEC, seed) for seed in ("", "a", "b"))
    whole.add({"e": vectors(VECTORS)})
    parts[0].add({"e": vectors(VECTORS[:700])})
    parts[1].add({"e": vectors(VECTORS[700:])})
    summed = merge([part.profile() for part in parts])
    for name, column in whole.profile().columns.items():
        other = summed.columns[name]
        assert isinstance(column, Numbers)
        assert isinstance(other, Numbers)
        assert column.counts.tolist() == other.counts.tolist()
    assert summed.sample.columns.keys() == grid.columns.keys()


def encoded(pixels: Any, kind: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).convert(mode).save(stream, kind)
    return stream.getvalue()


def looks(*images: bytes | None) -> dict[str, list[float]]:
    column = canonical(pa.chunked_array([pa.array(images, pa.binary())]), "image")
    made = derived.spread({"i": column}, {"i": "image"}, {})
    return {name.removeprefix("i."): numbers(one).tolist() for name, one in made.items()}


def test_an_image_is_its_light_its_colour_its_edges_and_its_size() -> None:
    grey, red = np.full((20, 30, 3), 128), np.full((20, 30, 3), (255, 0, 0))
    checked = np.indices((20, 30)).sum(axis=0)[:, :, None] % 2 * np.full(3, 255)
    found = looks(encoded(grey), encoded(red), encoded(checked))
    assert list(found) == list(OF_IMAGE)
    assert found["brightness"] == pytest.approx([128 / 255, 0.299, 0.5], abs=0.002)
    assert found["contrast"] == pytest.approx([0, 0, 0.5], abs=1e-6)
    assert found["saturation"] == [0, 1, 0]
    assert found["sharpness"][0] == pytest.approx(0, abs=1e-12)
    assert found["sharpness"][2] > 1
    assert (found["width"], found["height"]) == ([30] * 3, [20] * 3)


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1")]
)
def test_images_of_every_mode_are_read(kind: str, mode: str) -> None:
    found = looks(encoded(np.full((300, 600, 3), 255), kind, mode))
    assert found["brightness"] == pytest.approx([1.0], abs=0.01)
    assert (found["width"], found["height"]) == ([600], [300])


def test_what_is_no_image_is_null_and_harms_nothing() -> None:
    good = encoded(np.zeros((4, 4, 3)))
    found = looks(None, b"", b"GIF89a nothing", good[:40], b"\x89PNG\r\n\x1a\n" + b"\0" * 50, good)
    assert np.isnan(found["brightness"]).tolist() == [True] * 5 + [False]


def test_an_image_too_large_to_decode_still_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "PIXELS_MAX", 10)
    found = looks(encoded(np.zeros((4, 5, 3))))
    assert found["width"] == [5]
    assert np.isnan(found["brightness"]).all()


def test_images_are_watched_as_numbers_are() -> None:
    column = canonical(
        pa.chunked_array([pa.array([{"bytes": encoded(np.full((4, 4, 3), n)), "path": "x"} for n in range(9)])]),
        "image",
    )
    grid = choose([{"i": column}], {"i": "image"})
    builder = Builder(grid, {"i": "image"}, "")
    builder.add({"i": column})
    assert set(builder.profile().columns) == {f"i.{suffix}" for suffix in OF_IMAGE}
    with pytest.raises(WrongTypeError, match="not encoded images"):
        canonical(pa.chunked_array([["a"]]), "image")
