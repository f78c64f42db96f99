"""How events, effects and states become canonical JSON, and back; the ledger's texts and the hashes over them."""

import hashlib
import json
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter

from retrainer.core.effects import Effect
from retrainer.core.events import Event
from retrainer.core.policy import Policy
from retrainer.core.state import ModelState

T = TypeVar("T")
_KINDS: dict[str, type] = {cls.__name__: cls for cls in (*get_args(Event), *get_args(Effect))}


@cache
def _adapter(cls: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cls)


def canonical(value: object) -> str:
    """The one JSON text of a plain value: keys sorted, no spaces. NaN is refused with ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def dump(value: object) -> str:
    """The canonical JSON of a dataclass or policy of the core."""
    cls: type[Any] = type(value)
    assert is_dataclass(cls) or issubclass(cls, Policy)
    return canonical(_adapter(cls).dump_python(value, mode="json"))


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


def digest(text: str) -> str:
    """The sha256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
