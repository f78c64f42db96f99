from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import pickle
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer import artefact, tensors, train
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


def test_the_manifest_says_where_a_model_comes_from(job: Callable[..., Paths], monkeypatch: pytest.MonkeyPatch) -> None:
    paths = job("origin", model="ease", seed="5")
    paths.resources.write_text(
        json.dumps({"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": "ml.m5.large"})
    )
    for name, value in (
        ("DATA_URI_TRAIN", "s3://bucket/executions/x/train"),
        ("DATA_MANIFEST_SHA256", "ab12"),
        ("GIT_REVISION", "0123abc"),
        ("TRAINING_JOB_NAME", "x-ease-0"),
    ):
        monkeypatch.setenv(name, value)
    train.main(paths, StopRequest())
    told = artefact.load(paths.model).manifest
    file = paths.channel("train") / "train.parquet"
    assert told["data"]["channels"]["train"] == {
        "uri": "s3://bucket/executions/x/train",
        "files": {
            "train.parquet": {
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "bytes": file.stat().st_size,
            }
        },
    }
    assert told["data"]["channels"]["champion"] == {"uri": None, "files": {}}
    assert told["data"]["manifest_sha256"] == "ab12"
    assert told["data"]["rows"] == 3750
    assert told["data"]["first_at"] < told["data"]["last_at"] < "1971"
    assert (told["seed"], told["git_revision"], told["training_job"]) == (5, "0123abc", "x-ease-0")
    assert told["hardware"]["instance_type"] == "ml.m5.large"
    assert told["hardware"]["cpus"] > 0
    assert told["validation"]["ndcg_at_10"]["low"] <= told["validation"]["ndcg_at_10"]["high"]
    assert told["weights_sha256"] == tensors.digest(tensors.read(paths.model / "model.safetensors")[0])


def test_a_model_trained_once_more_has_the_holdouts_rows_and_its_manifest_lists_them(job: Callable[..., Paths]) -> None:
    paths = job("again", model="ease")
    holdout = paths.channel("holdout")
    holdout.mkdir()
    shutil.copy(paths.channel("train") / "train.parquet", holdout / "holdout.parquet")
    train.main(paths, StopRequest())
    told = artefact.load(paths.model).manifest["data"]
    assert told["rows"] == 2 * 3750
    assert list(told["channels"]["holdout"]["files"]) == ["holdout.parquet"]


def test_a_pickle_is_refused_wherever_it_hides(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps({"weights": [1, 2]}))
    with pytest.raises(ArtefactError, match="not a safetensors file"):
        artefact.load(model)
    (model / "extra.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(ArtefactError, match=r"holds extra\.pkl; a model is"):
        artefact.load(model)
    with pytest.raises(ArtefactError, match=r"'extra\.pkl' is refused"):
        artefact.unpack(pack(model, tmp_path / "m.tar.gz"), tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/tmp/config.json",
        "sub/manifest.json",
        "code/../config.json",
        "code/model.safetensors",
        "code/trainer/x.pkl",
        "code/trainer/deep/x.py",
        "code/trainer/x.py\n",
        "code/setup.py",
    ],
)
def test_a_member_outside_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ArtefactError, match="is refused"):
        artefact.unpack(tmp_path / "m.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("name", ["config.json", "code/inference.py"])
def test_a_link_a_device_or_a_folder_in_place_of_a_file_is_refused(tmp_path: Path, kind: bytes, name: str) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(ArtefactError, match=rf"'{name}' is refused"):
        artefact.unpack(tmp_path / "m.tar.gz", tmp_path / "out")


def test_a_link_in_a_directory_is_refused(model: Path) -> None:
    (model / "code" / "requirements.txt").unlink()
    (model / "code" / "requirements.txt").symlink_to("/etc/passwd")
    with pytest.raises(ArtefactError, match=r"holds code/requirements\.txt; a model is"):
        artefact.load(model)


def test_a_file_that_is_in_it_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as tar:
        for name in ("config.json", "./config.json"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ArtefactError, match=r"config\.json' is in it twice"):
        artefact.unpack(tmp_path / "m.tar.gz", tmp_path / "out")


def test_a_full_disk_is_no_fault_of_the_archive(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = pack(model, tmp_path / "m.tar.gz")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        artefact.unpack(archive, tmp_path / "out")


def test_hostile_headers_are_refused_and_nothing_else_happens(model: Path, tmp_path: Path) -> None:
    content = gzip.decompress(pack(model, tmp_path / "m.tar.gz").read_bytes())
    headers = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    draws = random.Random(0)  # noqa: S311
    for _ in range(100):
        hostile = bytearray(content)
        at = draws.choice(headers)
        for place in draws.choices([*range(124, 136), *[156] * 12, *range(257)], k=3):  # size, type, anything
            hostile[at + place] = draws.choice([0, 0x80, 0xFF, *b"xgSLK12", draws.randrange(256)])
        fields = hostile[at : at + 148] + b" " * 8 + hostile[at + 156 : at + 512]
        hostile[at + 148 : at + 156] = b"%06o\0 " % sum(fields)
        (tmp_path / "hostile.tar.gz").write_bytes(gzip.compress(hostile, 1))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with contextlib.suppress(ArtefactError):
            artefact.load(artefact.unpack(tmp_path / "hostile.tar.gz", tmp_path / "out"))
        assert {path.name for path in tmp_path.iterdir()} <= {"ease", "m.tar.gz", "hostile.tar.gz", "out"}


@pytest.mark.parametrize("name", ["config.json", "code/inference.py"])
def test_more_bytes_than_a_model_has_are_refused_before_they_are_read(tmp_path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = artefact.BYTES_MAX + 1
    with gzip.open(tmp_path / "m.tar.gz", "wb") as stream:
        stream.write(member.tobuf())  # and nothing after it: reading on would say that it is truncated
    with pytest.raises(ArtefactError, match="more than 20000000000 bytes"):
        artefact.unpack(tmp_path / "m.tar.gz", tmp_path / "out")


def test_the_code_in_an_archive_is_neither_unpacked_nor_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (model / "code").rglob("*.py"):
        file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(model / "code"))
    out = artefact.unpack(pack(model, tmp_path / "m.tar.gz"), tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == sorted(artefact.NAMES)
    artefact.load(out)
    artefact.load(model)
    assert not (tmp_path / "ran").exists()


def test_a_model_of_before_there_was_code_is_still_read(model: Path) -> None:
    shutil.rmtree(model / "code")
    assert artefact.load(model).config["family"] == "ease"


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


@pytest.mark.parametrize(
    "change", [{"family": "pickle"}, {"family": ["ease"]}, {"family": "sasrec"}, {"halflife": []}, {"format": 2}]
)
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
