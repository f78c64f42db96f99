"""One form for values that different writers spell differently: an id is the same as integer, float and text."""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Values = Floats | NDArray[np.object_]
"""One column of rows. Numerical: float64, a null is NaN. Categorical: text, a null is None."""

Kind = Literal["number", "text", "list", "vector", "image"]
"""How a column is read: as float64, as text, as lists of text, as vectors of float32, or as encoded images."""

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
_WORDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_temporal)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null)
_KNOWN = {
    "number": _NUMBERS,
    "text": (*_NUMBERS, *_WORDS),
    "list": _LISTS,
    "vector": (*_LISTS, pa.types.is_null),
    "image": _BYTES,
}
_CALLED = {
    "number": "numbers",
    "text": "texts or numbers",
    "list": "lists",
    "vector": "lists of numbers",
    "image": "encoded images",
}
_EXACT = float(2**53)
"""Below it a float holds every whole number."""


class WrongTypeError(ValueError):
    """The column cannot be read as that kind; the message says what it holds."""


def canonical(column: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray:
    """The column as float64, dictionary-encoded text, lists as they are, float32 lists of one length, or bytes.

    Raises WrongTypeError.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind == "image" and pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")  # as Hugging Face datasets write images
    held = column.type.value_type if kind == "list" and _is(column.type, "list") else column.type
    if not _is(column.type, kind) or (kind == "list" and not _is(held, "text")):
        raise WrongTypeError(f"holds {column.type}, not {_CALLED[kind]}")
    if kind == "list":
        return column
    if kind == "image":
        return column.cast(pa.large_binary())
    if kind == "vector":
        return _vectors(column)
    if kind == "number" or pa.types.is_decimal(column.type):
        number = column.cast(pa.float64(), safe=False)
        return number if kind == "number" else _text(number)
    return _text(column)


def numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """The values, a null as NaN."""
    filled = pc.fill_null(column, float("nan")) if column.null_count else column
    values: NDArray[np.float64] = filled.to_numpy()
    return values


def texts(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """The values, a null as None; equal texts are one object."""
    parts = [_words(chunk) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.empty(0, dtype=object)


def lists(column: pa.ChunkedArray) -> list[list[str] | None]:
    """The lists of texts; a null list is None."""
    found: list[list[str] | None] = []
    for chunk in column.chunks:
        items = texts(_text(pa.chunked_array([pc.list_flatten(chunk)]))).tolist()
        at = 0
        for length in pc.list_value_length(chunk).to_pylist():
            found.append(None if length is None else items[at : at + length])
            at += length or 0
    return found


def _vectors(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without a vector has vectors of no numbers."""
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), pa.list_(pa.float32(), 0))])
    if not _is(column.type.value_type, "number"):
        raise WrongTypeError(f"holds {column.type}, not {_CALLED['vector']}")
    lengths = pc.min_max(pc.list_value_length(column))
    low, high = lengths["min"].as_py() or 0, lengths["max"].as_py() or 0
    if low != high:
        raise WrongTypeError(f"holds vectors of {low} to {high} numbers")
    return column.cast(pa.list_(pa.float32(), high), safe=False)


def _is(held: pa.DataType, kind: Kind) -> bool:
    return any(is_type(held) for is_type in _KNOWN[kind])


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers are written without a point, so that 3, 3.0 and "3" are one category. NaN is a null."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
        wide = column.cast(pa.float64())
        whole = pc.and_(pc.equal(pc.floor(wide), wide), pc.less(pc.abs(wide), _EXACT))
        integer = pc.if_else(whole, wide, 0.0).cast(pa.int64())
        written = pc.if_else(whole, integer.cast(pa.string()), column.cast(pa.string()))
    else:
        written = column.cast(pa.string())
    return written.dictionary_encode()


def _words(chunk: pa.DictionaryArray) -> NDArray[np.object_]:
    words = np.array([*chunk.dictionary.to_pylist(), None], dtype=object)
    codes = pc.fill_null(chunk.indices, len(words) - 1).to_numpy(zero_copy_only=False)
    found: NDArray[np.object_] = words[codes]
    return found
