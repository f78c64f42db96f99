"""The gate works: planted bugs are caught. All of them are `make mutants`; some of the quick ones are tried always."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, catch, catch_named, table
from tests.simulation.planting import Mutant

TABLE = Path(__file__).with_name("mutants.md")
ALWAYS = (
    "acknowledge before commit",
    "no version check",
    "rename on retry",
    "edge instead of level",
    "drop instead of keep",
)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.name in ALWAYS], ids=lambda m: m.name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    assert catch(mutant, range(100))


def test_every_planted_bug_is_in_the_table_with_a_seed() -> None:
    told = TABLE.read_text()
    assert len(MUTANTS) >= 24
    assert "**not caught**" not in told
    assert all(f"| {m.name} | {m.breaks} |" in told for m in MUTANTS)


@pytest.mark.mutants
def test_every_planted_bug_is_caught_within_a_thousand_seeds() -> None:
    names = [mutant.name for mutant in MUTANTS]
    with ProcessPoolExecutor(mp_context=get_context("fork")) as processes:
        caught = list(processes.map(catch_named, names))
    TABLE.write_text(table(caught))
    assert not [name for name, found in zip(names, caught, strict=True) if found is None]
