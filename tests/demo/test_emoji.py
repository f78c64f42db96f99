"""The art comes out of checked packages only, and a day of pictures is the same whenever it is taken."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retrainer.demo import before_after, emoji, pictures
from retrainer.demo.pictures import Answers, Day, Score
from retrainer.ports import ConfigError

INK = {"dot": (200, 30, 30, 255), "bar": (30, 30, 200, 255)}
OLD, NEW = emoji.PACKAGES


def drawing(name: str, size: int = emoji.DRAWN) -> Image.Image:
    found = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    found.paste(INK[name], (8, 24 if name == "bar" else 8, 56, 40 if name == "bar" else 56))
    return found


ART = {version: {name: drawing(name) for name in INK} for version in (OLD, NEW)}


def told(name: str, order: int, **changes: object) -> dict[str, object]:
    whole = {"short_name": name, "sort_order": order, "category": emoji.CATEGORY, "has_img_google": True}
    return {**whole, "image": f"{order:x}.png", **changes}


def package(files: Mapping[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def test_only_the_list_and_drawings_of_plain_names_are_read_of_a_package() -> None:
    content = emoji.png(drawing("dot"))
    listed = json.dumps([told("dot", 1)]).encode()
    drawings = "package/img/google/64"
    names = [f"{drawings}/1f600.png", f"{drawings}/../1f601.png", "/etc/1f602.png", f"{drawings}/1F603.PNG"]
    known, drawn = emoji.unpack(package({"package/emoji.json": listed, **dict.fromkeys(names, content)}))
    assert list(known) == ["dot"]
    assert drawn == {"1f600.png": content}


def test_a_drawing_that_is_larger_than_any_is_refused() -> None:
    with pytest.raises(ConfigError, match="65537 bytes"):
        emoji.unpack(package({"package/img/google/64/1f600.png": bytes(65537)}))


def test_a_package_with_other_bytes_is_refused_and_a_missing_one_said_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make demo-images"):
        emoji.read(tmp_path)
    (tmp_path / emoji.PACKAGES[OLD][0]).write_bytes(package({}))
    with pytest.raises(ConfigError, match=r"has the SHA-256 .*, not 3247dd55"):
        emoji.read(tmp_path)


def test_the_classes_are_the_first_faces_of_the_picker_that_both_versions_draw() -> None:
    new = {n: told(n, order) for order, n in enumerate(("late", "gone", "flag", "undrawn", "early"))}
    new["early"]["sort_order"] = -1
    new["flag"]["category"] = "Flags"
    new["undrawn"]["has_img_google"] = False
    old = {name: told(name, 0) for name in new if name != "gone"}
    assert emoji.classes(old, new) == ["early", "late"]


def test_a_day_is_the_same_whenever_it_is_taken_and_another_with_another_seed() -> None:
    day = Day("day-1", 1, 20, new_share=0.5)
    assert pictures.taken(ART, day, 0) == pictures.taken(ART, day, 0)
    assert pictures.taken(ART, day, 0) != pictures.taken(ART, day, 1)


def test_pictures_come_in_time_order_within_their_day_in_the_shares_of_the_art() -> None:
    day = Day("day-1", 1, 200, new_share=0.7)
    taken = pictures.taken(ART, day, 0)
    moments = [picture.at for picture in taken]
    assert moments == sorted(moments)
    assert (moments[-1] - moments[0]).days == 0
    assert 0.6 < np.mean([picture.art == NEW for picture in taken]) < 0.8
    assert Image.open(io.BytesIO(taken[0].png)).size == (emoji.SIDE, emoji.SIDE)


def test_what_is_logged_and_what_is_handed_in_share_ids_and_never_tell_the_art() -> None:
    taken = pictures.taken(ART, Day("day-1", 1, 5, new_share=0.5), 0)
    answers = Answers([p.label for p in taken], [0.9] * 5, "abc", 1)
    logged = pq.read_table(io.BytesIO(pictures.predictions(taken, answers)))
    rows = pq.read_table(io.BytesIO(pictures.labelled(taken)))
    assert logged["request_id"] == rows["request_id"]
    assert logged["answer"] == rows["label"]
    assert rows.column_names == ["request_id", "timestamp", "image", "label"]


def test_a_score_tells_the_art_apart_and_says_nothing_of_what_was_not_asked() -> None:
    taken = pictures.taken(ART, Day("day-1", 1, 4, new_share=0), 0)
    score = Score()
    score.add(taken, [taken[0].label, "none", "none", "none"])
    assert score.told() == {OLD: 0.25, NEW: None, "all": 0.25}


def test_the_picture_of_before_and_after_is_a_png(tmp_path: Path) -> None:
    taken = pictures.taken(ART, Day("exhibit", 1, 40, new_share=0.5), 0)
    right = [picture.label for picture in taken]
    target = tmp_path / "before_after.png"
    before_after.draw(target, ART, taken, ["dot"] * 40, right, {OLD: (0.9, 1.0), NEW: (0.2, 0.97)})
    with Image.open(target) as drawn:
        assert drawn.format == "PNG"
        drawn.load()
