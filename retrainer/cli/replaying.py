"""`retrainer replay`: proves that the ledger's decisions are what `decide` makes of what they were made of."""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retrainer.cli.arguments import Add, for_machines
from retrainer.cli.terminal import say, working
from retrainer.client import FailedError

if TYPE_CHECKING:
    from retrainer.ports import Ledger
    from retrainer.replay import Replayed

SHOWN_MAX = 200
"""Characters of a value that are shown."""

DIFFERENCES_MAX = 20
EVERY = 1000
"""Decisions after which a person is told how far it is."""


def add_to(add: Add) -> None:
    replay = add(
        "replay",
        _replay,
        "make decisions of the ledger again, and compare each with what was recorded\n"
        "State before and after, reason, detail and effects must be the same, byte by byte. The ledger\n"
        "(RETRAINER_LEDGER) is only read: with a daemon on it, or without. Exit code 1 when something differs.",
        "retrainer replay recommender-17",
        "retrainer replay --all",
        "retrainer replay --all --model recommender",
    )
    replay.add_argument("name", nargs="?", metavar="ID", help="a decision, the identity of an event, or an execution")
    replay.add_argument("--all", action="store_true", help="every decision of the ledger")
    replay.add_argument("--model", help="of this model only")
    for_machines(replay)


def _replay(args: argparse.Namespace) -> int:
    if (args.name is None) is not (args.all or args.model is not None):
        raise FailedError("say which decision, or --all, or --model NAME")
    return asyncio.run(_one(args.name, args.json) if args.name else _many(args.model, args.json))


@asynccontextmanager
async def opened() -> "AsyncIterator[Ledger]":
    """The ledger of the settings, to be read only: a daemon may be running on it."""
    from retrainer import wiring
    from retrainer.settings import Reach, read

    ledger = await wiring.open_ledger(read(Reach).ledger, read_only=True)
    try:
        yield ledger
    finally:
        await ledger.close()


async def known_models(ledger: "Ledger", wanted: str | None) -> Sequence[str]:
    """Those that the ledger has decisions on. Raises FailedError where the one that is wanted is none of them."""
    models = await ledger.models()
    if wanted is not None and wanted not in models:
        known = ", ".join(models) or "none"
        raise FailedError(f"the ledger has no decisions on {wanted!r}; it has some on: {known}")
    return models


async def _one(name: str, as_json: bool) -> int:
    from retrainer.replay import again

    async with opened() as ledger:
        recorded = await ledger.decision(name)
        if recorded is None:
            raise FailedError(f"in the ledger there is no decision, event identity or execution {name!r}")
        replayed = await again(ledger, recorded)
    found = replayed.original
    if replayed.cannot:
        raise FailedError(f"{found.id} cannot be replayed: {replayed.cannot}")
    if as_json:
        say(json.dumps({"decision": found.id, "identical": not replayed.differences, **_told(replayed)}))
    elif replayed.differences:
        on_the_way = "" if found.id == recorded.id else f", which {recorded.id} is built on,"
        _show_differences(f"{found.id}{on_the_way} differs:", replayed)
    else:
        say(f"{found.id} replayed, identical: {found.reason}, state {found.state_hash_after[:12]}")
    return 1 if replayed.differences else 0


@dataclass(slots=True)
class _Model:
    """How far one model's replay came."""

    name: str
    identical: int = 0
    cannot: Counter[str] = field(default_factory=Counter)
    first: "Replayed | None" = None
    """The first that differs."""


async def _many(model: str | None, as_json: bool) -> int:
    done: list[_Model] = []
    with working("reading the ledger") as tell:
        async with opened() as ledger:
            models = await known_models(ledger, model)
            total = (await ledger.counts())["decisions"]
            for name in [model] if model else models:
                done.append(await _of_model(ledger, name, tell, sum(d.identical for d in done), total))
    if as_json:
        say(json.dumps({"identical": not any(m.first for m in done), "models": {m.name: _summed(m) for m in done}}))
    else:
        _show(done)
    return 1 if any(m.first for m in done) else 0


async def _of_model(ledger: "Ledger", name: str, tell: Callable[[str], Any], before: int, total: int) -> _Model:
    from retrainer.replay import walk

    model = _Model(name)
    async for replayed in walk(ledger, name):
        if replayed.differences:
            model.first = replayed
        elif replayed.cannot:
            model.cannot[replayed.cannot] += 1
        else:
            model.identical += 1
        if replayed.original.version % EVERY == 0:
            tell(f"{name}: {before + replayed.original.version:,} of {total:,} decisions")
    return model


def _show(models: "Sequence[_Model]") -> None:
    if not models:
        say("the ledger has no decisions")
    for model in models:
        count = f"{model.identical:,} decision{'' if model.identical == 1 else 's'} replayed"
        if model.first:
            head = f"{model.name}: {count} identical, then {model.first.original.id} differs:"
            _show_differences(head, model.first)
        else:
            say(f"{model.name}: {count}, all identical" if model.identical else f"{model.name}: no decision replayed")
        for why, number in model.cannot.items():
            say(f"  {number:,} cannot be replayed: {why}")


def _show_differences(head: str, replayed: "Replayed") -> None:
    from retrainer.replay import changes

    say(head)
    for difference in replayed.differences[:DIFFERENCES_MAX]:
        say(f"  {_shown(difference.what)}")
        say(f"    recorded    {_shown(difference.recorded)}")
        say(f"    recomputed  {_shown(difference.recomputed)}")
    if len(replayed.differences) > DIFFERENCES_MAX:
        say(f"  and {len(replayed.differences) - DIFFERENCES_MAX} more")
    if made := changes(replayed):
        say("  what it changes of the state, recomputed")
        for change in made[:DIFFERENCES_MAX]:
            say(f"    {_shown(change.what)}: {_shown(change.recorded)} -> {_shown(change.recomputed)}")


def _shown(text: str) -> str:
    from retrainer.explain import printable

    return printable(text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "...")


def _told(replayed: "Replayed") -> dict[str, Any]:
    return {
        "differences": [
            {"what": d.what, "recorded": d.recorded, "recomputed": d.recomputed} for d in replayed.differences
        ]
    }


def _summed(model: _Model) -> dict[str, Any]:
    first = {"decision": model.first.original.id, **_told(model.first)} if model.first else None
    return {"identical": model.identical, "cannot": dict(model.cannot), "first_difference": first}
