"""A parser of the tests' own messages: an event of the core in its canonical form, or a bare word."""

import json

from retrainer.core.events import Event
from retrainer.core.record import dump, load_event
from retrainer.ports import Parsed, Verdict


def body(event: Event, model: str | None = None) -> str:
    """The message that brings this event."""
    return json.dumps({"model": model, "kind": type(event).__name__, "event": dump(event)})


class WordParser:
    """Understands `body`, and the words "wake", "weather" (ignored) and "foreign"; all else is malformed."""

    def parse(self, body: str) -> Parsed:
        words = {
            "wake": Parsed(verdict=Verdict.WAKE, kind="status"),
            "weather": Parsed(verdict=Verdict.IGNORED, kind="weather", why="not ours"),
            "foreign": Parsed(verdict=Verdict.FOREIGN, kind="object", why="account 2 is not allowed"),
        }
        if body in words:
            return words[body]
        try:
            told = json.loads(body)
            event = load_event(told["kind"], told["event"])
        except (ValueError, KeyError) as error:
            return Parsed(verdict=Verdict.MALFORMED, kind="unknown", why=f"not an event: {type(error).__name__}")
        return Parsed(verdict=Verdict.EVENT, kind=told["kind"], events=((told["model"], event),))
