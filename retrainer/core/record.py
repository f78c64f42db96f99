"""How events, effects and states become canonical JSON, and back; the ledger's texts and the hashes over them.

The canonical text of a value has its keys sorted and no spaces, and writes each field as pydantic would.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from hashlib import sha256
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Any, Final, TypeVar, get_args

from pydantic import TypeAdapter

from retrainer.core.effects import Effect
from retrainer.core.events import Event
from retrainer.core.fleet import Fleet
from retrainer.core.policy import Policy
from retrainer.core.state import ModelState

T = TypeVar("T")
_KINDS: dict[str, type] = {cls.__name__: cls for cls in (*get_args(Event), *get_args(Effect))}

ADDED: Final[Mapping[str, Sequence[str]]] = {
    "ModelState": ("drifting", "first_predictions"),
    "Evidence": ("unusable", "began", "ended"),
    "ColumnDrift": ("low", "high", "nulls", "reference_nulls", "unseen"),
    "MeasureEvidence": ("grid", "profiles", "first_predictions", "classifier"),
    "PublishReport": ("grid", "profiles", "first_predictions", "since", "predictions", "classifier"),
}
"""Fields that old records do not have, by class: they came when windows were first counted as profiles."""

PARTS_MAX: Final = 8_192
"""Texts of parts that are remembered; about 5 MB."""


@cache
def _adapter(cls: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cls)


_plain = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


def canonical(value: object) -> str:
    """The one JSON text of a plain value: keys sorted, no spaces. NaN is refused with ValueError."""
    return _plain(value)


def dump(value: object) -> str:
    """The canonical JSON of a dataclass or policy of the core. NaN is refused with ValueError."""
    if isinstance(value, Policy):
        return canonical(_adapter(type(value)).dump_python(value, mode="json"))
    assert is_dataclass(value)
    return _object(value)


def dump_as_before(value: object) -> str:
    """What `dump` wrote of a state or an effect before the fields of ADDED were there; old records are compared so."""
    return canonical(_as_before(value))


def _as_before(value: object) -> object:
    if is_dataclass(value):
        added = ADDED.get(type(value).__name__, ())
        return {f.name: _as_before(getattr(value, f.name)) for f in fields(value) if f.name not in added}
    if isinstance(value, tuple):
        return [_as_before(part) for part in value]
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def load_event(kind: str, text: str) -> Event:
    """The event that `dump` wrote; `kind` is its class name. Raises KeyError or pydantic's ValidationError."""
    event: Event = _adapter(_KINDS[kind]).validate_json(text)
    return event


def load_effect(kind: str, text: str) -> Effect:
    """The effect that `dump` wrote; `kind` is its class name. Raises KeyError or pydantic's ValidationError."""
    effect: Effect = _adapter(_KINDS[kind]).validate_json(text)
    return effect


def load_state(text: str) -> ModelState:
    """The state that `dump` wrote. Raises pydantic's ValidationError."""
    state: ModelState = _adapter(ModelState).validate_json(text)
    return state


def load_policy(text: str) -> Policy:
    """The policy that `dump` wrote. Raises pydantic's ValidationError."""
    return Policy.model_validate_json(text)


def load_fleet(text: str) -> Fleet:
    """The fleet that `dump` wrote. Raises pydantic's ValidationError."""
    fleet: Fleet = _adapter(Fleet).validate_json(text)
    return fleet


def digest(text: str) -> str:
    """The sha256 of a text, in hexadecimal."""
    data = text.encode()
    found = sha256()
    for at in range(0, len(data), _HELD):
        found.update(data[at : at + _HELD])
    return found.hexdigest()


_HELD: Final = 2047
"""Of more bytes at a time hashlib lets go of the interpreter, and a busy thread gives it back 5 ms later."""


# --- dataclasses; a state is written at every decision, and most of its parts are those of the state before ---

_parts: dict[int, tuple[object, str]] = {}
"""The texts of frozen parts by their id, each with the part itself, so that no other can have that id."""


class _Shapes(dict[type, tuple[Sequence[str], Callable[[Any], Sequence[Any]]]]):
    """The keys of each class as they are written, sorted, and what gets their values: those and the first again, as
    attrgetter gives no tuple for one alone.
    """

    def __missing__(self, cls: type) -> tuple[Sequence[str], Callable[[Any], Sequence[Any]]]:
        names = sorted(f.name for f in fields(cls))
        self[cls] = [f'"{name}":' for name in names], attrgetter(*names, names[0])
        return self[cls]


_SHAPES: Final = _Shapes()


def _object(value: Any) -> str:
    keys, values = _SHAPES[type(value)]
    # The values are one more than the keys: zip ends with the keys.
    parts = [key + ("null" if v is None else _WRITERS[type(v)](v)) for key, v in zip(keys, values(value), strict=False)]
    return "{" + ",".join(parts) + "}"


def _part(value: object) -> str:
    try:
        return _parts[id(value)][1]
    except KeyError:
        text = _object(value)
    if len(_parts) >= PARTS_MAX:
        _parts.clear()
    _parts[id(value)] = (value, text)
    return text


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be written down")
    return repr(value)


def _sequence(values: Sequence[object]) -> str:
    if not values:
        return "[]"
    # Mostly the batches of a window, all but one of them known: no call for each.
    texts = [known[1] if (known := _parts.get(id(v))) else _WRITERS[type(v)](v) for v in values]
    return "[" + ",".join(texts) + "]"


def _mapping(values: Mapping[str, object]) -> str:
    named = ((encode_basestring(k), values[k]) for k in sorted(values))
    return "{" + ",".join([f"{k}:{_WRITERS[type(v)](v)}" for k, v in named]) + "}"


class _Writers(dict[type, Callable[[Any], str]]):
    """What writes the values of each class down; raises TypeError for one that has no canonical text."""

    def __missing__(self, cls: type) -> Callable[[Any], str]:
        if issubclass(cls, StrEnum):
            self[cls] = lambda value: encode_basestring(value.value)
        elif is_dataclass(cls):
            self[cls] = _part
        else:
            raise TypeError(f"{cls.__name__} has no canonical text")
        return self[cls]


_WRITERS: Final = _Writers(
    {
        type(None): lambda _: "null",
        bool: lambda value: "true" if value else "false",
        int: repr,
        float: _number,
        str: encode_basestring,
        datetime: lambda value: f'"{value.isoformat()}"'.replace("+00:00", "Z"),
        tuple: _sequence,
        dict: _mapping,
    }
)
