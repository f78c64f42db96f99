"""A decision and its place in the chain, followed through the ledger: what led to it, by which rules, what followed."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from retrainer import explain
from retrainer.core.effects import MeasureEvidence, StartExecution
from retrainer.core.rules import tree
from retrainer.ports import Ledger, Recorded
from retrainer.replay import Made, Replayed, again, version_of

BACK_MAX = 16
FORTH_MAX = 24
"""Decisions told in each direction."""


async def account(ledger: Ledger, recorded: Recorded, bucket: str | None = None) -> dict[str, Any]:
    """`explain.facts` of the decision, with the chain that it is a link of. `bucket` is where its report lies."""
    replayed = await again(ledger, recorded)
    made = replayed.made if replayed.original.id == recorded.id else None
    followed = await _followed(ledger, recorded, replayed)
    told = explain.facts(recorded, bucket or (made.policy.data.bucket if made else None))
    is_of_one = recorded.event_identity.startswith(("execution:", "approval:"))
    name = told["execution"] or (_answers(recorded) if is_of_one else _first_started(followed))
    return {
        **told,
        "led_to_it": [_link(d) for d in await _led_to_it(ledger, recorded)],
        "rules": made and _rules(made, recorded),
        "no_rules": "" if made else replayed.cannot or f"{replayed.original.id} is not what was recorded",
        "followed": [_link(d) for d in followed],
        "outcome": await _outcome(ledger, name) if name else None,
    }


async def _led_to_it(ledger: Ledger, recorded: Recorded) -> Sequence[Recorded]:
    """The decisions that it answers to, the oldest first."""
    chain: list[Recorded] = []
    link = recorded
    while (name := _answers(link)) and len(chain) < BACK_MAX:
        found = await ledger.decision(name)
        if found is None or version_of(found) >= version_of(link) or found.model != link.model:
            break
        chain.append(found)
        link = found
    return chain[::-1]


def _answers(recorded: Recorded) -> str:
    """What the event is the answer to, or the end of: an effect's key, an execution, a decision; empty for none.

    The identity has it, which compacting leaves; only of a person's answer the event itself.
    """
    kind, _, rest = recorded.event_identity.partition(":")
    match kind:
        case "effect":
            return rest
        case "execution" | "approval":
            return rest.partition(":")[0]
        case "wake":
            return rest.partition("@")[0]
        case _:
            execution = json.loads(recorded.event or "{}").get("execution")
            return execution if isinstance(execution, str) else ""


async def _followed(ledger: Ledger, recorded: Recorded, replayed: Replayed) -> Sequence[Recorded]:
    """The decisions on what came of it, the oldest first: answers to its effects, and what these brought about."""
    found: dict[str, Recorded] = {}
    links = [*await _answering(ledger, recorded), *await _awaited(ledger, recorded, replayed)]
    while links and len(found) < FORTH_MAX:
        link = links.pop(0)
        if link.id not in found and link.model == recorded.model:
            found[link.id] = link
            # Evidence asked for along the way is another story: data that has come since.
            links += await _answering(ledger, link, but=MeasureEvidence.__name__)
    return sorted(found.values(), key=version_of)


async def _answering(ledger: Ledger, recorded: Recorded, but: str = "") -> Sequence[Recorded]:
    answers: list[Recorded] = []
    for key, kind, _ in recorded.effects:
        if kind == but:
            continue
        answer = await ledger.decision(f"effect:{key}")
        answers += [answer] if answer else []
        if kind == StartExecution.__name__:
            answers += await ledger.about(key)
    return answers


async def _awaited(ledger: Ledger, recorded: Recorded, replayed: Replayed) -> Sequence[Recorded]:
    """What the state it leaves was waiting for: evidence asked for earlier, or the moment to be woken at."""
    if replayed.made is None or replayed.original.id != recorded.id:
        return ()
    state = replayed.made.decision.state
    names = [f"effect:{state.measuring}"] if state.measuring else []
    names += [f"wake:{recorded.id}@{state.wake_at.isoformat()}"] if state.wake_at else []
    return [answer for name in names if (answer := await ledger.decision(name))]


def _link(recorded: Recorded) -> dict[str, Any]:
    told = explain.facts(recorded)
    return {
        "decision": recorded.id,
        "at": told["at"],
        "event": told["event"]["kind"],
        "came": explain.came(told["event"]),
        "reason": recorded.reason,
        "detail": recorded.detail,
        "effects": told["effects"],
    }


def _rules(made: Made, recorded: Recorded) -> dict[str, Any]:
    return asdict(tree(made.policy, made.before, made.event, recorded.at, made.fleet))


def _first_started(followed: Sequence[Recorded]) -> str | None:
    started = (key for d in followed for key, kind, _ in d.effects if kind == StartExecution.__name__)
    return next(started, None)


async def _outcome(ledger: Ledger, execution: str) -> dict[str, Any]:
    """How far the execution has come, and how it ended."""
    told: dict[str, Any] = {"execution": execution, "status": "PLANNED", "started_at": None, "ended_at": None}
    for recorded in await ledger.about(execution):
        event = json.loads(recorded.event or "{}")
        match recorded.event_kind:
            case "ExecutionStarted":
                told |= {"status": "RUNNING", "started_at": recorded.at.isoformat(), "arn": event.get("arn")}
            case "ExecutionEnded":
                status = recorded.event_identity.rpartition(":")[2]
                told |= {"status": status, "ended_at": recorded.at.isoformat(), "became": recorded.reason}
                told |= {"outcome": event.get("outcome"), "cause": event.get("cause") or None}
            case _:
                told["waits_for_a_person"] = recorded.event_kind == "ApprovalRequested"
    return told
