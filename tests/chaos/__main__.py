"""`python -m tests.chaos --seconds 90 --backend both --seed 1`: the crash campaign, with its figures."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaign import Campaign
from tests.chaos.report import Plan, Report, table


def main() -> int:
    """Exit status 1 when something was doubled, lost or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0, help="of faults and kills, for each backend")
    parser.add_argument("--backend", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--rate", type=float, default=12.0, help="facts a second")
    parser.add_argument("--folder", type=Path, help="where logs and ledgers are left; default: a temporary one")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    backends = ("sqlite", "postgres") if options.backend == "both" else (options.backend,)
    _tell(f"seed {options.seed}; logs and ledgers are in {folder}")
    reports = [_fought(folder / backend, backend, options) for backend in backends]
    _tell(table(reports))
    for report in reports:
        _tell(f"{report.plan.backend}: {report.findings}")
    return 1 if any(r.findings.doubled or r.findings.lost or r.findings.wrong for r in reports) else 0


def _fought(folder: Path, backend: str, options: argparse.Namespace) -> Report:
    folder.mkdir(parents=True)

    def fight(ledger: str, replicas: int) -> Report:
        plan = Plan(
            backend=backend,
            ledger=ledger,
            replicas=replicas,
            seconds=options.seconds,
            seed=options.seed,
            rate=options.rate,
        )
        return asyncio.run(Campaign(folder, plan, _tell).run())

    if backend == "sqlite":
        return fight(f"sqlite:///{folder / 'ledger.db'}", 1)
    from tests.postgres import PostgresServer

    with PostgresServer() as server:
        return fight(server.database("chaos"), 3)


def _tell(words: str) -> None:
    print(words, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
