"""What somebody who wants it to fail gives a job: files that lie about a model, data and signals at bad moments."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer import artefact, contract, data, ease, images, ranking, rows, serve, tabular, tensors, train
from trainer.contract import ArtefactError, DataError, DivergedError, HyperparameterError, Paths, StopRequest
from trainer.families import Trained
from trainer.popularity import Popularity

from . import families
from . import test_fault_tolerance as fault_tolerance

ROOT = Path(__file__).parents[2]
MOST, LEAST = 2**63 - 1, -(2**63)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model directory of a family, trained once."""
    folder, found = tmp_path_factory.mktemp("hostile"), {}

    def of(family: str) -> Path:
        if family not in found:
            found[family] = families.trained(family, folder)[0].model
        return Path(found[family])

    return of


def forged(model: Path, folder: Path, config: dict[str, Any], change: Callable[[Any], dict[str, Any]] | None) -> Path:
    """The model with another config and other tensors, and a manifest that belongs to these."""
    arrays, header = tensors.read(model / "model.safetensors")
    told, manifest = (json.loads((model / name).read_text()) for name in ("config.json", "manifest.json"))
    folder.mkdir()
    checksum = tensors.write(folder / "model.safetensors", arrays | (change(arrays) if change else {}), header)
    (folder / "config.json").write_text(json.dumps(told | config))
    (folder / "manifest.json").write_text(json.dumps(manifest | {"weights_sha256": checksum}))
    return folder


LIES: dict[str, list[dict[str, Any]]] = {
    "ease": [{"halflife": 0}, {"halflife": float("nan")}, {"halflife": "5 items"}, {"halflife": -1.0}],
    "sasrec": [
        *({"heads": heads} for heads in (0, 3, -1, 10**9, 2.0, True, "2")),
        *({"blend": blend} for blend in (float("inf"), float("nan"), -1, 1e300, "1", True)),
        {"halflife": 0},
    ],
    "tabular": [
        {"classes": [1, 2]},
        {"classes": ["a", "a"]},
        {"classes": "no"},
        {"label": 5},
        {"pairs": [[0, 0.0]]},
        {"pairs": [[-1, 0]]},
        *(
            {"columns": [{"name": "x", "categories": None, "edges": 15, "joined": 2} | lie]}
            for lie in ({"joined": 1.5}, {"joined": 0}, {"edges": -1}, {"name": None}, {"name": "\ud800"}, {"edges": 2})
        ),
    ],
    "cnn": [
        {"classes": [1, 2]},
        {"classes": ["a", "a"]},
        {"label": None},
        *({"pixels": pixels} for pixels in (0, "8", 8.5, 10**9)),
        *({"width": width} for width in (-4, 1024, 10**6)),
        *({"views": views} for views in (0, 99, "five", None)),
        {"colour": "rgb"},
        {"network": "resnet18"},
    ],
}


@pytest.mark.parametrize(("family", "lie"), [(family, lie) for family, lies in LIES.items() for lie in lies])
def test_a_config_that_lies_is_refused_before_anybody_asks(
    models: Callable[[str], Path], tmp_path: Path, family: str, lie: dict[str, Any]
) -> None:
    with pytest.raises(ArtefactError):
        artefact.load(forged(models(family), tmp_path / "forged", lie, None))


def many(items: int) -> dict[str, Any]:
    return {"item_I": np.arange(items), "popularity_I": np.zeros(items, dtype=np.float32)}


CHANGES: dict[str, dict[str, Callable[[Any], dict[str, Any]]]] = {
    "ease": {
        "a weight is no number": lambda a: {"weight_IK": a["weight_IK"] * np.nan},
        "a popularity is infinite": lambda a: {"popularity_I": a["popularity_I"] + np.inf},
        "a neighbour is no item": lambda a: {"neighbour_IK": a["neighbour_IK"] - 1},
        "the weights are of another type": lambda a: {"weight_IK": a["weight_IK"].astype(np.complex64)},
        "a matrix for its items would take 400 GB": lambda a: (
            many(300_000)
            | {"neighbour_IK": np.zeros((300_000, 1), np.int32), "weight_IK": np.zeros((300_000, 1), np.float32)}
        ),
    },
    "sasrec": {
        "no position": lambda a: {"position_embedding": a["position_embedding"][:0]},
        "a bias that is stretched over all": lambda a: {"norm.bias": a["norm.bias"][:1]},
        "a weight too many": lambda a: {"more": np.zeros(3, np.float32)},
        "whole numbers": lambda a: {"item_bias": a["item_bias"].astype(np.int64)},
    },
    "tabular": {
        "edges out of order": lambda a: {"edge_E": a["edge_E"][::-1].copy()},
        "weights that are texts of bytes": lambda a: {"weight_VK": a["weight_VK"].astype(np.int8)},
        "a bias of two dimensions": lambda a: {"bias_K": a["bias_K"][:, None]},
    },
    "cnn": {"a weight too many": lambda a: {"more": np.zeros(3, np.float32)}},
}


@pytest.mark.parametrize(
    ("family", "what"), [(family, what) for family, changes in CHANGES.items() for what in changes]
)
def test_tensors_that_fit_no_model_are_refused(
    models: Callable[[str], Path], tmp_path: Path, family: str, what: str
) -> None:
    with pytest.raises(ArtefactError):
        artefact.load(forged(models(family), tmp_path / "forged", {}, CHANGES[family][what]))


def test_weights_that_overflow_are_answered_in_json_all_the_same(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = forged(models("ease"), tmp_path / "forged", {}, lambda a: {"weight_IK": a["weight_IK"] * 0 + 3e38})
    with np.errstate(all="ignore"):
        told = serve.answer(artefact.load(folder), families.RECOMMEND)
    json.dumps(told, allow_nan=False)


def test_a_model_whose_scores_are_no_numbers_hits_nothing() -> None:
    at = np.arange(12)
    before, after = (data.in_order(at, item_N, at + late) for item_N, late in ((at, 0), (at[::-1], 100)))
    lost = Popularity(at, np.full(12, np.nan, dtype=np.float32))
    assert ranking.measure(lost, ranking.cases_of(before, after))["hit_rate_at_10"]["value"] == 0


def test_a_history_of_millions_takes_no_more_memory_than_the_weights() -> None:
    size, turns = 2000, 200_000
    model = ease.Ease(np.arange(size), np.ones(size, np.float32), np.ones((size, size), np.float32), halflife=5.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    score_I = model.rolling(np.full(turns, 7), turns)[0]
    assert score_I[0] == pytest.approx(1 / (1 - 0.5 ** (1 / 5)), rel=1e-4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kB; a row a turn is 1.6 GB"


# ---- data and hyperparameters


def test_ids_as_far_apart_as_integers_go_make_a_model_that_loads() -> None:
    arrays = {"item_I": np.array([LEAST, 0, MOST]), "popularity_I": np.zeros(3, dtype=np.float32)}
    assert data.catalogue_of(arrays)[0].tolist() == [LEAST, 0, MOST]


def test_moments_beyond_any_calendar_have_a_window(tmp_path: Path) -> None:
    at = pa.array([LEAST + 1, MOST], pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"at": at, "y": ["a", "b"]}), tmp_path / "a.parquet")
    assert rows.read(tmp_path, label="y").window() == (LEAST + 1, MOST)


def test_files_whose_columns_differ_in_type_are_told_of(tmp_path: Path) -> None:
    for name, x in (("a", [1.0]), ("b", ["one"])):
        pq.write_table(pa.table({"x": x, "y": ["a"]}), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="do not have the same columns"):
        rows.read(tmp_path, label="y")


def test_pixels_that_are_missing_are_told_of() -> None:
    table = pa.table({"image": pa.array([bytes(64), None], pa.binary(64))})
    with pytest.raises(DataError, match="1 nulls; drop those rows"):
        images.decode_column(table, 8, "grey")


@pytest.mark.parametrize("labels", [["a"] * 90 + ["b"] * 10, ["a", "b"] * 45 + ["c"] * 10])
def test_newest_rows_of_which_the_older_ones_know_nothing_are_no_validation(labels: list[str]) -> None:
    table = pa.table({"x": np.arange(100.0), "y": labels})
    model, sister = tabular.learn(rows.labelled(table, "y"), tabular.Hyperparameters(label="y", numerical="x"))
    assert sister is None
    assert model is not None
    assert model.classes == tuple(sorted(set(labels)))


@pytest.mark.parametrize("family", ["sasrec", "cnn"])
def test_a_seed_that_torch_cannot_take_is_the_users_fault(family: str, tmp_path: Path) -> None:
    paths, _request = families.laid_out(family, tmp_path)
    paths.hyperparameters.write_text(json.dumps({"model": family, "seed": str(2**64)}))
    with pytest.raises(HyperparameterError, match="seed"):
        train.main(paths, StopRequest())


def test_hyperparameters_nested_without_end_are_the_users_fault(tmp_path: Path) -> None:
    file = tmp_path / "hyperparameters.json"
    file.write_text("[" * 100_000)
    with pytest.raises(HyperparameterError, match="not JSON"):
        contract.read_hyperparameters(file)


def test_half_a_character_in_a_hyperparameter_gets_its_failure_file(tmp_path: Path) -> None:
    assert contract.write_failure(Paths(tmp_path), HyperparameterError("'model' is '\ud800'; give ease")) == 2
    assert Paths(tmp_path).failure.read_text() == "data\n'model' is '?'; give ease"


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
)
def test_want_of_memory_is_known_by_whoever_complains(error: Exception) -> None:
    assert contract.classify(error)[:2] == ("memory", 4)


def test_weights_that_are_no_numbers_leave_no_model(job: Callable[..., Paths], monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Trained(
        arrays={"w": np.array([np.nan])},
        config={"family": "ease"},
        metrics={},
        rows=1,
        first_at=0,
        last_at=0,
        parent=None,
    )
    monkeypatch.setattr(ease, "train", lambda _job: lost)
    paths = job("one", model="ease")
    with pytest.raises(DivergedError, match="w holds what is no number"):
        train.main(paths, StopRequest())
    assert not paths.model.exists()


# ---- signals


@pytest.mark.system
def test_without_torchrun_there_are_no_workers(tmp_path: Path) -> None:
    paths = fault_tolerance.laid_out(tmp_path, "cnn", workers="2", epochs="2000")
    process, _said = fault_tolerance.begun(paths)
    (torchrun,) = psutil.Process(process.pid).children()
    workers = torchrun.children()
    torchrun.kill()
    process.communicate(timeout=60)  # ends when nobody is left to write to its pipe
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert process.returncode == 1
    assert paths.failure.read_text() == "bug\ntorchrun was killed by signal 9, and its workers with it"
    assert not paths.model.exists()


WHILE_IMPORTING = """
import os, signal, sys
class Moment:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["MOMENT"]:
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Moment())
"""


@pytest.mark.system
@pytest.mark.parametrize("command", ["train", "evaluate", "serve"])
@pytest.mark.parametrize("moment", ["argparse", "dataclasses", "numpy", "datetime"])
def test_a_sigterm_in_the_midst_of_an_import_ends_every_command_without_a_word_of_complaint(
    tmp_path: Path, command: str, moment: str
) -> None:
    """numpy, written in C, makes an ImportError of an exception that meets its import of datetime."""
    (tmp_path / "sitecustomize.py").write_text(WHILE_IMPORTING)
    paths, _request = families.laid_out("tabular", tmp_path)
    more = {"SAGEMAKER_BASE_DIR": str(paths.base), "PYTHONPATH": str(tmp_path), "MOMENT": moment}
    run = subprocess.run(
        [sys.executable, "-m", "trainer", command],
        cwd=ROOT,
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert not paths.failure.exists()
