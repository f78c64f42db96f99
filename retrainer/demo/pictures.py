"""The application beside the classifier: pictures come in, the endpoint names each, and later users say what it was."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from retrainer.demo import emoji
from retrainer.demo.shop import parquet

BEGIN = datetime(2017, 8, 21, tzinfo=UTC)
"""The days are those around Android 8, which brought the new art."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What came in, and two things that nobody knows yet: which emoji it is, and in whose art (which is never told)."""

    id: str
    at: datetime
    png: bytes
    label: str
    art: str


@dataclass(frozen=True, slots=True)
class Day:
    """A batch to be: `new_share` of its pictures come from clients with the new art."""

    name: str
    number: int
    pictures: int
    new_share: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What the endpoint said of each picture, and by which model."""

    labels: list[str]
    probabilities: list[float]
    weights_sha256: str
    generation: int


@dataclass(slots=True)
class Score:
    """Right and all answers, by the art of the picture."""

    right: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def add(self, pictures: Sequence[Picture], labels: Sequence[str]) -> None:
        for picture, label in zip(pictures, labels, strict=True):
            self.asked[picture.art] = self.asked.get(picture.art, 0) + 1
            self.right[picture.art] = self.right.get(picture.art, 0) + (picture.label == label)

    def accuracy(self, art: str) -> float | None:
        """None where no picture was of this art."""
        return self.right[art] / self.asked[art] if self.asked.get(art) else None

    def told(self) -> dict[str, float | None]:
        """The accuracy on each art and on all pictures."""
        every = sum(self.asked.values())
        return {
            **{art: self.accuracy(art) for art in emoji.PACKAGES},
            "all": sum(self.right.values()) / every if every else None,
        }


def taken(art: emoji.Art, day: Day, seed: int) -> list[Picture]:
    """The pictures of a day, in time order: each of any class, in either art; a function of the day and the seed."""
    dice = np.random.default_rng([seed, day.number])
    old, new = art
    found = []
    for n in range(day.pictures):
        version = new if dice.random() < day.new_share else old
        label = list(art[version])[int(dice.integers(len(art[version])))]
        shown = emoji.png(emoji.picture(art[version][label], dice))
        at = BEGIN + timedelta(days=day.number, seconds=n * (86_400 // day.pictures))
        found.append(Picture(id=f"{day.number}-{n}", at=at, png=shown, label=label, art=version))
    return found


def body(pictures: Iterable[Picture]) -> bytes:
    """The invocation that asks about all of them at once."""
    return json.dumps({"instances": [{"image": base64.b64encode(p.png).decode()} for p in pictures]}).encode()


def answers(responses: Iterable[bytes]) -> Answers:
    """Of one or more invocations, in their order; the model is that of the last."""
    labels, probabilities = [], []
    model: Mapping[str, Any] = {}
    for response in responses:
        whole = json.loads(response)
        model = whole["model"]
        labels += [str(p["label"]) for p in whole["predictions"]]
        probabilities += [float(p["probability"]) for p in whole["predictions"]]
    return Answers(labels, probabilities, str(model["weights_sha256"]), int(model["generation"]))


def predictions(pictures: Sequence[Picture], given: Answers) -> bytes:
    """The log of what was answered, as a parquet file."""
    return parquet(
        pa.table(
            {
                "request_id": [p.id for p in pictures],
                "answer": given.labels,
                "probability": given.probabilities,
            }
        )
    )


def labelled(pictures: Sequence[Picture]) -> bytes:
    """The pictures with what users said they are, as a parquet file."""
    return parquet(
        pa.table(
            {
                "request_id": [p.id for p in pictures],
                "timestamp": pa.array([p.at for p in pictures], pa.timestamp("us", tz="UTC")),
                "image": pa.array([p.png for p in pictures], pa.binary()),
                "label": [p.label for p in pictures],
            }
        )
    )
