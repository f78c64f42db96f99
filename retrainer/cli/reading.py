"""The commands that only look: at policy files, at every model, at one decision."""

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retrainer.cli.arguments import Add, asks_daemon, for_machines
from retrainer.cli.terminal import say, table
from retrainer.client import FailedError, UnreachableError, ask


def add_to(add: Add) -> None:
    validate = add(
        "validate",
        _validate,
        "check policy files: each error is told as file:line:column with what to write instead",
        "retrainer validate",
        "retrainer validate policies/recommender.yaml",
    )
    validate.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files or folders (RETRAINER_POLICIES)")
    for_machines(validate)
    status = add("status", _status, "show every model: champion, execution, window, triggers kept", "retrainer status")
    asks_daemon(status)
    explain = add(
        "explain",
        _explain,
        "tell a decision: what led to it, each rule's value against its threshold, what became of it",
        "retrainer explain recommender-17",
        "retrainer explain recommender-g3-1a2b3c4d",
        "retrainer explain 'object:my-bucket/data/recommender/2026-01.parquet@0055AED6DCD90281E5'",
    )
    explain.add_argument("name", help="a decision, the identity of an event, or an execution")
    asks_daemon(explain)


def _validate(args: argparse.Namespace) -> int:
    from retrainer import wiring
    from retrainer.settings import Reach, read

    found = wiring.check_policies(args.paths or [read(Reach).policies])
    errors = [why for why in found.values() if why is not None]
    if args.json:
        say(json.dumps({"valid": [str(path) for path, why in found.items() if why is None], "errors": errors}))
    else:
        for path, why in found.items():
            say(f"{path}: OK" if why is None else why)
    return 1 if errors else 0


def _status(args: argparse.Namespace) -> int:
    from retrainer.explain import notes

    told = ask(args.url, "GET", "/statusz")
    if args.json:
        say(json.dumps(told))
        return 0
    _show_models(told["models"])
    for line in notes(told):
        say(line)
    return 0


def _show_models(models: Mapping[str, Any]) -> None:
    rows = []
    for name, known in models.items():
        champion, execution, seen = known["champion"], known["execution"], known["evidence"] or {}
        measured = f"{seen['metric']} {seen['performance']:.4f}" if seen.get("metric") else "-"
        cells = (
            name,
            f"g{champion['generation']}" if champion else "-",
            f"{execution['name']} {execution['status']}" if execution else "-",
            str(known["window"]["rows_untried"]),
            f"{seen['drift_share']:.2f}" if seen else "-",
            measured,
            ", ".join(f"{m['kind']}: {m['why']}" for m in known["kept"]) or "-",
            f"{known['pause']['by']}: {known['pause']['why']}" if known["pause"] else "-",
        )
        rows.append(cells)
    table(("model", "champion", "execution", "untried rows", "drift", "performance", "kept", "paused"), rows)


def _explain(args: argparse.Namespace) -> int:
    from retrainer import explain

    try:
        told = ask(args.url, "GET", f"/decisions/{quote(args.name, safe='')}")
    except UnreachableError as away:
        if args.url:
            raise
        told = asyncio.run(_from_ledger(args.name, away))
    say(json.dumps(told) if args.json else explain.text(told))
    return 0


async def _from_ledger(name: str, away: UnreachableError) -> dict[str, Any]:
    from retrainer import causes
    from retrainer.cli.ledger import beside

    async with beside(away) as ledger:
        found = await ledger.decision(name)
        if found is None:
            raise FailedError(f"{away}\nin its ledger there is no decision, event identity or execution {name!r}")
        return await causes.account(ledger, found)
