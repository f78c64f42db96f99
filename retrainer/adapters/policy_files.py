"""Policies come from YAML files, read strictly; every mistake is told as file:line:column, field, and what to write.

YAML 1.2 (`on` and `NO` are texts), one document, no anchors, no tags, no key twice: a policy means what it seems to.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump
from retrainer.ports import ConfigError

SIZE_MAX_BYTES: Final = 256 * 1024
DEPTH_MAX: Final = 16
"""A policy is five levels deep; each level of brackets makes the YAML scanner slower."""
_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset({"int", "float", "bool", "null"})

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the daemon's settings fill in where a policy leaves it out."""

    bucket: str | None = None
    state_machine: str | None = None


def load(path: Path, defaults: Defaults) -> Policy:
    """The policy in one file. Raises ConfigError with one line a mistake, in the order of the file."""
    root = _composed(path)
    try:
        value = _value(path, root)
        return Policy.model_validate(_filled(value, defaults))
    except ValidationError as error:
        lines = sorted(_told(root, e) for e in _causes(error.errors(include_url=False)))
        raise ConfigError("\n".join(f"{path}:{line}:{column}: {said}" for line, column, said in lines)) from error
    except (ArithmeticError, OSError, TypeError, ValueError) as error:
        # A validator stumbled over a value nobody thought of: still the file's mistake, not the daemon's end.
        raise ConfigError(f"{path}:1:1: a value cannot be read: {error}; write it more simply") from error


class PolicyFiles:
    """The policies of a directory, one *.yaml file a model. A file that breaks leaves its last good policy in force."""

    def __init__(self, directory: Path, defaults: Defaults) -> None:
        """Loads at once; what is wrong with files is told by `errors`. Raises ConfigError without the directory."""
        self._directory = directory
        self._defaults = defaults
        self._read: dict[Path, _Read] = {}
        self._current: dict[str, tuple[Policy, str]] = {}
        self._errors: dict[Path, str] = {}
        self.reload()

    def current(self) -> Mapping[str, tuple[Policy, str]]:
        """The policies in force by model, each with its hash."""
        return dict(self._current)

    def errors(self) -> Mapping[Path, str]:
        """What is wrong now, by file."""
        return dict(self._errors)

    def reload(self) -> frozenset[str]:
        """Read what has changed; the models whose policy is new, another, or gone. Raises ConfigError as at first."""
        if not self._directory.is_dir():
            raise ConfigError(f"{self._directory} is not a directory; name the one that holds the policies")
        paths = sorted(p for p in self._directory.glob("*.yaml") if not p.name.startswith("."))
        self._read = {path: self._again(path) for path in paths}
        self._errors = {path: read.error for path, read in self._read.items() if read.error}
        before, self._current = self._current, self._chosen(self._current)
        names = before.keys() | self._current.keys()
        return frozenset(n for n in names if _hash_of(before, n) != _hash_of(self._current, n))

    def _again(self, path: Path) -> "_Read":
        known = self._read.get(path)
        stamp = _stamp(path)
        if known and known.stamp == stamp:
            return known
        try:
            return _Read(stamp=stamp, policy=load(path, self._defaults))
        except ConfigError as error:
            return _Read(stamp=stamp, policy=known.policy if known else None, error=str(error))

    def _chosen(self, before: Mapping[str, tuple[Policy, str]]) -> dict[str, tuple[Policy, str]]:
        """One policy a model; of two files for one model neither is taken, and what was in force stays."""
        chosen: dict[str, tuple[Policy, str]] = {}
        of: dict[str, list[Path]] = {}
        for path, read in self._read.items():
            if read.policy:
                of.setdefault(read.policy.model, []).append(path)
        for model, paths in of.items():
            if len(paths) == 1:
                policy = self._read[paths[0]].policy
                assert policy
                chosen[model] = (policy, digest(dump(policy)))
                continue
            if model in before:
                chosen[model] = before[model]
            names = " and ".join(p.name for p in paths)
            for path in paths:
                self._errors[path] = f"{path}:1:1: model: {names} are both for {model}; give one of them another model"
        return chosen


def schema() -> str:
    """The JSON schema of a policy file, for editors: policies/schema.json."""
    made = Policy.model_json_schema()
    for owner, filled in (("Data", "bucket"), ("Action", "state_machine")):
        made["$defs"][owner]["required"].remove(filled)
    plain = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
    made["$defs"]["Candidate"]["properties"]["hyperparameters"]["additionalProperties"] = plain
    _write_durations(made)
    return json.dumps(made, indent=2) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A file as it was last read: `policy` is the last good one, `error` what is wrong since."""

    stamp: tuple[int, ...]
    policy: Policy | None
    error: str = ""


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes with the file; the inode too, as Kubernetes exchanges the files of a ConfigMap by a link."""
    try:
        seen = path.stat()
    except OSError:
        return ()
    return (seen.st_mtime_ns, seen.st_size, seen.st_ino)


def _hash_of(policies: Mapping[str, tuple[Policy, str]], model: str) -> str | None:
    return policies[model][1] if model in policies else None


# --- YAML, strictly ---


def _composed(path: Path) -> MappingNode:
    """The nodes of the file's one document, each with its line and column. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from error
    if len(raw) > SIZE_MAX_BYTES:
        raise ConfigError(f"{path}: it is larger than {SIZE_MAX_BYTES // 1024} KiB; a policy is a page, not data")
    try:
        text = raw.decode()
        _refuse_cleverness(path, text)
        root = _yaml().compose(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}:1:1"
        raise ConfigError(f"{where}: this is not YAML: {error.problem or error.context}; {_repair(text)}") from error
    except (YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}:1:1: this is not YAML: {type(error).__name__}; write one mapping") from error
    if not isinstance(root, MappingNode):
        line, column = _mark(root)
        raise ConfigError(f"{path}:{line}:{column}: a policy is a mapping; write fields, as in model: recommender")
    return root


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _repair(text: str) -> str:
    return "write spaces, not tabs" if "\t" in text else "check the indentation, the colons and the quotes before it"


def _refuse_cleverness(path: Path, text: str) -> None:
    """Anchors can make a small file enormous, tags make types, depth makes time; a policy needs none of them."""
    depth = 0
    for event in _yaml().parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEPTH_MAX:
            line, column = _mark(event)
            raise ConfigError(f"{path}:{line}:{column}: more than {DEPTH_MAX} levels deep; write one policy, flat")
        if isinstance(event, NodeEvent) and event.anchor:
            what = "alias" if isinstance(event, AliasEvent) else "anchor"
            line, column = _mark(event)
            raise ConfigError(f"{path}:{line}:{column}: the {what} {event.anchor!r}; write the value out instead")
        if getattr(event, "tag", None):
            line, column = _mark(event)
            raise ConfigError(f"{path}:{line}:{column}: the tag {event.tag}; write the plain value instead")


def _value(path: Path, node: Node) -> Any:
    """The plain Python value of a node: dict, list, str, int, float, bool or None. Raises ConfigError."""
    match node:
        case MappingNode():
            values: dict[str, Any] = {}
            for key, value in node.value:
                line, column = _mark(key)
                if not isinstance(key, ScalarNode):
                    raise ConfigError(f"{path}:{line}:{column}: a key is not a text; write a field's name")
                if key.value in values:
                    raise ConfigError(f"{path}:{line}:{column}: {key.value}: stands here twice; remove one of the two")
                values[key.value] = _value(path, value)
            return values
        case SequenceNode():
            return [_value(path, item) for item in node.value]
        case _ if str(node.tag).removeprefix(_TAG) in _PLAIN:
            plain = _yaml().constructor.construct_object(node)
            if isinstance(plain, float) and not math.isfinite(plain):
                line, column = _mark(node)
                raise ConfigError(f"{path}:{line}:{column}: {node.value} is not a number to compare with; write one")
            return plain
        case _:
            return node.value


def _mark(of: Any) -> tuple[int, int]:
    mark = getattr(of, "start_mark", None)
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _filled(value: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    for section, name, default in (
        ("data", "bucket", defaults.bucket),
        ("action", "state_machine", defaults.state_machine),
    ):
        if default is not None and isinstance(value.get(section), dict):
            value[section].setdefault(name, default)
    return value


# --- mistakes, told ---


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
    return line, column, said


def _place(root: MappingNode, where: Iterable[int | str], *, at_key: bool) -> tuple[int, int]:
    """Line and column of a value if it stands on its key's line, else of the key; of the parent where there is none."""
    node: Node = root
    line, column = 1, 1
    for part in where:
        if isinstance(node, MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, column = _mark(pair[0])
            node = pair[1]
            if isinstance(node, ScalarNode) and _mark(node)[0] == line and not at_key:
                column = _mark(node)[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line, column = _mark(node)
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
            return f"{_shown(error['input'])} is not known; write {error['ctx']['expected'].replace(chr(39), '')}"
        case "bool_parsing" | "bool_type":
            return f"{_shown(error['input'])} is neither yes nor no; write true or false"
        case "string_type":
            return f"{_shown(error['input'])} is not a text; write it in quotes"
        case "model_type" | "model_attributes_type" | "dict_type":
            fields = ", ".join(_fields(where))
            return f"{_shown(error['input'])} is not a section; write {fields or 'fields'} below it, indented"
        case "tuple_type":
            return f"{_shown(error['input'])} is not a list; write [one, two], or each on a line of its own after -"
        case "string_pattern_mismatch":
            pattern = error["ctx"]["pattern"]
            return f"{_shown(error['input'])} cannot be used; write {write or f'what matches {pattern}'}"
        case _:
            expected = re.sub(r"^\w+ should |, unable to .*$| after validation, not \d+$", "", error["msg"])
            return f"{_shown(error['input'])} should {expected}; write {write or 'such a value'}"


def _unknown(where: list[int | str]) -> str:
    fields = _fields(where[:-1])
    close = difflib.get_close_matches(str(where[-1]), fields, n=1)
    if close:
        return f"there is no such field; write {close[0]}"
    return f"there is no such field; write one of {', '.join(fields)}"


def _fields(where: Iterable[int | str]) -> list[str]:
    """The names of the fields of the section at that place, by way of the schema."""
    made = Policy.model_json_schema()
    at: dict[str, Any] = made
    for part in where:
        at = at.get("items", {}) if isinstance(part, int) else at.get("properties", {}).get(part, _values_of(at))
        for option in at.get("anyOf", ()):
            at = option if "$ref" in option else at
        if "$ref" in at:
            at = made["$defs"][at["$ref"].rpartition("/")[2]]
    return list(at.get("properties", {}))


def _values_of(at: dict[str, Any]) -> dict[str, Any]:
    values = at.get("additionalProperties")
    return values if isinstance(values, dict) else {}


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value) if isinstance(value, dict | list | bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _write_durations(at: object) -> None:
    """Defaults of durations as they are written in a policy (6h), where pydantic writes ISO 8601 (PT6H)."""
    if isinstance(at, dict):
        default = at.get("default")
        if isinstance(default, str) and (found := re.fullmatch(r"P(?:T(\d+)([HMS])|(\d+)([DW]))", default)):
            at["default"] = (found[1] or found[3]) + (found[2] or found[4]).lower()
        for value in at.values():
            _write_durations(value)
    elif isinstance(at, list):
        for value in at:
            _write_durations(value)
