from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer import artefact, checkpoint, tensors, train
from trainer.contract import ArtefactError, Paths, StopRequest

from .conftest import pack


@pytest.fixture
def model(job: Callable[..., Paths]) -> Path:
    paths = job("ease", model="ease", generation="7")
    train.main(paths, StopRequest())
    return paths.model


def test_a_model_survives_the_archive(model: Path, tmp_path: Path) -> None:
    loaded = artefact.load(artefact.unpack(pack(model, tmp_path / "model.tar.gz"), tmp_path / "out"))
    assert loaded.manifest["generation"] == 7
    assert loaded.manifest["weights_sha256"] == artefact.load(model).manifest["weights_sha256"]
    assert loaded.manifest["hyperparameters"]["model"] == "ease"


def test_a_pickle_is_refused_wherever_it_hides(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps({"weights": [1, 2]}))
    with pytest.raises(ArtefactError, match="not a safetensors file"):
        artefact.load(model)
    (model / "extra.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(ArtefactError, match=r"holds .*extra\.pkl.*; a model is exactly"):
        artefact.load(model)
    with pytest.raises(ArtefactError, match=r"'extra\.pkl' is refused"):
        artefact.unpack(pack(model, tmp_path / "m.tar.gz"), tmp_path / "out")


@pytest.mark.parametrize("name", ["../model.safetensors", "/tmp/config.json", "sub/manifest.json"])
def test_a_member_outside_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ArtefactError, match="is refused"):
        artefact.unpack(tmp_path / "m.tar.gz", tmp_path / "out")


def test_a_link_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("config.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(ArtefactError, match=r"'config\.json' is refused"):
        artefact.unpack(tmp_path / "m.tar.gz", tmp_path / "out")


def test_a_truncated_archive_is_named(model: Path, tmp_path: Path) -> None:
    archive = pack(model, tmp_path / "model.tar.gz")
    archive.write_bytes(archive.read_bytes()[:500])
    with pytest.raises(ArtefactError, match=r"model\.tar\.gz: not a readable model archive"):
        artefact.unpack(archive, tmp_path / "out")


def test_other_weights_under_a_manifest_are_refused(model: Path) -> None:
    arrays, header = tensors.read(model / "model.safetensors")
    arrays["weight_IK"] = arrays["weight_IK"] + 1
    tensors.write(model / "model.safetensors", arrays, header)
    with pytest.raises(ArtefactError, match="belongs to other weights"):
        artefact.load(model)


@pytest.mark.parametrize("change", [{"family": "cnn"}, {"family": "sasrec"}, {"format": 2}])
def test_a_config_that_does_not_fit_is_refused(model: Path, change: dict[str, object]) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ArtefactError, match=r"config\.json"):
        artefact.load(model)


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    tensors.write(file, {"a": np.arange(100)}, {})
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(tensors.UnreadableError, match="checksum"):
        tensors.read(file)


def test_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, {"a": np.full(3, step)}, {"fingerprint": "f", "step": step})
    assert len(list(tmp_path.iterdir())) == 2
    found = checkpoint.load_newest(tmp_path, "f")
    assert found is not None
    assert found.state["step"] == 10
    assert checkpoint.load_newest(tmp_path / "none", "f") is None
