"""Which fields a policy has, and where: by way of the schema, so that no list of them is kept twice."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from retrainer.core.policy import Policy

RULE_FIELDS: Final = ("all", "any", "of", "within", "at_least", "windows")
"""Those of the rules below `when`, which go into one another without end."""


def fields(where: Iterable[int | str]) -> list[str]:
    """The names of the fields of the section at that place; none where it has no names of its own."""
    at: dict[str, Any] = _schema()
    for part in where:
        if part == "when":
            return list(RULE_FIELDS)
        at = at.get("items", {}) if isinstance(part, int) else at.get("properties", {}).get(part, _values_of(at))
        at = _resolved(at)
    return list(at.get("properties", {}))


def homes(name: str) -> list[str]:
    """The sections that have a field of that name, as in guards.budget; NAME stands for any name."""
    return list(dict.fromkeys(where for known, where in _all_fields() if known == name))


@cache
def _all_fields() -> tuple[tuple[str, str], ...]:
    return tuple(_walk(_schema(), ""))


def _walk(at: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for name, value in at.get("properties", {}).items():
        inside = f"{where}.{name}".removeprefix(".")
        if where:
            yield name, where
        if name != "when":
            yield from _inside(value, inside)


def _inside(value: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
    at = _resolved(value)
    yield from _walk(at, where)
    if at.get("type") == "array":
        yield from _inside(at.get("items", {}), where)
    elif values := _values_of(at):
        yield from _inside(values, f"{where}.NAME")


def _resolved(at: dict[str, Any]) -> dict[str, Any]:
    for option in at.get("anyOf", ()):
        at = option if "$ref" in option else at
    if "$ref" in at:
        found: dict[str, Any] = _schema()["$defs"][at["$ref"].rpartition("/")[2]]
        return found
    return at


@cache
def _schema() -> dict[str, Any]:
    return Policy.model_json_schema()


def _values_of(at: Mapping[str, Any]) -> dict[str, Any]:
    values = at.get("additionalProperties")
    return values if isinstance(values, dict) else {}
