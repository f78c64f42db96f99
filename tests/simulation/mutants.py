"""The mutation gate: bugs planted one at a time, each of which the simulation must see within a thousand seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.simulation import mutants_core, mutants_intake, mutants_ledger, mutants_loop, mutants_outbox, mutants_timers
from tests.simulation.planting import Mutant
from tests.simulation.simulate import simulate

SEEDS_MAX = 1000
MODULES = (mutants_intake, mutants_loop, mutants_ledger, mutants_outbox, mutants_timers, mutants_core)
MUTANTS: Sequence[Mutant] = tuple(m for module in MODULES for m in vars(module).values() if isinstance(m, Mutant))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """The first seed that showed the bug, and the invariant that it broke."""

    seed: int
    invariant: str
    said: str


def catch(mutant: Mutant, seeds: Iterable[int] = range(SEEDS_MAX)) -> Caught | None:
    """Look for the bug, seed by seed; None when it was not seen. Without it the same seed must be a good one."""
    for seed in seeds:
        with mutant.planted():
            violations = simulate(seed).violations
        if violations and not simulate(seed).violations:
            return Caught(seed=seed, invariant=violations[0][0], said=violations[0][1])
    return None


def catch_named(name: str) -> Caught | None:
    """The same, in a process of its own."""
    return catch(next(m for m in MUTANTS if m.name == name))


def table(caught: Sequence[Caught | None]) -> str:
    """What is committed as mutants.md; one for each mutant, in their order."""
    lines = [
        "# Planted bugs, and the seed that catches each",
        "",
        f"Written by `make mutants`: {sum(c is not None for c in caught)} of {len(caught)} caught within "
        f"{SEEDS_MAX} seeds each.",
        "",
        "| mutant | what it breaks | seed | invariant |",
        "|---|---|---|---|",
    ]
    for mutant, found in zip(MUTANTS, caught, strict=True):
        seen = f"{found.seed} | {found.invariant}" if found else "- | **not caught**"
        lines.append(f"| {mutant.name} | {mutant.breaks} | {seen} |")
    return "\n".join(lines) + "\n"
