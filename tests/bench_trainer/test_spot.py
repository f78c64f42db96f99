"""Stretches of spot machines and jobs upon them, small enough to be reckoned by hand."""

import numpy as np
import pytest

from bench.trainer.spot import Zone, run, young_daly

HOUR = 3600.0


def test_a_job_that_fits_its_first_stretch_pays_for_its_checkpoints_alone() -> None:
    assert run([10 * HOUR], HOUR, every=600, write=10) == (HOUR + 5 * 10, True)


def test_what_came_after_the_last_whole_checkpoint_is_done_again() -> None:
    used, ended = run([1000, 10 * HOUR], HOUR, every=600, write=0)
    assert ended
    assert used == 1000 + HOUR - 600


def test_without_checkpoints_a_job_longer_than_every_stretch_never_ends() -> None:
    assert run([HOUR, HOUR, HOUR], 2 * HOUR, every=2 * HOUR, write=1) == (3 * HOUR, False)


def test_machines_that_go_one_by_one_take_a_job_with_them_by_chance() -> None:
    zone = Zone("gcp25_x", np.array([4, 2, 2, 0, 0, 1]), 600.0)
    assert zone.chances.tolist() == [0.5, 0.0, 1.0, 0.0, 0.0]
    assert zone.interruption_seconds() == 3 * 600 / 1.5


def test_the_cadence_is_youngs() -> None:
    assert young_daly(2.0, 3600.0) == pytest.approx(120.0)
