"""What a campaign is to do, and what it tells at its end."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.judge import Findings
from tests.chaos.proxy import Faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done. It ends after `seconds`, or with the kill number `kills_most` if that comes first."""

    backend: str
    ledger: str
    replicas: int
    seconds: float
    seed: int
    rate: float = 12.0
    kills_most: int | None = None
    faults: Faults = field(default_factory=Faults)


@dataclass(slots=True, kw_only=True)
class Report:
    """What was done to the daemons, and what came of it."""

    plan: Plan
    seconds: float = 0.0
    settled_seconds: float = 0.0
    messages: int = 0
    facts: int = 0
    decisions: int = 0
    executions: int = 0
    redriven: int = 0
    conflicts: int = 0
    longest_recovery_seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    kills_starting: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)


def table(reports: list[Report]) -> str:
    """The reports side by side."""
    rows: list[tuple[str, Callable[[Report], object]]] = [
        ("replicas", lambda r: r.plan.replicas),
        ("seed", lambda r: r.plan.seed),
        ("seconds, and to settle", lambda r: f"{r.seconds:.0f} + {r.settled_seconds:.0f}"),
        ("facts (messages)", lambda r: f"{r.facts} ({r.messages})"),
        ("decisions", lambda r: r.decisions),
        ("executions", lambda r: r.executions),
        ("kills (of them at start-up)", lambda r: f"{r.kills.total()} ({r.kills_starting})"),
        ("replies lost or failed", lambda r: r.faults["ambiguous"]),
        ("calls throttled", lambda r: r.faults["throttled"]),
        ("second deliveries by SQS", lambda r: r.faults["duplicated"]),
        ("redriven", lambda r: r.redriven),
        ("version conflicts", lambda r: r.conflicts),
        ("longest recovery, s", lambda r: f"{r.longest_recovery_seconds:.1f}"),
        ("slowest fact, s", lambda r: f"{r.findings.slowest.total_seconds():.1f}"),
        ("doubled", lambda r: len(r.findings.doubled)),
        ("lost", lambda r: len(r.findings.lost)),
        ("otherwise wrong", lambda r: len(r.findings.wrong)),
    ]
    lines = [f"{'backend':<28}" + "".join(f"{r.plan.backend:>16}" for r in reports)]
    lines += [f"{name:<28}" + "".join(f"{value(r)!s:>16}" for r in reports) for name, value in rows]
    points = sorted({point for r in reports for point in r.kills})
    lines += [f"  {point:<30}" + "".join(f"{r.kills[point]:>12}" for r in reports) for point in points]
    return "\n".join(lines)
