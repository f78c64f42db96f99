"""YAML that means one thing: read within bounds, and refused where it is clever. Raises ConfigError, with the place."""

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from retrainer.ports import ConfigError

SIZE_MAX_BYTES: Final = 256 * 1024
DEPTH_MAX: Final = 16
"""A policy is five levels deep; each level of brackets makes the YAML scanner slower."""
NODES_MAX: Final = 10_000
"""A thousand watched columns; the pure parser takes 0.1 ms for each value."""
TEXT_MAX: Final = 4096
"""SageMaker takes 2,500 characters as a hyperparameter, which is the longest text a policy has."""
INTEGER_BITS: Final = 63
_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset({"int", "float", "bool", "null"})
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, halves of surrogate pairs, and what makes text look another than it is (CVE-2021-42574)."""


def compose(path: Path) -> MappingNode:
    """The nodes of the file's one document, each with its line and column."""
    text = _text(path)
    try:
        _refuse_cleverness(path, text)
        root = _yaml().compose(text)
    except MarkedYAMLError as error:
        problem = str(error.problem or error.context)
        is_open = "unexpected end of stream" in problem and error.context_mark
        mark = error.context_mark if is_open else error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}:1:1"
        raise ConfigError(f"{where}: this is not YAML: {problem}; {_repair(text, problem)}") from error
    except (YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}:1:1: this is not YAML: {type(error).__name__}; write one mapping") from error
    if not isinstance(root, MappingNode):
        raise _wrong(path, root, "a policy is a mapping; write fields, as in model: recommender")
    return root


def plain(path: Path, node: Node) -> Any:
    """The plain Python value of a node: dict, list, str, int, float, bool or None."""
    match node:
        case MappingNode():
            values: dict[str, Any] = {}
            for key, value in node.value:
                if not isinstance(key, ScalarNode):
                    raise _wrong(path, key, "a key is not a text; write a field's name")
                if key.value in values:
                    raise _wrong(path, key, f"{key.value:.60}: stands here twice; remove one of the two")
                values[key.value] = plain(path, value)
            return values
        case SequenceNode():
            return [plain(path, item) for item in node.value]
        case _ if str(node.tag).removeprefix(_TAG) in _PLAIN:
            return _constant(path, node)
        case _:
            return node.value


def mark(of: Any) -> tuple[int, int]:
    """Line and column, from 1."""
    found = getattr(of, "start_mark", None)
    return (found.line + 1, found.column + 1) if found else (1, 1)


def shown(value: object) -> str:
    """A value fit to be shown in a sentence."""
    if value is None:
        return "nothing"
    text = json.dumps(value) if isinstance(value, dict | list | bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(path: Path) -> str:
    try:
        with open(path, "rb", opener=_without_waiting) as file:  # Path.open has no opener
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path}: it is not a regular file; put a file there")
            raw = file.read(SIZE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from error
    if len(raw) > SIZE_MAX_BYTES:
        raise ConfigError(f"{path}: it is larger than {SIZE_MAX_BYTES // 1024} KiB; a policy is a page, not data")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _without_waiting(path: str, flags: int) -> int:
    """Opening a FIFO would wait until somebody writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _repair(text: str, problem: str) -> str:
    if "\\t" in problem or ("\t" in text and "block" in problem):
        return "write spaces, not tabs"
    for sign, instead in _REPAIRS:
        if sign in problem:
            return instead
    return "check the indentation, the colons and the quotes before it"


_REPAIRS: Final = (
    ("'%' that cannot start", "write a share as 0.15, and a text that begins with % in quotes"),
    ("cannot start any token", "a text that begins with this character goes in quotes"),
    ("mapping values are not allowed", "a text with a colon in it goes in quotes; else check the indentation"),
    ("expected alphabetic or numeric character", "a text that begins with * or & goes in quotes, as in '* * * * *'"),
    ("expected <block end>", "the line is indented like none above it; begin it where its neighbours begin"),
    ("unexpected end of stream", "a quote that opens here is not closed"),
    ("another document", "write one policy a file, without ---"),
)


def _refuse_cleverness(path: Path, text: str) -> None:
    """Anchors can make a small file enormous, tags make types, depth makes time; a policy needs none of them."""
    depth = nodes = 0
    for event in _yaml().parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        nodes += isinstance(event, NodeEvent)
        if depth > DEPTH_MAX:
            raise _wrong(path, event, f"more than {DEPTH_MAX} levels deep; write one policy, flat")
        if nodes > NODES_MAX:
            raise _wrong(path, event, f"more than {NODES_MAX} values; write one policy, short")
        if clever := _clever(event):
            raise _wrong(path, event, clever)


def _clever(event: Event) -> str | None:
    """What is wrong with one event of the parser, and what to write instead."""
    if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
        return "a directive (%); a policy is YAML 1.2, and nothing else has to be said of it"
    if isinstance(event, NodeEvent) and event.anchor:
        if isinstance(event, AliasEvent):
            quote = ", in quotes, as in '*/15 * * * *'" if "/" in event.anchor else " instead"
            return f"the alias {shown(event.anchor)}; write the value out{quote}"
        return f"the anchor {shown(event.anchor)}; write the value out instead"
    if tag := getattr(event, "tag", None):
        return f"the tag {tag!s:.60}; write the plain value instead"
    if isinstance(event, ScalarEvent) and len(event.value) > TEXT_MAX:
        return f"a text of {len(event.value)} characters; at most {TEXT_MAX} are taken"
    if isinstance(event, ScalarEvent) and (hidden := _HIDDEN.search(event.value)):
        return f"the character {hidden[0]!a}, which cannot be seen; write texts of one line, in plain characters"
    return None


def _constant(path: Path, node: Node) -> Any:
    value = _yaml().constructor.construct_object(node)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(path, node, f"{node.value:.60} is not a number to compare with; write one")
    if isinstance(value, int) and value.bit_length() > INTEGER_BITS:
        raise _wrong(path, node, f"{node.value:.40} is too large a number; write a smaller one")
    return value


def _wrong(path: Path, at: object, said: str) -> ConfigError:
    line, column = mark(at)
    return ConfigError(f"{path}:{line}:{column}: {said}")
