"""The crash campaign, as much of it as fits into the tests: a hundred kills, and nothing lost or doubled."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.report import Plan, Report, table
from tests.postgres import PostgresServer

pytestmark = pytest.mark.system

SEED = 3
KILLS_MIN = 100
MOST_SECONDS = 120.0
"""Of each backend: on a slow machine the kills take longer, not fewer."""


def test_a_hundred_kills_lose_nothing_and_double_nothing(tmp_path: Path, postgres_server: PostgresServer) -> None:
    of_one = _fought(tmp_path, "sqlite", f"sqlite:///{tmp_path / 'ledger.db'}", replicas=1, kills=25)
    of_three = _fought(tmp_path, "postgres", postgres_server.database("chaos"), replicas=3, kills=KILLS_MIN - 25)
    told = table([of_one, of_three])
    print(f"\n{told}")  # noqa: T201
    for report in (of_one, of_three):
        assert not report.findings.doubled, f"{report.findings}\n{told}"
        assert not report.findings.lost, f"{report.findings}\n{told}"
        assert not report.findings.wrong, f"{report.findings}\n{told}"
        assert report.executions > 0, told
    assert of_one.kills.total() + of_three.kills.total() >= KILLS_MIN, told


def _fought(folder: Path, backend: str, ledger: str, *, replicas: int, kills: int) -> Report:
    plan = Plan(backend=backend, ledger=ledger, replicas=replicas, seconds=MOST_SECONDS, seed=SEED, kills_most=kills)
    place = folder / backend
    place.mkdir()
    return asyncio.run(Campaign(place, plan, lambda words: None).run())
