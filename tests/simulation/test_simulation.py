"""Never lost, never double: the product's loop in a hostile world, seed by seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrainer import ports
from tests.postgres import PostgresServer
from tests.simulation.history import CALLS, ELSEWHERE, calls_of, point
from tests.simulation.simulate import simulate
from tests.simulation.sql import InlineLedger

ROOT = Path(__file__).resolve().parents[2]


def test_a_hostile_world_loses_nothing_and_doubles_nothing(seeds: range, pytestconfig: pytest.Config) -> None:
    for seed in seeds:
        lived = simulate(seed)
        assert not lived.violations, lived.told()
        if pytestconfig.getoption("--seed", default=None) is not None:
            pytest.fail(f"{lived.told()}\nnothing was violated", pytrace=False)


def test_every_port_call_is_crashed_before_it_takes_effect_and_after() -> None:
    """Each seed's first process has one crash point; the seeds go round all of them."""
    wanted = {(call, after) for call in CALLS for after in (False, True)}
    for seed in range(40 * len(CALLS)):
        if point(seed) in wanted:
            wanted -= simulate(seed).crashes
    assert not wanted


def test_every_method_of_the_ports_has_a_crash_point_or_a_reason_for_none() -> None:
    every = calls_of(*(getattr(ports, name) for name in ("Inbox", "Ledger", "Engine", "Analyst")))
    assert set(every) == {*CALLS, *ELSEWHERE}
    assert not set(CALLS) & set(ELSEWHERE)


@pytest.mark.parametrize("seed", [1, 17, 38])
def test_a_seed_is_the_same_history_every_time(seed: int) -> None:
    assert simulate(seed).digest == simulate(seed).digest


def test_a_seed_is_the_same_history_in_another_process() -> None:
    code = "from tests.simulation.simulate import simulate; print(simulate(7).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'deploy'}"}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert told.stdout.strip() == simulate(7).digest


@pytest.mark.parametrize("seed", range(6))
def test_on_sqlite_a_seed_is_the_same_history_as_in_memory(seed: int, tmp_path: Path) -> None:
    assert_same_history(seed, f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.mark.parametrize("seed", range(6, 9))
def test_on_postgresql_a_seed_is_the_same_history_as_in_memory(seed: int, postgres_server: PostgresServer) -> None:
    assert_same_history(seed, postgres_server.schema())


def assert_same_history(seed: int, url: str) -> None:
    ledger = InlineLedger(url)
    lived = simulate(seed, ledger)
    ledger.end()
    assert not lived.violations, lived.told()
    assert lived.digest == simulate(seed).digest
