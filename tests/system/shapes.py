"""Small pictures of four shapes in two arts: the new one draws each with other lines and in other colours."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from tests.system.data import SECOND, START, parquet

SHAPES = ("circle", "square", "cross", "bars")
PIXELS = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """`new[i]` tells whether the i-th picture is in the new art; it is nowhere in the data."""

    ids: list[str]
    images: list[bytes]
    labels: list[str]
    new: list[bool]

    def rows(self, number: int) -> bytes:
        """The pictures with their labels as a file, later than those of the batches before."""
        at = START + (number * 100_000 + np.arange(len(self.ids))) * SECOND
        return parquet(
            {
                "request_id": self.ids,
                "timestamp": pa.array(at, pa.timestamp("us", tz="UTC")),
                "image": pa.array(self.images, pa.binary()),
                "label": self.labels,
            }
        )

    def predictions(self, answers: list[str]) -> bytes:
        """A log of what was answered, as a file."""
        return parquet({"request_id": self.ids, "answer": answers})

    def accuracy(self, answers: list[str], *, new: bool) -> float:
        """Of the answers on one of the arts."""
        found = [a == b for a, b, n in zip(answers, self.labels, self.new, strict=True) if n is new]
        return sum(found) / len(found)


def batch(number: int, count: int, new_share: float) -> Batch:
    """The n-th batch, the shapes and the arts evenly mixed over it."""
    dice = np.random.default_rng(number)
    new = [bool(share < new_share) for share in dice.permutation(count) / count]
    labels = [str(label) for label in dice.choice(SHAPES, count)]
    images = [_drawn(label, is_new, dice) for label, is_new in zip(labels, new, strict=True)]
    return Batch([f"{number}-{n}" for n in range(count)], images, labels, new)


def _drawn(shape: str, new: bool, dice: Any) -> bytes:
    ground, ink = ((245, 240, 230), (20, 40, 160)) if new else ((15, 20, 30), (250, 200, 40))
    picture = Image.new("RGB", (PIXELS, PIXELS), ground)
    pen = ImageDraw.Draw(picture)
    x, y = (int(place) for place in dice.integers(1, 5, 2))
    size = 10
    box = (x, y, x + size, y + size)
    match shape, new:
        case "circle", False:
            pen.ellipse(box, ink)
        case "square", False:
            pen.rectangle(box, ink)
        case "cross", False:
            pen.line([box[:2], box[2:]], ink, 3)
            pen.line([(box[0], box[3]), (box[2], box[1])], ink, 3)
        case "bars", False:
            for row in (0, 5, 10):
                pen.line([(x, y + row), (x + size, y + row)], ink, 2)
        case "circle", True:
            pen.arc(box, 0, 180, ink, 2)
        case "square", True:
            pen.line([box[:2], (box[0], box[3]), box[2:]], ink, 2)
        case "cross", True:
            pen.line([(x + 5, y), (x + 5, y + size)], ink, 2)
            pen.line([(x, y + 5), (x + size, y + 5)], ink, 2)
        case _:
            for column in (0, 5, 10):
                pen.line([(x + column, y), (x + column, y + size)], ink, 2)
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()
