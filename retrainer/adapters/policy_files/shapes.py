"""A value of another shape than is wanted: a text for a section, a section for a list, a list for a rule."""

import re
from collections.abc import Sequence
from typing import Final

from retrainer.adapters.policy_files import meant
from retrainer.adapters.policy_files.strict_yaml import shown
from retrainer.adapters.policy_files.write import write_for
from retrainer.core.policy.triggers import LEVELS

_MAIN: Final = {
    "drift": "share",
    "performance": "drop",
    "regret": "price",
    "concept": "margin",
    "volume": "rows",
    "scale_out": "bytes_min",
    "fleet": "concurrency",
    "gate": "metric",
    "reference": "of",
    "current": "batches",
    "costs": "execution",
    "rollout": "canary_percent",
}
"""The field that a section is mostly about, so that `volume: 5000` can be told how it is written."""
_EXAMPLES: Final = {
    "drift": "drift: {share: 0.5}, or drift: {} for its defaults",
    "performance": "performance: {drop: 0.15}",
    "regret": "regret: {price: 500}",
    "concept": "concept: {margin: 0.1}, or concept: {} for its defaults",
    "volume": "volume: {rows: 10000}",
    "fleet": "fleet: {concurrency: 2}",
    "budget": "budget: {executions: 4, period: 1w}",
    "backoff": "backoff: {after: 2, first: 1d}",
    "predictions": "predictions: with prefix:, key:, prediction:, label: and metric: below it",
    "notify": "notify: {on: [failed]}",
    "backtest": "backtest: {family: lightgbm}",
    "timeouts": "timeouts: {training: 1h, wait: 2h}",
    "triggers": "each trigger below it with its settings, as in drift: {share: 0.5}",
}
_ITEMS: Final = {
    "schedules": "schedules: [{name: nightly, cron: 0 2 * * *}]",
    "quiet_hours": "quiet_hours: [{from: '22:00', to: '06:00'}]",
    "freezes": "freezes: [{from: 2026-12-20, to: 2027-01-02, why: Christmas}]",
    "candidates": "candidates: [{name: boosted}]",
}
"""Lists of sections."""
_NULLABLE: Final = (
    "backoff",
    "budget",
    "fleet",
    "costs",
    "drift",
    "performance",
    "regret",
    "concept",
    "volume",
    "predictions",
    "scale_out",
)
_CALLED: Final = {"and": "all", "or": "any"}
RULE: Final = "a trigger's name, {all: [...]}, {any: [...]} or {of: drift, at_least: 2, windows: 3}"


def no_section(where: Sequence[int | str], given: object, known: Sequence[str]) -> str:
    """Something else stands where fields should."""
    name = str(where[-1]) if where else "policy"
    if isinstance(where[-1] if where else None, int) and where[-2] in _ITEMS:
        return _item(str(where[-2]), given)
    wanted = f"write {', '.join(known)} below it, indented" if known else "write fields below it, indented"
    if given is None:
        return f"nothing is not a section; {wanted}, or leave {name} out"
    if given is False and name in _NULLABLE:
        return f"false is not a section; write {name}: null to do without it"
    if isinstance(given, str) and (found := re.match(r"([a-z_]+)\s*[:=]\s*(\S.*)", given)):
        return f"{shown(given)} is not a field; write {found[1]}: {found[2]}, with a colon and a space"
    if name in ("columns", "hyperparameters", "parameters") or "columns" in where:
        return _by_name(name, given, where)
    if isinstance(given, list):
        return _listed(name, given, known)
    main = _MAIN.get(name)
    if main and isinstance(given, int | float | str) and not isinstance(given, bool):
        return f"{shown(given)} is not a section; write {name}: {{{main}: {given}}}"
    if name in _EXAMPLES:
        return f"{shown(given)} is not a section; write {_EXAMPLES[name]}"
    return f"{shown(given)} is not a section; {wanted}"


def _listed(name: str, given: list[object], known: Sequence[str]) -> str:
    """A list is no section."""
    if all(isinstance(part, str) for part in given):
        if name == "notify":
            return f"{shown(given)} is a list; write notify: {{on: [{', '.join(map(str, given))}]}}"
        return f"{shown(given)} says no more than names; write each below {name}, with its value after a colon"
    return f"{shown(given)} is a list; write its fields without the - before them: {', '.join(known)}"


def _item(of: str, given: object) -> str:
    """One of a list of sections is no section."""
    text = str(given)
    if of == "candidates":
        return f"{shown(given)} is not a section; write {{name: {text}}}"
    if of == "schedules":
        name, cron = ("nightly", text) if len(text.split()) == 5 else (text, "0 2 * * *")
        return f"{shown(given)} is not a section; write {{name: {name}, cron: {cron}}}"
    if of == "freezes":
        return f"{shown(given)} is not a section; write {{from: {text}, to: {text}, why: Christmas}}"
    return f"{shown(given)} is not a section; write it as in {_ITEMS[of]}"


def no_text(where: Sequence[int | str], given: object) -> str:
    """Something else stands where a text should."""
    if given is None:
        return f"has no value; write {write_for(where) or 'one'}"
    if isinstance(given, dict) and len(given) == 1:
        return f"{shown(given)} is not a text; write {next(iter(given.values()))} alone"
    return f"{shown(given)} is not a text; write it in quotes"


def _by_name(name: str, given: object, where: Sequence[int | str]) -> str:
    if name not in ("columns", "hyperparameters", "parameters"):
        test = given if isinstance(given, str) and given.isidentifier() else "psi"
        return f"{shown(given)} is not a section; write {name}: {{kind: numerical, test: {test}}}"
    example = "age: {kind: numerical, test: psi}" if name == "columns" else "depth: 3"
    return f"{shown(given)} has no names; write each name with its value below it, as in {example}"


def no_list(where: Sequence[int | str], given: object) -> str:
    """Something else stands where a list should."""
    name = str(where[-1])
    if name in _ITEMS:
        if isinstance(given, dict):
            return f"{shown(given)} is one, where a list of them is wanted; put - before it, as in {_ITEMS[name]}"
        return f"{shown(given)} is not a list; write {_ITEMS[name]}"
    if name == "days" and (listed := meant.days(given)):
        return f"{shown(given)} is not a list; write days: {listed}"
    if isinstance(given, str):
        parts = ", ".join(part for part in re.split(r"[,\s]+", given) if part)
        return f"{shown(given)} is not a list; write {name}: [{parts}]"
    return f"{shown(given)} is not a list; write [one, two], or each on a line of its own after -"


def no_rule(given: object) -> str:
    """Something else stands where a rule should."""
    if isinstance(given, list):
        parts = ", ".join(str(part) for part in given)
        return f"a list does not say whether one is enough; write {{any: [{parts}]}} or {{all: [{parts}]}}"
    if isinstance(given, dict) and len(given) == 1:
        ((key, value),) = given.items()
        if key in _CALLED:
            parts = ", ".join(str(part) for part in value) if isinstance(value, list) else "..."
            return f"{key} is written {_CALLED[key]}; write {{{_CALLED[key]}: [{parts}]}}"
        if key == "not":
            return "there is no not; leave it out: a rule says what asks for a retraining, guards what holds it back"
        if key in LEVELS:
            return f"a rule says {key} alone; write {key}, and its settings under triggers, beside when"
        if key in ("schedule", "alarm"):
            return f"{shown(given)} is no name; write {key}:{value}, without a space"
        if close := meant.one_of(key, ("all", "any", "of")):
            return f"{key} is no way to put rules together; write {close}"
    return f"{shown(given)} is no rule; write {RULE}"
