"""What pydantic found wrong with a policy, told to the person who wrote it: the place, the field, what to write."""

import re
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.nodes import MappingNode

from retrainer.adapters.policy_files import meant, places
from retrainer.adapters.policy_files.fields import fields
from retrainer.adapters.policy_files.shapes import no_list, no_rule, no_section, no_text
from retrainer.adapters.policy_files.strict_yaml import shown
from retrainer.adapters.policy_files.unknown import unknown
from retrainer.adapters.policy_files.write import write_for

TOLD_MAX: Final = 50
"""Mistakes told at once; whoever has more has put the wrong file there."""
SENTENCE_MAX: Final = 400

_PRIMITIVES: Final = frozenset({"str", "float", "int", "bool"})
_UNDECLARED: Final = re.compile(r"when names (.+), which is not declared; write one of (.*)", re.DOTALL)
_CONSTRAINTS: Final = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "too_short", "too_long"}
)


def told(path: Path, root: MappingNode, error: ValidationError) -> str:
    """One line a mistake, in the order of the file."""
    errors = _causes(error.errors(include_url=False))
    lines = [
        f"{path}:{line}:{column}: {said}" for line, column, said in sorted(_told(root, e) for e in errors[:TOLD_MAX])
    ]
    if len(errors) > TOLD_MAX:
        lines.append(f"{path}:1:1: and {len(errors) - TOLD_MAX} more mistakes; mend these first")
    return "\n".join(lines)


def _causes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without what follows from another mistake, or says it again.

    "Too short" of a list whose items are themselves wrong: pydantic counts only the good ones. A value that may be a
    text or a number is told once, not for each.
    """
    places_ = [e["loc"] for e in errors]
    found: dict[tuple[int | str, ...], ErrorDetails] = {}
    for e in errors:
        loc = e["loc"]
        if e["type"] == "too_short" and any(p[: len(loc)] == loc != p for p in places_):
            continue
        if loc and loc[-1] in _PRIMITIVES and loc[:2] == ("backtest", "parameters"):
            found[loc[:-1]] = {**e, "loc": loc[:-1], "type": "no_plain_value"}
            continue
        found[(*loc, e["type"], e["msg"])] = e
    return list(found.values())


def _told(root: MappingNode, error: ErrorDetails) -> tuple[int, int, str]:
    """Line, column and sentence of one of pydantic's errors."""
    where = places.path(error)
    said = _sentence(where, error)
    if error["type"] == "value_error":
        if undeclared := _UNDECLARED.fullmatch(said):
            return _undeclared(root, where, undeclared[1], undeclared[2].split(", "))
        line, column = places.place(root, places.named(root, where, said), at_key=False)
    else:
        line, column = places.place(root, where, at_key=error["type"] == "extra_forbidden")
    name = ".".join(str(part) for part in where)
    said = f"{name}: {said}" if name else said
    return line, column, said if len(said) <= SENTENCE_MAX else said[: SENTENCE_MAX - 3] + "..."


def _sentence(where: list[int | str], error: ErrorDetails) -> str:  # noqa: C901 - one arm a kind of error
    """What is wrong, and what to write instead."""
    given = error["input"]
    match error["type"]:
        case "missing":
            return f"is missing; write {write_for(where) or f'{where[-1]}: and its value'}"
        case "extra_forbidden":
            return unknown(where)
        case "value_error":
            return _valued(where, error["msg"].removeprefix("Value error, "), given)
        case "literal_error":
            known = [word.strip("' ") for word in re.split(r", | or ", error["ctx"]["expected"])]
            every = error["ctx"]["expected"].replace("'", "")
            close = meant.one_of(given, known)
            return f"{shown(given)} is not known; write {f'{close} (of {every})' if close else every}"
        case "bool_parsing" | "bool_type":
            return f"{shown(given)} is neither yes nor no; write true or false"
        case "string_type" if "when" in where:
            return no_rule(given)
        case "string_type":
            return no_text(where, given)
        case "no_plain_value":
            return f"{shown(given)} is not one value; write a text or a number"
        case "model_type" | "model_attributes_type" | "dict_type":
            return no_section(where, given, fields(where))
        case "tuple_type":
            return no_list(where, given)
        case "string_pattern_mismatch":
            pattern = error["ctx"]["pattern"]
            close = meant.matching(given, pattern)
            write = write_for(where) or f"what matches {pattern}"
            return f"{shown(given)} cannot be used; write {f'{close} ({write})' if close else write}"
        case "int_from_float" | "int_parsing" | "int_type" | "float_parsing" | "float_type":
            return _numbered(where, error)
        case _:
            return _limited(where, error)


def _numbered(where: list[int | str], error: ErrorDetails) -> str:
    given = error["input"]
    if isinstance(given, float) and where[-1] == "canary_percent":
        return f"{given:g} is a share, and this is a percentage; write {given * 100:g}"
    what = "a whole number" if error["type"].startswith("int") else "a number"
    close = meant.number(given, is_percent=where[-1] == "canary_percent") if isinstance(given, str) else ""
    return f"{shown(given)} is not {what}; write {close or write_for(where) or what}"


def _limited(where: list[int | str], error: ErrorDetails) -> str:
    """A number past its limits, or anything pydantic says that nothing is said of here."""
    given = error["input"]
    limits: dict[str, Any] = error.get("ctx") or {}
    if isinstance(given, int | float) and 1 < given <= 100 and limits.get("le", limits.get("lt")) in (1, 0.5):
        return f"{given:g} is not a share of one; write {given / 100:g} for {given:g} %"
    expected = re.sub(r"^\w+ should |, unable to .*$| after validation, not \d+$", "", error["msg"])
    write = write_for(where) or ("that" if error["type"] in _CONSTRAINTS else "such a value")
    return f"{shown(given)} should {expected}; write {write}"


def _valued(where: list[int | str], said: str, given: object) -> str:
    """What a validator says, with what was probably meant."""
    if "is neither a day nor a moment" in said and re.fullmatch(r"\d{4}-\d\d-\d\d", str(given)):
        return f"{shown(given)} is in no calendar; write a day that there is"
    for sign, guess in (
        ("is not a duration", meant.duration),
        ("is not a time of day", meant.clock),
        ("is neither a day nor a moment", meant.day),
        ("is not a cron expression", meant.cron),
        ("is not a time zone", meant.time_zone),
    ):
        if sign in said and (close := guess(given)):
            begun = said.partition("; write")[0].replace("None is", "nothing is")
            return f"{begun}; write {close}"
    return said


def _undeclared(root: MappingNode, where: list[int | str], name: str, declared: list[str]) -> tuple[int, int, str]:
    """A rule names what the policy does not declare."""
    there = places.of_text(root, [*where, "when"], name) or places.place(root, [*where, "when"], at_key=False)
    bare = next((d for d in declared if d.partition(":")[2] == name), "")
    close = bare or meant.one_of(name, declared)
    if name == "manual":
        said = "a request by hand always starts a retraining, whatever when says; leave manual out"
    elif found := re.fullmatch(r"(\d+) of (?:the last )?(\d+)(?: windows of)? (\w+)", name):
        said = f"{name!r} is not a rule; write {{of: {found[3]}, at_least: {found[1]}, windows: {found[2]}}}"
    elif parts := _spoken(name):
        said = f"{name!r} is not a rule; write {{{parts[0]}: [{', '.join(parts[1:])}]}}"
    elif close:
        said = f"{name} is not declared; write {close}"
    else:
        said = f"{name} is not declared; declare it beside when, or write one of {', '.join(declared)}"
    return *there, f"triggers.when: {said}"


def _spoken(text: str) -> list[str]:
    """`a and b` as all and its parts, `a or b` as any and its parts."""
    for sign, kind in ((r"\s+(?:and|AND|&&?)\s+", "all"), (r"\s+(?:or|OR|\|\|?)\s+", "any")):
        parts = re.split(sign, text)
        if len(parts) > 1:
            return [kind, *parts]
    return []
