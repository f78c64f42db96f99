"""What pydantic found wrong with a policy, told to the person who wrote it: the place, the field, what to write."""

import difflib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from retrainer.adapters.policy_files.strict_yaml import mark, shown
from retrainer.core.policy import Policy

TOLD_MAX: Final = 50
"""Mistakes told at once; whoever has more has put the wrong file there."""
SENTENCE_MAX: Final = 400

_WRITE: Final = {
    "model": "lower-case letters, digits and -, at most 24, as in model: recommender",
    "bucket": "the bucket that batches arrive in, or leave it out where the daemon's settings name one",
    "prefix": "a key prefix that ends in /, as in data/recommender/",
    "timestamp": "the name of the column that holds the time of each row",
    "name": "lower-case letters, digits and -, as in name: nightly",
    "metric": "the metric's name, as in ndcg_at_10",
    "test": "the test by its name, as in test: wasserstein",
    "kind": "kind: numerical or kind: categorical",
    "threshold": "the distance (or p-value) from which the column has drifted, as in 0.1",
    "cron": "five fields in quotes, as in cron: '0 2 * * *'",
    "share": "the share of drifted columns, as in share: 0.5",
    "state_machine": "arn:aws:states:REGION:ACCOUNT:stateMachine:NAME, or leave it out where the settings name one",
    "candidates": "at least one, as in candidates: [{name: sasrec}]",
    "instance_type": "an instance type, as in ml.g4dn.xlarge",
    "processing_instance_type": "an instance type, as in ml.m5.large",
    "serving_instance_type": "an instance type, as in ml.m5.large",
    "data": "the section data: with at least prefix: and timestamp:",
    "action": "the section action: with at least candidates:",
    "gate": "the section gate: with at least metric:",
}
"""What to write in a field; where it is not told here, pydantic's own words say what is expected."""


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
    """Without "too short" of a list whose items are themselves wrong: pydantic counts only the good ones."""
    places = [e["loc"] for e in errors]
    return [
        e for e in errors if e["type"] != "too_short" or not any(p[: len(e["loc"])] == e["loc"] != p for p in places)
    ]


def _told(root: MappingNode, error: ErrorDetails) -> tuple[int, int, str]:
    """Line, column and sentence of one of pydantic's errors."""
    where = [part for part in error["loc"] if part != "[key]"]
    line, column = _place(root, where, at_key=error["type"] == "extra_forbidden")
    name = ".".join(str(part) for part in where)
    said = f"{name}: {_sentence(where, error)}" if name else _sentence(where, error)
    return line, column, said if len(said) <= SENTENCE_MAX else said[: SENTENCE_MAX - 3] + "..."


def _place(root: MappingNode, where: Iterable[int | str], *, at_key: bool) -> tuple[int, int]:
    """Line and column of a value if it stands on its key's line, else of the key; of the parent where there is none."""
    node: Node = root
    line, column = 1, 1
    for part in where:
        if isinstance(node, MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, column = mark(pair[0])
            node = pair[1]
            if isinstance(node, ScalarNode) and mark(node)[0] == line and not at_key:
                column = mark(node)[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line, column = mark(node)
        else:
            break
    return line, column


def _sentence(where: list[int | str], error: ErrorDetails) -> str:
    """What is wrong, and what to write instead."""
    name = next((str(part) for part in reversed(where) if isinstance(part, str)), "")
    write = _WRITE.get(name)
    match error["type"]:
        case "missing":
            return f"is missing; write {write or f'{name}: and its value'}"
        case "extra_forbidden":
            return _unknown(where)
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "literal_error":
            return f"{shown(error['input'])} is not known; write {error['ctx']['expected'].replace(chr(39), '')}"
        case "bool_parsing" | "bool_type":
            return f"{shown(error['input'])} is neither yes nor no; write true or false"
        case "string_type":
            return f"{shown(error['input'])} is not a text; write it in quotes"
        case "model_type" | "model_attributes_type" | "dict_type":
            fields = ", ".join(_fields(where))
            return f"{shown(error['input'])} is not a section; write {fields or 'fields'} below it, indented"
        case "tuple_type":
            return f"{shown(error['input'])} is not a list; write [one, two], or each on a line of its own after -"
        case "string_pattern_mismatch":
            pattern = error["ctx"]["pattern"]
            return f"{shown(error['input'])} cannot be used; write {write or f'what matches {pattern}'}"
        case _:
            expected = re.sub(r"^\w+ should |, unable to .*$| after validation, not \d+$", "", error["msg"])
            return f"{shown(error['input'])} should {expected}; write {write or 'such a value'}"


def _unknown(where: list[int | str]) -> str:
    fields = _fields(where[:-1])
    close = difflib.get_close_matches(str(where[-1]), fields, n=1)
    if close:
        return f"there is no such field; write {close[0]}"
    return f"there is no such field; write one of {', '.join(fields)}"


def _fields(where: Iterable[int | str]) -> list[str]:
    """The names of the fields of the section at that place, by way of the schema."""
    made = _schema()
    at: dict[str, Any] = made
    for part in where:
        at = at.get("items", {}) if isinstance(part, int) else at.get("properties", {}).get(part, _values_of(at))
        for option in at.get("anyOf", ()):
            at = option if "$ref" in option else at
        if "$ref" in at:
            at = made["$defs"][at["$ref"].rpartition("/")[2]]
    return list(at.get("properties", {}))


@cache
def _schema() -> dict[str, Any]:
    return Policy.model_json_schema()


def _values_of(at: dict[str, Any]) -> dict[str, Any]:
    values = at.get("additionalProperties")
    return values if isinstance(values, dict) else {}
