"""The image classifier on three drawn signs: it learns them, goes on where it stopped, and takes in a new one."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bench.trainer import gpu
from trainer import artefact, cnn, images, networks, tensors
from trainer.contract import BadRequestError, DataError, DivergedError, Paths, StopRequest
from trainer.families import Job, Trained

from .conftest import pack

SIGNS = ("bar", "cross", "ring")
SIDE = 16
SMALL = cnn.Hyperparameters(
    pixels=SIDE, colour="grey", width=4, epochs=4, epochs_warm=3, epochs_distil=3, batch_rows=16, validation_share=0.2
)


def sign(name: str, draws: np.random.Generator) -> bytes:
    down, right = draws.integers(-2, 3, 2)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
    y, x = y - down, x - right
    near = np.abs(x) < 1.5
    drawn = {"bar": near, "cross": near | (np.abs(y) < 1.5), "ring": np.abs(np.hypot(x, y) - 4) < 1.2}
    drawn["dot"] = np.hypot(x, y) < 2.5
    grey = np.where(drawn[name] & (np.maximum(np.abs(x), np.abs(y)) < 6), 220, 30) + draws.normal(0, 12, x.shape)
    stream = BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def rows(count: int, seed: int = 0, signs: tuple[str, ...] = SIGNS) -> pa.Table:
    draws = np.random.default_rng(seed)
    labels = [signs[at] for at in draws.integers(0, len(signs), count)]
    moments = pa.array(np.arange(count) * 1_000_000, pa.timestamp("us", tz="UTC"))
    return pa.table({"image": [sign(name, draws) for name in labels], "label": labels, "timestamp": moments})


def laid_out(folder: Path, table: pa.Table, p: cnn.Hyperparameters = SMALL, stop: StopRequest | None = None) -> Job:
    paths = Paths(folder)
    paths.channel("train").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, paths.channel("train") / "train.parquet")
    return Job(p=p, paths=paths, stop=StopRequest() if stop is None else stop)


def trained(job: Job) -> Trained:
    found = cnn.train(job)
    assert found is not None
    return found


def accuracy(found: Trained, table: pa.Table) -> float:
    model = cnn.load(found.arrays, found.config)
    guess_N = model.probabilities_NC(table).argmax(axis=1)
    return float(
        np.mean([model.classes[k] == label for k, label in zip(guess_N, table["label"].to_pylist(), strict=True)])
    )


def after(job: Job, first: Trained) -> Job:
    """The job, with the result of another one as its champion."""
    model = job.paths.base / "champion"
    artefact.save(model, first.arrays, first.config, {"generation": 1})
    job.paths.channel("champion").mkdir(parents=True)
    pack(model, job.paths.channel("champion") / "model.tar.gz")
    return job


class StopAfter(StopRequest):
    """A SIGTERM that arrives when it has been asked for so often."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


# ---- learning


@pytest.mark.parametrize(
    ("network", "optimiser", "flip"),
    [("fast", "sgd", "never"), ("fast", "muon", "alternate"), ("resnet18", "sgd", "never")],
)
def test_every_network_learns_to_tell_the_signs_apart(tmp_path: Path, network: str, optimiser: str, flip: str) -> None:
    p = dataclasses.replace(SMALL, network=network, optimiser=optimiser, flip=flip, learning_rate=0.3)
    found = trained(laid_out(tmp_path, rows(240), p))
    assert accuracy(found, rows(90, seed=1)) > 0.9
    assert found.metrics["accuracy"]["value"] > 0.8
    assert (found.rows, found.first_at, found.last_at, found.parent) == (240, 0, 239_000_000, None)


def test_the_same_rows_and_seed_make_the_same_weights_and_another_seed_does_not(tmp_path: Path) -> None:
    p = dataclasses.replace(SMALL, epochs=1)
    other = dataclasses.replace(p, seed=1)
    made = [trained(laid_out(tmp_path / str(n), rows(64), q)).arrays for n, q in enumerate((p, p, other))]
    digests = [tensors.digest(arrays) for arrays in made]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("questions", [1, 5, 8, 13])
def test_a_stopped_job_goes_on_to_the_very_same_weights(tmp_path: Path, questions: int) -> None:
    """Steps: two epochs of 3 by the labels, then two of 3 of the student; asked before each and at each epoch's end."""
    p = dataclasses.replace(SMALL, epochs=2, epochs_distil=2, distil_width=4, width=6, validation_share=0.0)
    whole = trained(laid_out(tmp_path / "whole", rows(56), p))
    stopped = laid_out(tmp_path / "stopped", rows(56), p, StopAfter(questions))
    assert cnn.train(stopped) is None
    elsewhere = dataclasses.replace(p, workers=1, interruption_seconds=60.0)
    again = trained(dataclasses.replace(stopped, p=elsewhere, stop=StopRequest()))
    assert tensors.digest(again.arrays) == tensors.digest(whole.arrays)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one class, 'bar'"):
        cnn.train(laid_out(tmp_path, rows(20, signs=("bar",))))


def test_a_bad_image_ends_the_job_with_its_row(tmp_path: Path) -> None:
    table = rows(20)
    content = table["image"].to_pylist()
    content[7] = b"no image"
    with pytest.raises(DataError, match="row 7: not a readable PNG or JPEG"):
        cnn.train(laid_out(tmp_path, table.set_column(0, "image", pa.array(content))))


def test_a_learning_rate_out_of_all_bounds_is_a_divergence(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="give a learning_rate below"):
        cnn.train(laid_out(tmp_path, rows(60), dataclasses.replace(SMALL, learning_rate=1e6)))


# ---- going on from the champion


def test_a_warm_start_takes_in_a_new_class_and_keeps_the_old_ones(tmp_path: Path) -> None:
    first = trained(laid_out(tmp_path / "first", rows(240)))
    fresh = rows(240, seed=2, signs=("ring", "dot"))
    second = trained(after(laid_out(tmp_path / "second", fresh), first))
    assert second.parent is not None
    assert second.config["classes"] == ["bar", "cross", "dot", "ring"]
    assert accuracy(second, rows(90, seed=3, signs=("ring", "dot"))) > 0.9


def test_a_warm_start_answers_as_the_champion_does_before_its_first_step(tmp_path: Path) -> None:
    first = trained(laid_out(tmp_path / "first", rows(120)))
    champion = cnn.load(first.arrays, first.config)
    pixel_NCPP = torch.from_numpy(images.decode_column(rows(30, seed=4), SIDE, "grey"))
    feed = cnn.Feed.of(pixel_NCPP, torch.zeros(30, dtype=torch.int64))
    net, warm = cnn.start(SMALL, SMALL.width, ("arrow", *SIGNS), champion, feed)
    net.eval()
    assert warm
    grown_NK = net(pixel_NCPP.float())
    assert torch.allclose(grown_NK[:, 1:], champion.net(pixel_NCPP.float()), atol=1e-5)
    assert torch.allclose(grown_NK[:, 0], grown_NK[:, 1:].mean(1), atol=1e-5)


def test_a_champion_of_another_width_costs_the_warm_start_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p = dataclasses.replace(SMALL, epochs=1)
    first = trained(laid_out(tmp_path / "first", rows(64), p))
    second = trained(after(laid_out(tmp_path / "second", rows(64), dataclasses.replace(p, width=8)), first))
    assert second.parent is None
    assert "cold_start reason=the champion has another shape;" in capsys.readouterr().out


def test_never_means_never(tmp_path: Path) -> None:
    p = dataclasses.replace(SMALL, epochs=1, warm_start="never")
    first = trained(laid_out(tmp_path / "first", rows(64), p))
    assert trained(after(laid_out(tmp_path / "second", rows(64), p), first)).parent is None


# ---- the narrow student


def test_a_student_is_narrower_and_nearly_as_good(tmp_path: Path) -> None:
    p = dataclasses.replace(SMALL, width=8, distil_width=4, epochs_distil=8)
    found = trained(laid_out(tmp_path, rows(240), p))
    assert found.config["width"] == 4
    assert accuracy(found, rows(90, seed=1)) > 0.85


def test_a_champion_can_be_pruned_as_it_is(tmp_path: Path) -> None:
    wide = dataclasses.replace(SMALL, width=8)
    first = trained(laid_out(tmp_path / "first", rows(240), wide))
    pruned = dataclasses.replace(wide, epochs_warm=0, distil_width=4, epochs_distil=4)
    second = trained(after(laid_out(tmp_path / "second", rows(240), pruned), first))
    assert second.parent is not None
    assert accuracy(second, rows(90, seed=1)) > 0.85


# ---- the parts


def test_the_stem_whitens_what_it_looked_at() -> None:
    draws = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(draws.integers(0, 256, (50, 1, 8, 8)), 2, axis=2), 2, axis=3)
    pixel_NCPP = torch.from_numpy(np.clip(smooth + draws.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8))
    net = networks.Net("fast", 1, 16, 3, 4, 2)
    net.look_at(pixel_NCPP)
    assert isinstance(net.net, networks.Fast)
    x_NCPP = (pixel_NCPP.float() - net.mean) / net.deviation
    out_FM = torch.nn.functional.conv2d(x_NCPP, net.net.stem.weight, stride=2).transpose(0, 1).flatten(1)
    half = len(out_FM) // 2
    covariance_FF = out_FM[:half] @ out_FM[:half].T / out_FM.shape[1]
    assert torch.allclose(covariance_FF, torch.eye(half), atol=0.05)
    assert torch.equal(out_FM[:half], -out_FM[half:])


def test_without_augmentation_the_images_come_through_as_they_are() -> None:
    still = dataclasses.replace(SMALL, translate=0.0, rotate=0.0, zoom=0.0, elastic=0.0)
    pixel_BCPP = torch.arange(2 * SIDE * SIDE, dtype=torch.uint8).reshape(2, 1, SIDE, SIDE)
    warp_BDSS = cnn.warps(2, np.random.default_rng(0), still)
    assert torch.allclose(cnn.warped(pixel_BCPP, torch.from_numpy(warp_BDSS)), pixel_BCPP.float(), atol=0.01)


def test_every_image_is_mirrored_in_every_other_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    p = dataclasses.replace(SMALL, flip="alternate", translate=0.0, rotate=0.0, zoom=0.0, elastic=0.0, batch_rows=8)
    pixel_NCPP = torch.arange(8 * SIDE * SIDE).remainder(251).to(torch.uint8).reshape(8, 1, SIDE, SIDE)
    feed = cnn.Feed.of(pixel_NCPP, torch.arange(8))
    trainer = cnn.Trainer(networks.Net("fast", 1, SIDE, 8, 4, 2), None, feed, p, 2, tmp_path)
    seen = []
    for epoch in range(2):
        trainer.begin_epoch(epoch)
        x_BCPP, class_B, _ = trainer._batch(epoch, 0)
        seen.append(x_BCPP[class_B.argsort()])
    assert torch.allclose(seen[0], seen[1].flip(3), atol=0.01)
    plain_N = torch.tensor([torch.allclose(seen[0][n], pixel_NCPP[n].float(), atol=0.01) for n in range(8)])
    assert 0 < int(plain_N.sum()) < 8


def test_processes_share_a_batch_without_changing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixel_NCPP = torch.from_numpy(images.decode_column(rows(40), SIDE, "grey"))
    feed = cnn.Feed.of(pixel_NCPP, torch.arange(40))
    trainer = cnn.Trainer(networks.Net("fast", 1, SIDE, 40, 4, 2), None, feed, SMALL, 2, tmp_path)
    whole_BCPP, class_B, count = trainer._batch(1, 1)
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(trainer._batch(1, 1))
    assert torch.equal(torch.cat([part[0] for part in parts]), whole_BCPP)
    assert torch.equal(torch.cat([part[1] for part in parts]), class_B)
    assert {part[2] for part in parts} == {count} == {16}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_views_weights_add_up_to_one(count: int) -> None:
    found = list(cnn.views(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), count))
    assert len(found) == count
    assert sum(weight for _, weight in found) == 1.0
    assert {x_BCPP.shape for x_BCPP, _ in found} == {(1, 1, 8, 8)}


# ---- loading and answering


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(laid_out(tmp_path_factory.mktemp("model"), rows(32), dataclasses.replace(SMALL, epochs=1)))


def test_a_request_is_base64_and_gets_probabilities(model: Trained) -> None:
    predictor = cnn.load(model.arrays, model.config)
    table = predictor.table(
        [{"image": base64.b64encode(sign("bar", np.random.default_rng(n))).decode()} for n in range(3)]
    )
    probability_NC = predictor.probabilities_NC(table)
    assert probability_NC.shape == (3, 3)
    assert probability_NC.dtype == np.float32
    assert np.allclose(probability_NC.sum(1), 1, atol=1e-5)
    assert predictor.probabilities_NC(table.slice(0, 0)).shape == (0, 3)


@pytest.mark.parametrize(
    "instance",
    [{}, {"image": 7}, {"image": "no base64!"}, {"image": base64.b64encode(b"no image").decode()}, {"image": ""}],
)
def test_a_request_without_an_image_is_told_what_to_send(model: Trained, instance: dict[str, Any]) -> None:
    predictor = cnn.load(model.arrays, model.config)
    sound = {"image": base64.b64encode(sign("bar", np.random.default_rng(0))).decode()}
    with pytest.raises(BadRequestError, match=r"instance 1: .*PNG or JPEG"):
        predictor.table([sound, instance])


@pytest.mark.parametrize(
    "change", [{"width": 8}, {"classes": ["a"]}, {"network": "other"}, {"pixels": "many"}, {"colour": "rgb"}]
)
def test_a_config_that_does_not_fit_its_tensors_is_refused(model: Trained, change: Mapping[str, Any]) -> None:
    with pytest.raises(artefact.UNFIT):
        cnn.load(model.arrays, {**model.config, **change})


def test_the_figures_of_a_gpu_can_be_taken_small_on_a_cpu(tmp_path: Path) -> None:
    told = list(gpu.figures(gpu.SMOKE, "CPU", tmp_path))
    assert [line.partition(":")[0] for line in told] == [
        "airbench's shape",
        "sequence model at MovieLens-1M's shape",
        "ResNet-18 at 128 x 128",
        "checkpoints, interrupted every hour on average",
    ]


def test_resnet18_costs_what_is_published_of_it() -> None:
    """1.8 billion multiplications and additions for 224 x 224 (He et al., table 1), two FLOPs each, three passes."""
    net = networks.Net("resnet18", 3, 224, 1000, 64, 2)
    assert gpu.training_flops(net, 224) == pytest.approx(3 * 2 * 1.81e9, rel=0.01)
    assert sum(t.numel() for t in net.parameters()) == pytest.approx(11.69e6, rel=0.001)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_figures_of_a_gpu(tmp_path: Path) -> None:
    told = "\n".join(gpu.figures(gpu.REAL, torch.cuda.get_device_name(0), tmp_path))
    seconds = [float(found) for found in re.findall(r"([0-9.]+) s (?:for|an epoch)", told)]
    share, overhead = (float(found) for found in re.findall(r"([-+0-9.]+)% of", told))
    assert (seconds[0] <= 1.3, seconds[1] <= 0.5, share >= 40, overhead <= 1) == (True, True, True, True), told


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_in_half_precision_it_learns_as_well(tmp_path: Path) -> None:
    found = trained(laid_out(tmp_path, rows(240), dataclasses.replace(SMALL, optimiser="muon", distil_width=4)))
    assert accuracy(found, rows(90, seed=1)) > 0.85
