"""Decisions made again from what the ledger kept of them, and compared with what they were, byte by byte."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from retrainer import __version__
from retrainer.core.decide import Decision, decide, decision_id
from retrainer.core.events import Event
from retrainer.core.fleet import ALONE, Fleet
from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump, dump_as_before, load_event, load_fleet, load_policy, load_state
from retrainer.core.state import ModelState
from retrainer.ports import Ledger, Original, Recorded

COMPACTED = "its event was dropped when the ledger was compacted"
NO_POLICY = "it was recorded before policies were kept"
NO_STATE = "the state before it is not known: neither was it kept, nor can all decisions before it be made again"

_SECRET = "task_token"  # noqa: S105 - the name of a field


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A model's state, and the hash of the text that it was read from or is written as."""

    state: ModelState
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A decision made again, and all that it was made of."""

    policy: Policy
    before: ModelState
    event: Event
    fleet: Fleet
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What the ledger says and what came out, of one thing. Fit to be shown: no secret is in it."""

    what: str
    recorded: str
    recomputed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of one decision: made again, or `cannot`, in one sentence. `after` is where the next goes on from."""

    original: Original
    made: Made | None = None
    cannot: str = ""
    differences: tuple[Difference, ...] = ()
    after: Known | None = None


def replay(original: Original, before: Known | None) -> Replayed:
    """Make the decision again on the state before it (None: not known), and compare."""
    if why := _cannot(original, before):
        return Replayed(original=original, cannot=why, after=kept(original))
    assert before
    try:
        policy = _policy(original.policy or "")
        event = load_event(original.event_kind, original.event)
        fleet = load_fleet(original.fleet) if original.fleet else ALONE
    except (KeyError, ValueError) as error:
        why = f"this version cannot read what it was made of: {_first_line(error)}"
        return Replayed(original=original, cannot=why, after=kept(original))
    decision = decide(policy, before.state, event, original.at, fleet)
    before = replace(before, hash=_hash_like(original.state_hash_before, before))
    text, after = _written_like(original, decision.state)
    differences = tuple(_differences(original, before, decision, after, text))
    made = Made(policy=policy, before=before.state, event=event, fleet=fleet, decision=decision)
    return Replayed(original=original, made=made, differences=differences, after=None if differences else after)


def _hash_like(recorded: str, known: Known) -> str:
    """The state's hash, of the text of this version or of an older one, whichever is the recorded."""
    if known.hash == recorded:
        return recorded
    hashes = (digest(write(known.state)) for write in (dump, dump_as_before))
    return recorded if recorded in hashes else known.hash


def _written_like(original: Original, state: ModelState) -> tuple[str, Known]:
    """The state as the version that recorded it would have written it, and so as the next decision was made on it."""
    text = dump(state)
    if digest(text) != original.state_hash_after:
        older = dump_as_before(state)
        if digest(older) == original.state_hash_after:
            return older, Known(state=load_state(older), hash=original.state_hash_after)
    return text, Known(state=state, hash=digest(text))


def kept(original: Original) -> Known | None:
    """The state that the ledger kept beside the decision; None where it did not, or it cannot be read."""
    if original.state_after is None:
        return None
    try:
        return Known(state=load_state(original.state_after), hash=digest(original.state_after))
    except ValueError:
        return None


def changes(replayed: Replayed) -> list[Difference]:
    """What the decision changes of the state, field by field, where the ledger has no more than a hash of it."""
    if replayed.made is None or any(d.what.startswith("state after: ") for d in replayed.differences):
        return []
    return [*_fields("", dump(replayed.made.before), dump(replayed.made.decision.state))]


async def walk(ledger: Ledger, model: str) -> AsyncIterator[Replayed]:
    """Every decision of the model made again, the oldest first; ends after the first that differs."""
    async for replayed in _walked(ledger, model, 1, _new(model)):
        yield replayed


async def again(ledger: Ledger, recorded: Recorded) -> Replayed:
    """One decision made again; the first that differs on the way from the last state that was kept, if one does."""
    version = version_of(recorded)
    start = await ledger.kept_state(recorded.model, version - 1)
    known = None if start else _new(recorded.model)
    found: Replayed | None = None
    async for replayed in _walked(ledger, recorded.model, start or 1, known):
        found = replayed
        # The first is only the state to begin with.
        if replayed.original.version == version or (replayed.differences and replayed.original.version > start):
            break
    assert found, f"{recorded.id} is in the ledger and not in its history"
    return found


def version_of(recorded: Recorded) -> int:
    """The version of the state that the decision leaves, which its name ends with."""
    return int(recorded.id.removeprefix(decision_id(recorded.model, 0)[:-1]))


async def _walked(ledger: Ledger, model: str, first: int, known: Known | None) -> AsyncIterator[Replayed]:
    async for original in ledger.history(model, first):
        replayed = replay(original, known)
        yield replayed
        if replayed.differences:
            return
        known = replayed.after


def _new(model: str) -> Known:
    state = ModelState(model=model)
    return Known(state=state, hash=digest(dump(state)))


def _cannot(original: Original, before: Known | None) -> str:
    if original.recorded_by is None:
        return NO_POLICY
    if original.policy is None:
        return f"the ledger has no policy {original.policy_hash[:12]}"
    if not original.event:
        return COMPACTED
    return "" if before else NO_STATE


@lru_cache(maxsize=256)
def _policy(text: str) -> Policy:
    return load_policy(text)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


# --- comparing ---


def _differences(
    original: Original, before: Known, decision: Decision, after: Known, text: str
) -> Iterator[Difference]:
    plain = (
        ("policy's hash", original.policy_hash, digest(original.policy or "")),
        ("decision", original.id, decision.id),
        ("state before", original.state_hash_before, before.hash),
        ("reason", original.reason, decision.reason.value),
        # Not every ledger takes a NUL in a text.
        ("detail", *(said.replace("\0", "\ufffd") for said in (original.detail, decision.detail))),
    )
    found = [Difference(what=what, recorded=was, recomputed=now) for what, was, now in plain if was != now]
    found += _effects(original, decision)
    if original.state_hash_after != after.hash:
        found.append(Difference(what="state after", recorded=original.state_hash_after, recomputed=after.hash))
    if original.state_after is not None and original.state_after != text:
        found += _fields("state after: ", original.state_after, text)
    if found and original.recorded_by != __version__:
        found.append(Difference(what="retrainer", recorded=original.recorded_by or "", recomputed=__version__))
    return iter(found)


def _effects(original: Original, decision: Decision) -> Iterator[Difference]:
    recorded = {key: (kind, body) for key, kind, body in original.effects}
    effects = {effect.key: effect for effect in decision.effects}
    recomputed = {key: (type(effect).__name__, dump(effect)) for key, effect in effects.items()}
    if [*recorded] != [*recomputed]:
        yield Difference(what="effects", recorded=", ".join(recorded), recomputed=", ".join(recomputed))
    for key in (key for key in recorded if key in recomputed):
        (was_kind, was), (kind, now) = recorded[key], recomputed[key]
        if was_kind != kind:
            yield Difference(what=f"{key}: kind", recorded=was_kind, recomputed=kind)
        # The body of what was settled long ago is dropped.
        elif was and was not in (now, dump_as_before(effects[key])):
            yield from _fields(f"{key}: ", was, now)


def _fields(where: str, recorded: str, recomputed: str) -> Iterator[Difference]:
    """Each field by its path, where the two texts are JSON; what an older version did not know is not there."""
    try:
        was, now = _flat(json.loads(recorded)), _flat(json.loads(recomputed))
    except ValueError:
        yield Difference(what=where.rstrip(": "), recorded="(no JSON)", recomputed=f"{len(recomputed)} characters")
        return
    absent = "(absent)"
    paths = [path for path in sorted(was.keys() | now.keys()) if was.get(path, absent) != now.get(path, absent)]
    if not paths:
        yield Difference(what=where.rstrip(": "), recorded="another text", recomputed="of the same values")
    for path in paths:
        told = ("(left out)", "(another one)") if _SECRET in path else (was.get(path, absent), now.get(path, absent))
        yield Difference(what=where + path, recorded=told[0], recomputed=told[1])


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        parts = [(f"{path}.{name}" if path else str(name), part) for name, part in value.items()]
    elif isinstance(value, list) and value:
        parts = [(f"{path}[{n}]", part) for n, part in enumerate(value)]
    else:
        return {path: json.dumps(value, ensure_ascii=False)}
    return {name: text for inner, part in parts for name, text in _flat(part, inner).items()}
