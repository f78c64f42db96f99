"""The loop by itself: what it asks of a learner, when it stops, what it does not let pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.learner import Small, SmallHyperparameters, StopAfter, job_of, trained
from trainer import checkpoint, loop, tensors
from trainer.contract import DivergedError, Paths

SMALL = SmallHyperparameters()
OFTEN = SmallHyperparameters(interruption_seconds=0)  # a checkpoint as soon as the one before is written


def digest_of(small: Small | None) -> str:
    assert small is not None, "it was stopped"
    return tensors.digest(small.weights())


def cursor_of(folder: Path, p: SmallHyperparameters) -> dict[str, Any]:
    found = checkpoint.load_newest(folder, loop.fingerprint(p))
    assert found is not None
    cursor: dict[str, Any] = found.state["cursor"]
    return cursor


@pytest.mark.parametrize("p", [SMALL, OFTEN])
@pytest.mark.parametrize("seed", range(5))
def test_stopped_anywhere_and_resumed_the_weights_are_those_of_an_undisturbed_job(
    tmp_path: Path, p: SmallHyperparameters, seed: int
) -> None:
    whole = trained(job_of(Paths(tmp_path / "whole"), p))
    for asked in np.random.default_rng(seed).integers(0, 30, size=4):
        trained(job_of(Paths(tmp_path / "parts"), p, StopAfter(int(asked))))
    parts = trained(job_of(Paths(tmp_path / "parts"), p))
    assert digest_of(parts) == digest_of(whole)
    assert whole is not None
    assert parts is not None
    assert parts.heard == whole.heard


@pytest.mark.parametrize(("asked", "epoch", "step"), [(0, 0, 0), (1, 0, 1), (20, 0, 20), (21, 1, 0), (30, 1, 9)])
def test_the_checkpoint_of_a_stop_is_of_the_very_step(tmp_path: Path, asked: int, epoch: int, step: int) -> None:
    paths = Paths(tmp_path)
    assert trained(job_of(paths, SMALL, StopAfter(asked))) is None
    cursor = cursor_of(paths.checkpoints, SMALL)
    assert (cursor["epoch"], cursor["step"], cursor["steps_done"]) == (epoch, step, epoch * 20 + step)


def test_a_stop_right_after_a_resume_writes_nothing_new(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    trained(job_of(paths, SMALL, StopAfter(5)))
    before = {file: file.stat().st_mtime_ns for file in paths.checkpoints.iterdir()}
    assert trained(job_of(paths, SMALL, StopAfter(0))) is None
    assert {file: file.stat().st_mtime_ns for file in paths.checkpoints.iterdir()} == before


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps_also_after_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def losses() -> list[str]:
        lines = capsys.readouterr().out.splitlines()
        return [line.split("seconds=")[0] for line in lines if line.startswith("epoch_ended")]

    trained(job_of(Paths(tmp_path / "whole"), SMALL))
    whole = losses()
    trained(job_of(Paths(tmp_path / "parts"), SMALL, StopAfter(33)))
    trained(job_of(Paths(tmp_path / "parts"), SMALL))
    assert losses() == whole
    assert len(whole) == SMALL.epochs


def test_a_loss_that_runs_away_is_diverged_and_the_sound_checkpoint_stays(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    p = SmallHyperparameters(interruption_seconds=0, breaks_at=30)
    with pytest.raises(DivergedError, match=r"epoch 1, step 1\d, learning rate 0\.01; give a learning_rate below"):
        trained(job_of(paths, p))
    found = checkpoint.load_newest(paths.checkpoints, loop.fingerprint(p))
    assert found is not None
    assert found.state["cursor"]["steps_done"] <= 30
    assert all(np.isfinite(array).all() for array in found.tensors.values())


def test_weights_that_are_no_numbers_are_not_written_even_on_a_stop(tmp_path: Path) -> None:
    """The last step's loss was sound, and what it left behind is not."""
    paths = Paths(tmp_path)
    p = SmallHyperparameters(breaks_at=4)
    with pytest.raises(DivergedError, match="a weight is no number at epoch 0, step 4"):
        trained(job_of(paths, p, StopAfter(5)))
    assert cursor_of(paths.checkpoints, p)["steps_done"] == 1


def test_a_loss_beyond_the_learners_limit_is_diverged(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the loss is"):
        trained(job_of(Paths(tmp_path), SmallHyperparameters(learning_rate=1e3)))


def test_epochs_without_steps_end_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained(job_of(Paths(tmp_path), SmallHyperparameters(steps=0))) is not None
    assert "train_loss" not in capsys.readouterr().out


def test_a_job_that_was_killed_while_its_model_was_written_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    first, second = (trained(job_of(Paths(tmp_path), OFTEN)) for _ in range(2))
    assert digest_of(first) == digest_of(second)


def test_workers_and_interruptions_do_not_belong_to_the_fingerprint_and_all_else_does() -> None:
    other = SmallHyperparameters(workers=4, interruption_seconds=1.0)
    assert loop.fingerprint(SMALL, "rows") == loop.fingerprint(other, "rows")
    assert loop.fingerprint(SMALL, "rows") != loop.fingerprint(SMALL, "other rows")
    assert loop.fingerprint(SMALL, None) != loop.fingerprint(SmallHyperparameters(seed=1), None)
