"""Where in the file a mistake stands."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pydantic_core import ErrorDetails
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from retrainer.adapters.policy_files.strict_yaml import mark

_RULE: Final = ("triggers", "when")
_PATH: Final = re.compile(r"[a-z_]+(?:\.[a-z_]+)*(?= )")


def path(error: ErrorDetails) -> list[int | str]:
    """The fields that lead to a mistake, without pydantic's own words for a key or for an alternative of a union."""
    where = [part for part in error["loc"] if part != "[key]"]
    if tuple(where[:2]) != _RULE:
        return where
    return [*_RULE, *_untagged(iter(where[2:]))]


def _untagged(rest: Iterator[int | str]) -> Iterator[int | str]:
    """Below `when` each rule is told as its kind, the field, and in lists the number, before the rule inside it."""
    for _kind in rest:
        for part in rest:
            yield part
            if isinstance(part, int) or part == "of":
                break


def place(root: MappingNode, where: Iterable[int | str], *, at_key: bool) -> tuple[int, int]:
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


def named(root: MappingNode, where: Sequence[int | str], said: str) -> list[int | str]:
    """The place that a sentence about a whole section begins with, where the file has it: `guards.budget needs ...`."""
    found = _PATH.match(said)
    further = found[0].split(".") if found else []
    node = _at(root, where)
    reached: list[int | str] = []
    for part in further:
        if not isinstance(node, MappingNode) or part not in (k.value for k, _ in node.value):
            break
        node = next(v for k, v in node.value if k.value == part)
        reached.append(part)
    return [*where, *reached]


def of_text(root: MappingNode, where: Sequence[int | str], text: str) -> tuple[int, int] | None:
    """Where below that place the text stands as a value."""
    return next((mark(node) for node in _scalars(_at(root, where)) if node.value == text), None)


def _scalars(node: Any) -> Iterator[ScalarNode]:
    if isinstance(node, ScalarNode):
        yield node
    elif isinstance(node, SequenceNode):
        for item in node.value:
            yield from _scalars(item)
    elif isinstance(node, MappingNode):
        for _, value in node.value:
            yield from _scalars(value)


def _at(root: MappingNode, where: Iterable[int | str]) -> Node | None:
    node: Node | None = root
    for part in where:
        if isinstance(node, MappingNode):
            node = next((v for k, v in node.value if k.value == str(part)), None)
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            return None
    return node
