from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.contract import (
    DivergedError,
    HyperparameterError,
    Paths,
    parse_hyperparameters,
    read_hyperparameters,
    write_failure,
)
from trainer.ease import EaseHyperparameters


def test_strings_become_the_dataclass_and_sagemakers_own_names_are_passed_over() -> None:
    raw = {"model": "ease", "regularisation": "50", "sagemaker_program": "x", "_tuning_objective_metric": "y"}
    parsed = parse_hyperparameters(EaseHyperparameters, raw)
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
        parse_hyperparameters(EaseHyperparameters, raw)


def test_hyperparameters_that_are_not_strings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "hyperparameters.json"
    assert read_hyperparameters(file) == {}
    for text in ('{"epochs": 3}', "[]", "{"):
        file.write_text(text)
        with pytest.raises(HyperparameterError, match=r"hyperparameters\.json"):
            read_hyperparameters(file)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (HyperparameterError("x"), "data", 2),
        (DivergedError("x"), "diverged", 3),
        (MemoryError("x"), "memory", 4),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory", 4),
        (ValueError("x"), "bug", 1),
    ],
)
def test_the_failure_file_begins_with_the_class(tmp_path: Path, error: Exception, kind: str, code: int) -> None:
    paths = Paths(tmp_path)
    assert write_failure(paths, error) == code
    assert paths.failure.read_text().splitlines()[0] == kind


def test_a_long_failure_fits_what_sagemaker_shows(tmp_path: Path) -> None:
    write_failure(Paths(tmp_path), ValueError("x" * 5000))
    assert len(Paths(tmp_path).failure.read_text()) == 1024


@pytest.mark.parametrize(
    ("hyperparameters", "said"),
    [
        ({"model": "cnn"}, "'model' is 'cnn'; give one of sasrec, ease"),
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


def test_help_names_the_three_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("train", "evaluate", "serve", "SAGEMAKER_BASE_DIR"))


def test_the_trainer_never_imports_the_daemon_nor_unpickles() -> None:
    for file in (Path(__file__).parents[2] / "trainer").glob("*.py"):
        text = file.read_text()
        assert not any(word in text for word in ("import retrainer", "from retrainer", "torch.load", "import pickle"))
