"""Images of strangers: encoded bytes from a table become uint8 tensors, or one clear refusal that names the row.

Only Pillow's PNG and JPEG decoders see the bytes, and no more than PIXELS_MAX pixels are ever unpacked: a PNG of
200 kB can hold 65,535 x 65,535 (Pillow itself only warns below 179 million).

Shapes: N rows, C channels (3 colour, 1 grey), P pixels a side.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps

from trainer.contract import DataError

Pixels = npt.NDArray[np.uint8]

COLUMN = "image"
FORMATS = ("PNG", "JPEG")
BYTES_MAX = 20_000_000  # encoded, an image
PIXELS_MAX = 50_000_000  # decoded, an image: 200 MB as RGBA
# What Pillow's parsers raise on bytes that are none of theirs (found by flipping and cutting bytes, test_images.py).
_TRIPS = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, struct.error, zlib.error)


def channels(colour: str) -> int:
    return 3 if colour == "rgb" else 1


def decode_column(table: pa.Table, pixels: int, colour: str) -> Pixels:
    """The table's ``image`` column as uint8 [N, C, P, P]; DataError names the first row that is refused.

    It holds encoded images, or values of exactly C x P x P bytes: the pixels themselves.
    """
    if COLUMN not in table.column_names:
        raise DataError(f"column '{COLUMN}' is missing; the rows have {', '.join(table.column_names) or 'none'}")
    column = table[COLUMN]
    size = channels(colour) * pixels**2
    if column.type == pa.binary(size):  # pixels already, as a request's table holds them
        if column.null_count:
            raise DataError(f"column '{COLUMN}' has {column.null_count} nulls; drop those rows")
        joined = b"".join(column.to_pylist())
        return np.frombuffer(bytearray(joined), dtype=np.uint8).reshape(-1, channels(colour), pixels, pixels)
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"column '{COLUMN}' is {column.type}; give binary: the bytes of a PNG or JPEG file")
    return decode((value.as_py() for value in column), pixels, colour, table.num_rows)


def decode(encoded: Iterable[bytes | None], pixels: int, colour: str, count: int) -> Pixels:
    """``count`` encoded images as uint8 [N, C, P, P]."""
    pixel_NCPP = np.zeros((count, channels(colour), pixels, pixels), dtype=np.uint8)
    for row, content in enumerate(encoded):
        try:
            pixel_NCPP[row] = _decode_one(content, pixels, colour)
        except DataError as error:
            raise DataError(f"row {row}: {error}") from error
    return pixel_NCPP


def _decode_one(content: bytes | None, pixels: int, colour: str) -> Pixels:
    if not content:
        raise DataError(f"no {COLUMN}; give the bytes of a PNG or JPEG file")
    if len(content) > BYTES_MAX:
        raise DataError(f"an {COLUMN} of {len(content)} bytes; give at most {BYTES_MAX}")
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXELS_MAX:
                raise DataError(f"an {COLUMN} of {width} x {height}; give at most {PIXELS_MAX} pixels")
            image.draft(None, (pixels, pixels))  # a JPEG decodes straight to 1/2, 1/4 or 1/8, never below this size
            image.load()
            return _plain(image, pixels, colour)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"an {COLUMN} of too many pixels; give at most {PIXELS_MAX}") from error
    except _TRIPS as error:
        raise DataError(f"not a readable PNG or JPEG ({len(content)} bytes): {error}") from error


def _plain(image: Image.Image, pixels: int, colour: str) -> Pixels:
    """Turned upright, laid on white where transparent, stretched to a square, in grey or colour: uint8 [C, P, P]."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits of grey: Pillow would cut them off at 255
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        covered = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", covered.size, "white"), covered)
    flat = upright.convert("RGB" if colour == "rgb" else "L")
    if flat.size != (pixels, pixels):
        flat = flat.resize((pixels, pixels), Image.Resampling.BILINEAR)  # averages over the pixels it shrinks
    array_PPC: Pixels = np.asarray(flat, dtype=np.uint8).reshape(pixels, pixels, channels(colour))
    return array_PPC.transpose(2, 0, 1)
