"""One picture of the classifier's scene: what the model saw, what it took it for before, and what after."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from retrainer.demo import emoji
from retrainer.demo.pictures import Picture

COLUMNS, ROWS = 4, 7
CELL = (232, 78)
HEAD = 176
MARGIN = 24
SHOWN = 64
INK, PALE, PAPER = (32, 33, 36), (110, 114, 120), (255, 255, 255)
RIGHT, WRONG = (24, 128, 56), (197, 34, 31)


def draw(
    path: Path,
    art: emoji.Art,
    pictures: Sequence[Picture],
    before: Sequence[str],
    after: Sequence[str],
    accuracies: Mapping[str, tuple[float, float]],
) -> None:
    """The first pictures of these with both answers, and for each art the accuracy (before, after) on all of them."""
    width, height = 2 * MARGIN + COLUMNS * CELL[0], HEAD + ROWS * CELL[1] + MARGIN
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, 18), "Which emoji is it?", INK, font=_font(26))
    pen.text((MARGIN, 52), _said(len(pictures)), PALE, font=_font(14))
    for row, (name, both) in enumerate(accuracies.items()):
        _bars(pen, (MARGIN, 82 + row * 32), name, both)
    for column in range(COLUMNS):
        for place, heading in enumerate(("picture", "before", "after")):
            pen.text((MARGIN + column * CELL[0] + place * 72 + 6, HEAD - 24), heading, PALE, font=_font(13))
    shown = zip(pictures[: COLUMNS * ROWS], before, after, strict=False)
    for n, (picture, first, second) in enumerate(shown):
        corner = MARGIN + n % COLUMNS * CELL[0], HEAD + n // COLUMNS * CELL[1]
        _example(page, corner, art, picture, (first, second))
    page.save(path, "PNG", optimize=True)


def _said(count: int) -> str:
    return (
        f"The first {COLUMNS * ROWS} of {count} pictures that no model has learned from, and what the endpoint said "
        "before and after the retraining."
    )


def _bars(pen: ImageDraw.ImageDraw, corner: tuple[int, int], name: str, accuracies: tuple[float, float]) -> None:
    x, y = corner
    pen.text((x, y), f"art {name}", INK, font=_font(15))
    for place, (when, accuracy) in enumerate(zip(("before", "after"), accuracies, strict=True)):
        left = x + 80 + place * 420
        pen.rectangle((left + 60, y + 3, left + 260, y + 17), (232, 234, 237))
        pen.rectangle((left + 60, y + 3, left + 60 + round(200 * accuracy), y + 17), RIGHT if accuracy > 0.9 else WRONG)
        pen.text((left, y), when, PALE, font=_font(14))
        pen.text((left + 268, y), f"{accuracy:.1%} right", INK, font=_font(14))


def _example(
    page: Image.Image, corner: tuple[int, int], art: emoji.Art, picture: Picture, answers: tuple[str, str]
) -> None:
    x, y = corner
    seen = Image.open(BytesIO(picture.png)).resize((SHOWN, SHOWN), Image.Resampling.NEAREST)
    page.paste(seen, (x, y))
    for place, answer in enumerate(answers, start=1):
        taken_for = art[picture.art][answer].resize((SHOWN - 16, SHOWN - 16), Image.Resampling.LANCZOS)
        left = x + place * 72
        page.paste(taken_for, (left + 8, y + 8), taken_for)
        _mark(ImageDraw.Draw(page), (left, y), answer == picture.label)


def _mark(pen: ImageDraw.ImageDraw, corner: tuple[int, int], is_right: bool) -> None:
    """A frame with a tick or a cross in its corner, so that colour is not all that tells them apart."""
    x, y = corner
    colour = RIGHT if is_right else WRONG
    pen.rectangle((x, y, x + SHOWN - 1, y + SHOWN - 1), outline=colour, width=2)
    pen.rectangle((x + SHOWN - 17, y + SHOWN - 17, x + SHOWN - 1, y + SHOWN - 1), colour)
    left, top = x + SHOWN - 14, y + SHOWN - 14
    if is_right:
        pen.line([(left, top + 6), (left + 4, top + 10), (left + 11, top + 1)], PAPER, 2)
    else:
        pen.line([(left + 1, top + 1), (left + 10, top + 10)], PAPER, 2)
        pen.line([(left + 10, top + 1), (left + 1, top + 10)], PAPER, 2)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
