"""Images of strangers: what is accepted comes out in one shape, everything else is refused with its row."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from trainer import images
from trainer.contract import DataError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def one(content: bytes | None, pixels: int = 8, colour: str = "rgb") -> images.Pixels:
    decoded: images.Pixels = images.decode([content], pixels, colour, 1)[0]
    return decoded


def picture(mode: str = "RGB", colour: object = (200, 100, 50), side: int = 8) -> Image.Image:
    return Image.new(mode, (side, side), colour)  # type: ignore[arg-type]


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that says it has so many pixels a side."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_keeps_its_colour_at_any_size(kind: str) -> None:
    decoded_CPP = one(encoded(picture(side=50), kind), pixels=12)
    assert decoded_CPP.shape == (3, 12, 12)
    assert decoded_CPP.dtype == np.uint8
    assert np.allclose(decoded_CPP.mean((1, 2)), (200, 100, 50), atol=3)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
        ("I;16", 90 * 257, (90, 90, 90)),
        ("LA", (90, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 50, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 50, 255), (200, 100, 50)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
    ],
)
def test_every_mode_becomes_colour_on_white(mode: str, colour: object, expected: tuple[int, ...]) -> None:
    assert np.allclose(one(encoded(picture(mode, colour))).mean((1, 2)), expected, atol=1)


def test_a_palette_with_a_transparent_entry_is_white_there() -> None:
    assert one(encoded(picture("P", 0), transparency=0)).min() == 255


def test_a_jpeg_of_four_inks_becomes_colour() -> None:
    assert np.allclose(one(encoded(picture("CMYK", (0, 0, 0, 0)), "JPEG")).mean((1, 2)), (255, 255, 255), atol=2)


def test_grey_is_one_channel() -> None:
    decoded_CPP = one(encoded(picture()), colour="grey")
    assert decoded_CPP.shape == (1, 8, 8)
    assert np.allclose(decoded_CPP, 0.299 * 200 + 0.587 * 100 + 0.114 * 50, atol=1)


def test_a_camera_held_sideways_is_turned_upright() -> None:
    image = picture("L", 0)
    image.paste(255, (0, 0, 8, 4))  # bright above
    notes = Image.Exif()
    notes[0x0112] = 6  # turn by 90 degrees clockwise
    decoded_CPP = one(encoded(image, "JPEG", exif=notes, quality=95), colour="grey")
    assert decoded_CPP[0, :, 4:].mean() > 200 > 50 > decoded_CPP[0, :, :4].mean()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "no image"),
        (b"", "no image"),
        (b"GIF89a" + bytes(50), "not a readable PNG or JPEG"),
        (encoded(picture(), "GIF"), "not a readable PNG or JPEG"),
        (encoded(picture(), "TIFF"), "not a readable PNG or JPEG"),
        (encoded(picture(side=64))[:-40], "not a readable PNG or JPEG"),
        (bomb(60_000), "too many pixels"),
        (bomb(9_000), "9000 x 9000"),
        (bomb(5_000), "not a readable PNG or JPEG"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_row(content: bytes | None, word: str) -> None:
    with pytest.raises(DataError, match=f"row 1: .*{word}"):
        images.decode([encoded(picture()), content], 8, "rgb", 2)


def test_more_bytes_than_a_picture_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "BYTES_MAX", 20)
    with pytest.raises(DataError, match="give at most 20"):
        one(encoded(picture()))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_bytes_flipped_and_cut_are_read_or_refused_and_nothing_else(kind: str) -> None:
    draws = np.random.default_rng(7)
    noise = draws.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    sound = np.frombuffer(encoded(Image.fromarray(noise), kind), dtype=np.uint8)
    refused = 0
    for _ in range(300):
        hostile = sound.copy()
        place_F = draws.integers(0, min(len(hostile), draws.choice([60, 700, len(hostile)])), draws.integers(1, 20))
        hostile[place_F] = draws.integers(0, 256, len(place_F))
        cut = len(hostile) if draws.random() < 0.7 else int(draws.integers(1, len(hostile)))
        try:
            one(hostile[:cut].tobytes())
        except DataError:
            refused += 1
    assert 30 < refused <= 300


def test_a_table_without_images_says_what_it_has() -> None:
    with pytest.raises(DataError, match="'image' is missing; the rows have picture, label"):
        images.decode_column(pa.table({"picture": [b""], "label": ["a"]}), 8, "rgb")


def test_a_column_of_texts_is_no_column_of_images() -> None:
    with pytest.raises(DataError, match="'image' is string; give binary"):
        images.decode_column(pa.table({"image": ["a"]}), 8, "rgb")
