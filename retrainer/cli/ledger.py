"""`retrainer ledger`: how large the daemon's ledger is, and how it is made smaller."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from retrainer.cli.arguments import Add, adder, age, asks_daemon
from retrainer.cli.terminal import say, table
from retrainer.client import FailedError, UnreachableError, ask

if TYPE_CHECKING:
    from retrainer.ports import Ledger

COMPACT_SECONDS = 600.0
"""How long the daemon may take to compact before the command stops waiting; the daemon does not."""


def add_to(add: Add) -> None:
    group = add(
        "ledger",
        None,
        "tell how large the ledger is, or make it smaller",
        "retrainer ledger size",
        "retrainer ledger compact --older-than 90d",
    )
    add_here = adder(group)
    size = add_here(
        "size",
        _size,
        "show the rows of each table, and what the ledger takes on disk\nWithout a daemon its ledger is read.",
        "retrainer ledger size",
    )
    asks_daemon(size)
    compact = add_here(
        "compact",
        _compact,
        "have the daemon drop the bodies of what was settled long ago\n"
        "Identities, decisions with their reasons, and executions stay, so that nothing is ever taken for new again;\n"
        "but of what is older, `retrainer explain` can tell less.",
        "retrainer ledger compact --older-than 90d",
    )
    compact.add_argument(
        "--older-than", type=age, required=True, metavar="AGE", help="days or weeks, 31d at the least: 90d, 13w"
    )
    asks_daemon(compact)


def _size(args: argparse.Namespace) -> int:
    try:
        told = ask(args.url, "GET", "/ledger")
    except UnreachableError as away:
        if args.url:
            raise
        told = asyncio.run(_sizes(away))
    if args.json:
        say(json.dumps(told))
        return 0
    rows: Mapping[str, int] = told["rows"]
    table(("table", "rows"), [(name, f"{count:,}") for name, count in rows.items() if name != "effects_owed"])
    owed = rows["effects_owed"]
    say(f"{shown(told['bytes'])} on disk, {owed:,} effect{'' if owed == 1 else 's'} owed")
    return 0


def _compact(args: argparse.Namespace) -> int:
    before = datetime.now(UTC) - args.older_than
    told = ask(args.url, "POST", "/ledger/compact", {"before": before.isoformat()}, timeout_seconds=COMPACT_SECONDS)
    if args.json:
        say(json.dumps(told))
    else:
        say(
            f"{told['rows']:,} rows from before {before:%Y-%m-%d %H:%MZ} made smaller: "
            f"{shown(told['bytes_before'])} became {shown(told['bytes_after'])}"
        )
    return 0


def shown(size_bytes: int) -> str:
    """A size as people read it."""
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


@asynccontextmanager
async def beside(away: UnreachableError) -> AsyncIterator["Ledger"]:
    """The ledger of a daemon that is away, which can be read all the same."""
    from retrainer import wiring
    from retrainer.ports import ConfigError
    from retrainer.settings import Reach, read

    try:
        ledger = await wiring.open_ledger(read(Reach).ledger, read_only=True)
    except ConfigError as error:
        raise FailedError(f"{away}\nwithout a daemon its ledger is read (RETRAINER_LEDGER): {error}") from None
    try:
        yield ledger
    finally:
        await ledger.close()


async def _sizes(away: UnreachableError) -> dict[str, Any]:
    async with beside(away) as ledger:
        return {"bytes": await ledger.size_bytes(), "rows": dict(await ledger.counts())}
