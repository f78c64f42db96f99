from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.contract import (
    DataError,
    DivergedError,
    HyperparameterError,
    Paths,
    Resources,
    parse_hyperparameters,
    read_hyperparameters,
    read_resources,
    setting,
    write_failure,
)
from trainer.ease import Hyperparameters

from . import families

ROOT = Path(__file__).parents[2]


def test_strings_become_the_dataclass_and_sagemakers_own_names_are_passed_over() -> None:
    raw = {"model": "ease", "regularisation": "50", "sagemaker_program": "x", "_tuning_objective_metric": "y"}
    parsed = parse_hyperparameters(Hyperparameters, raw)
    assert (parsed.regularisation, parsed.items_max) == (50.0, 2500)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"items_max": "many"}, "hyperparameter 'items_max' is 'many'; give a whole number from 1 to 20000"),
        ({"regularisation": "nan"}, "hyperparameter 'regularisation' is 'nan'; give a number"),
        ({"halflife": "-1"}, "hyperparameter 'halflife' is '-1'; give a number from 0.1"),
        ({"epoch": "3"}, "hyperparameter 'epoch' is unknown; give one of count_min"),
        ({"model": "sas"}, "hyperparameter 'model' is 'sas'; give one of ease"),
    ],
)
def test_a_bad_hyperparameter_is_named_with_what_to_give(raw: dict[str, str], said: str) -> None:
    with pytest.raises(HyperparameterError, match=said):
        parse_hyperparameters(Hyperparameters, raw)


def test_hyperparameters_that_are_not_strings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "hyperparameters.json"
    assert read_hyperparameters(file) == {}
    for text in ('{"epochs": 3}', "[]", "{"):
        file.write_text(text)
        with pytest.raises(HyperparameterError, match=r"hyperparameters\.json"):
            read_hyperparameters(file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    flip: bool = setting(True)


def test_a_switch_is_true_or_false() -> None:
    assert [parse_hyperparameters(Switch, raw).flip for raw in ({}, {"flip": "false"}, {"flip": "true"})] == [
        True,
        False,
        True,
    ]
    with pytest.raises(HyperparameterError, match="'flip' is 'yes'; give true or false"):
        parse_hyperparameters(Switch, {"flip": "yes"})


def test_the_resource_config_says_which_machine_of_how_many_this_is(tmp_path: Path) -> None:
    file = tmp_path / "resourceconfig.json"
    assert read_resources(file) == Resources()
    file.write_text(
        '{"current_host": "algo-2", "hosts": ["algo-2", "algo-1"], "current_instance_type": "ml.g5.xlarge",'
        ' "network_interface_name": "eth0"}'
    )
    found = read_resources(file)
    assert (found.hosts, found.rank, found.instance_type) == (("algo-1", "algo-2"), 1, "ml.g5.xlarge")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"current_host": "c", "hosts": ["a"]}', '{"hosts": 3}'])
def test_a_resource_config_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "resourceconfig.json").write_text(text)
    with pytest.raises(DataError, match=r"resourceconfig\.json"):
        read_resources(tmp_path / "resourceconfig.json")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (HyperparameterError("x"), "data", 2),
        (DivergedError("x"), "diverged", 3),
        (MemoryError("x"), "memory", 4),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory", 4),
        (OSError(errno.ENOSPC, "No space left on device"), "memory", 4),
        (OSError(errno.EIO, "Input/output error"), "bug", 1),
        (ValueError("x"), "bug", 1),
    ],
)
def test_the_failure_file_begins_with_the_class(tmp_path: Path, error: Exception, kind: str, code: int) -> None:
    paths = Paths(tmp_path)
    assert write_failure(paths, error) == code
    for file in (paths.failure, paths.message):  # of a training job, of a processing job
        assert file.read_text().splitlines()[0] == kind


def test_a_failure_that_cannot_be_written_is_still_told_by_its_code(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("in the way")
    assert write_failure(Paths(tmp_path), OSError(errno.ENOSPC, "No space left on device")) == 4


def test_a_long_failure_fits_what_sagemaker_shows(tmp_path: Path) -> None:
    write_failure(Paths(tmp_path), ValueError("é" * 5000))
    assert len(Paths(tmp_path).failure.read_bytes()) in (1023, 1024)
    assert Paths(tmp_path).failure.read_text(encoding="utf-8").endswith("é")


@pytest.mark.parametrize(
    ("hyperparameters", "said"),
    [
        ({"model": "gru"}, "'model' is 'gru'; give one of sasrec, ease"),
        ({"model": "ease", "items_max": "0"}, "items_max"),
    ],
)
def test_a_failing_job_writes_its_failure_file(
    job: Callable[..., Paths], monkeypatch: pytest.MonkeyPatch, hyperparameters: dict[str, str], said: str
) -> None:
    paths = job("one", **hyperparameters)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(paths.base))
    assert main(["train"]) == 2
    kind, message = paths.failure.read_text().split("\n", 1)
    assert kind == "data"
    assert said in message


@pytest.mark.system
@pytest.mark.parametrize(("said", "has_a_model"), [("train_started", False), ("train_ended", True)])
def test_a_sigterm_before_there_is_anything_to_keep_or_after_the_end_is_no_failure(
    tmp_path: Path, said: str, has_a_model: bool
) -> None:
    paths, _request = families.laid_out("tabular", tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "trainer", "train"],
        cwd=ROOT,
        env=os.environ | {"SAGEMAKER_BASE_DIR": str(paths.base)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert any(said in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0
    assert paths.model.exists() is has_a_model


def test_help_names_the_three_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("train", "evaluate", "serve", "SAGEMAKER_BASE_DIR"))


def test_the_trainer_never_imports_the_daemon_nor_unpickles() -> None:
    for file in (ROOT / "trainer").glob("*.py"):
        text = file.read_text()
        assert not any(word in text for word in ("import retrainer", "from retrainer", "torch.load", "import pickle"))
