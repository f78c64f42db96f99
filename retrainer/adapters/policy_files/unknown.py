"""A field that there is not: where it belongs, what it is called now, or which there are."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Final

from retrainer.adapters.policy_files.fields import fields, homes

HOMES_MAX: Final = 3

_CALLED: Final = {
    "windows.reference_batches": "reference: {batches: N}, which is how it is written now",
    "windows.current_batches": "current: {batches: N}, which is how it is written now",
    "quiet_hours.start": "from",
    "quiet_hours.end": "to",
    "freezes.start": "from",
    "freezes.end": "to",
    "freezes.reason": "why",
    "columns.type": "kind",
    "columns.metric": "test",
    "performance.threshold": "limit: for a value of the metric, or drop: for a share of the champion's own",
    "performance.metric": "the metric under data.predictions",
    "concept.threshold": "margin: the rise that is put up with, as a share",
    "drift.threshold": "share: for the share of columns, or threshold: at a column of data.columns",
    "schedules.timezone": "time_zone",
    ".name": "model",
    ".id": "model",
    "action.retries": "attempts",
    "costs.price": "execution: what one execution costs",
    "current.days": "time: 7d",
    "current.size": "rows",
    "fleet.max": "concurrency",
    "freezes.day": "from: and to:, twice the same day",
    "windows.size": "current: {rows: N}",
    "gate.threshold": "min_gain: what it must be better by",
    "gate.alpha": "confidence: one less it, as in 0.95",
    "gate.significance": "confidence: the share of the resamplings, as in 0.95",
    "guards.max_concurrency": "fleet: {concurrency: N}",
    "rollout.canary": "canary_percent: 10",
}
"""What is written in the place of names that people try."""
_LEFT_OUT: Final = {
    "triggers.manual": "a request by hand is always possible",
    ".version": "the language has one version",
    ".description": "write a comment, after #",
    "drift.columns": "the columns with a test under data.columns are watched",
    "drift.enabled": "a trigger that is declared is on",
    "performance.enabled": "a trigger that is declared is on",
    "guards.pause": "retrainer pause MODEL does it",
    "guards.paused": "retrainer pause MODEL does it",
    "candidates.image": "the image belongs to the state machine",
}
"""What needs no field."""
_FORMS: Final = (("all", "within"), ("any",), ("of", "at_least", "windows"))
_PARTS: Final = {"within": "all", "at_least": "of", "windows": "of"}


def unknown(where: Sequence[int | str]) -> str:
    """What is wrong with the field at the end of the path, and what to write instead."""
    section = [str(part) for part in where[:-1] if isinstance(part, str)]
    name = str(where[-1])
    if name == "<<":
        return "there is no such field, and no merging; write the fields out"
    if "when" in section:
        return _in_rule(section, name)
    if why := _called(_LEFT_OUT, section, name):
        return f"there is no such field; leave it out: {why}"
    if called := _called(_CALLED, section, name):
        return f"there is no such field; write {called}"
    known = fields(where[:-1])
    if section and name in fields(()):
        return f"there is no such field here; write {name}: at the beginning of a line, beside model:"
    elsewhere = [home for home in homes(name) if home != ".".join(section)]
    if elsewhere and len(elsewhere) <= HOMES_MAX:
        return f"there is no such field here; write it under {' or '.join(elsewhere)}"
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"there is no such field; write {close[0]}"
    return f"there is no such field; write one of {', '.join(known)}"


def _called(names: Mapping[str, str], section: Sequence[str], name: str) -> str:
    """By the name of the section, or, where its own name is the user's, of the one around it."""
    return next((names[key] for part in section[:-3:-1] or [""] if (key := f"{part}.{name}") in names), "")


def _in_rule(section: Sequence[str], name: str) -> str:
    known = {key for form in _FORMS for key in form}
    if name in _PARTS:
        return f"{name} belongs to {_PARTS[name]}, and this rule is another; leave it out"
    if name in known:
        return "a rule is one of all, any and of, and this one is two; put one into the other"
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"there is no such field in a rule; write {close[0] if close else 'all, any or of'}"
