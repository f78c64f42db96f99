"""What the daemon tells of itself: one word for each kind of thing, its health, and one listener made of several."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import get_args

from retrainer.core.effects import Effect
from retrainer.core.events import Event
from retrainer.ports import Committed, Entry, Owed, Telemetry, Verdict


@cache
def word(kind: str) -> str:
    """The one word for a kind: `ExecutionEnded` and `Execution Ended` are execution_ended."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()).strip("_")


def word_of(thing: Event | Effect) -> str:
    """The word for an event or effect."""
    return word(type(thing).__name__)


EVENTS: tuple[str, ...] = tuple(word(cls.__name__) for cls in get_args(Event))
EFFECTS: tuple[str, ...] = tuple(word(cls.__name__) for cls in get_args(Effect))


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the daemon itself is, never how AWS is.

    live: the loop turns and every poller completes its polls; else restart the process.
    ready: it is started, and not on its way out; `why` says what is missing where one of the two is False.
    """

    live: bool
    ready: bool
    why: str = ""
    loop_lag_seconds: float = 0.0
    poll_age_seconds: Mapping[str, float] = field(default_factory=dict)
    """By queue: how long ago a poll was last completed, with messages or without."""


@dataclass(frozen=True, slots=True)
class Telemetries:
    """Tells several listeners the same story."""

    listeners: Sequence[Telemetry]

    def received(self, queue: str, kind: str, verdict: Verdict, why: str) -> None:
        for listener in self.listeners:
            listener.received(queue, kind, verdict, why)

    def decided(self, entry: Entry, committed: Committed, took_seconds: float) -> None:
        for listener in self.listeners:
            listener.decided(entry, committed, took_seconds)

    def duplicate(self, model: str, event: Event) -> None:
        for listener in self.listeners:
            listener.duplicate(model, event)

    def carried_out(self, owed: Owed, error: str | None, took_seconds: float) -> None:
        for listener in self.listeners:
            listener.carried_out(owed, error, took_seconds)

    def failed(self, what: str, error: BaseException) -> None:
        for listener in self.listeners:
            listener.failed(what, error)
