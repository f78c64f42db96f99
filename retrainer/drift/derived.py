"""Numbers that say what embeddings and images are like, each a column to be watched as any other."""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrainer.drift.values import Floats, WrongTypeError

Spec = Mapping[str, Literal["numerical", "categorical", "embedding", "image"]]
"""The watched columns and their kinds."""

OF_EMBEDDING = ("norm", "distance", "pc1", "pc2", "pc3", "pc4")
"""Length, distance from the mean of the grid's sample, and place along its first principal components."""

OF_IMAGE = ("brightness", "contrast", "saturation", "sharpness", "width", "height")
"""Mean and standard deviation of the luma, mean saturation, variance of the luma's Laplacian, all of 0 to 1 and of the
image brought to 256 pixels; and its size. What is no PNG or JPEG is null."""

COMPONENTS = 4
PIXELS_MAX = 50_000_000
_SIDE = 256
_BLOCK = 1 << 20
_POWERS = 8


@dataclass(frozen=True, slots=True)
class Projection:
    """Of an embedding in the grid's sample: the mean, and the first principal components, one a row."""

    mean: Floats
    components: Floats


def names(spec: Spec) -> list[str]:
    """The columns that a grid of this spec has. Raises ValueError where two have one name."""
    found: list[str] = []
    for name, kind in spec.items():
        suffixes = {"embedding": OF_EMBEDDING, "image": OF_IMAGE}.get(kind)
        found += [f"{name}.{suffix}" for suffix in suffixes] if suffixes else [name]
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise ValueError(f"column {twice[0]!r} is watched, and is derived of another")
    return found


def spread(
    columns: Mapping[str, pa.ChunkedArray], spec: Spec, projections: Mapping[str, Projection]
) -> dict[str, pa.ChunkedArray]:
    """The columns, with those derived of each embedding and image in its place. Raises WrongTypeError."""
    found: dict[str, pa.ChunkedArray] = {}
    for name, kind in spec.items():
        if kind == "embedding":
            parts = [of_vectors(block, projections[name]) for block in _blocks(columns[name])]
            found |= _columns(name, OF_EMBEDDING, parts)
        elif kind == "image":
            found |= _columns(name, OF_IMAGE, [of_images(chunk) for chunk in columns[name].chunks])
        else:
            found[name] = columns[name]
    return found


def project(vectors: NDArray[np.float32]) -> Projection:
    """The mean and the principal components of a sample, by subspace iteration (Halko, Martinsson and Tropp 2011)."""
    finite = vectors[np.isfinite(vectors).all(axis=1)].astype(np.float64)
    width = vectors.shape[1]
    if not len(finite) or not width:
        return Projection(np.zeros(width), np.zeros((COMPONENTS, width)))
    mean = finite.mean(axis=0)
    finite -= mean
    basis = np.random.default_rng(0).standard_normal((width, min(2 * COMPONENTS, width)))
    for _ in range(_POWERS):
        basis, _ = np.linalg.qr(finite.T @ (finite @ basis))
    _, _, rotated = np.linalg.svd(finite @ basis, full_matrices=False)
    found = (basis @ rotated.T).T[:COMPONENTS]
    largest = np.abs(found).argmax(axis=1)
    found *= np.where(found[np.arange(len(found)), largest] < 0, -1.0, 1.0)[:, None]
    components = np.zeros((COMPONENTS, width))
    components[: len(found)] = found
    return Projection(mean, components)


def vectors(chunk: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """One row a vector; a null is NaN throughout."""
    found = np.full((len(chunk), chunk.type.list_size), np.nan, dtype=np.float32)
    flat = pc.fill_null(chunk.drop_null().flatten(), float("nan"))
    valid = chunk.is_valid().to_numpy(zero_copy_only=False)
    found[valid] = flat.to_numpy().reshape(valid.sum(), found.shape[1])
    return found


def separate(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Each vector by itself, as of two batches one may have other lengths."""
    found = np.empty(len(column), dtype=object)
    found[:] = [row.copy() for chunk in column.chunks for row in vectors(chunk)]
    return found


def stacked(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Those of the most common length as one matrix."""
    lengths = Counter(len(row) for row in rows if len(row))
    width = max(lengths, key=lambda length: (lengths[length], length), default=0)
    kept = [row for row in rows if len(row) == width]
    return np.array(kept, dtype=np.float32).reshape(len(kept), width)


def of_vectors(block: NDArray[np.float32], projection: Projection) -> Floats:
    """OF_EMBEDDING of each. Raises WrongTypeError where they are longer or shorter than the sample's."""
    held, known = block.shape[1], len(projection.mean)
    if held and known and held != known:
        raise WrongTypeError(f"holds vectors of {held} numbers, not {known}")
    if not held or not known:
        return np.full((len(block), len(OF_EMBEDDING)), np.nan)
    wide = block.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.linalg.norm(wide, axis=1)
        wide -= projection.mean
        return np.column_stack((norm, np.linalg.norm(wide, axis=1), wide @ projection.components.T))


def of_images(chunk: pa.Array) -> Floats:
    """OF_IMAGE of each."""
    return np.array([_image(one.as_buffer()) for one in chunk]).reshape(-1, len(OF_IMAGE))


def _image(encoded: Any) -> list[float]:
    from PIL import Image  # only where images are watched

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG"))
            width, height = opened.size
            if width * height > PIXELS_MAX:
                return [float("nan")] * 4 + [float(width), float(height)]
            opened.draft("RGB", (_SIDE, _SIDE))
            picture = opened.convert("RGB")
            picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError):
        return [float("nan")] * len(OF_IMAGE)
    return [*_looks(picture), float(width), float(height)]


def _looks(picture: Any) -> list[float]:
    luma, saturated = (
        np.asarray(one, np.float32) / 255 for one in (picture.convert("L"), picture.convert("HSV").getchannel("S"))
    )
    edged = np.pad(luma, 1, mode="edge")
    around = edged[:-2, 1:-1] + edged[2:, 1:-1] + edged[1:-1, :-2] + edged[1:-1, 2:]
    return [float(x) for x in (luma.mean(), luma.std(), saturated.mean(), (around - 4 * luma).var())]


def _blocks(column: pa.ChunkedArray) -> Iterator[NDArray[np.float32]]:
    """A few rows at a time, as vectors are long."""
    rows = max(1, _BLOCK // max(column.type.list_size, 1))
    for chunk in column.chunks:
        for at in range(0, len(chunk), rows):
            yield vectors(chunk.slice(at, rows))


def _columns(name: str, suffixes: tuple[str, ...], parts: list[Floats]) -> dict[str, pa.ChunkedArray]:
    whole = np.concatenate(parts) if parts else np.empty((0, len(suffixes)))
    return {f"{name}.{suffix}": pa.chunked_array([whole[:, at].copy()]) for at, suffix in enumerate(suffixes)}
