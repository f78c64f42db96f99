"""A listener that remembers what it was told."""

from retrainer.core.events import Event
from retrainer.ports import Committed, Entry, Owed, Verdict


class KeepingTelemetry:
    """Everything told, in order."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Verdict, str]] = []
        self.entries: list[tuple[Entry, Committed]] = []
        self.duplicates: list[tuple[str, Event]] = []
        self.effects: list[tuple[Owed, str | None]] = []
        self.failures: list[tuple[str, str]] = []

    def received(self, queue: str, kind: str, verdict: Verdict, why: str) -> None:
        self.messages.append((kind, verdict, why))

    def decided(self, entry: Entry, committed: Committed, took_seconds: float) -> None:
        self.entries.append((entry, committed))

    def duplicate(self, model: str, event: Event) -> None:
        self.duplicates.append((model, event))

    def carried_out(self, owed: Owed, error: str | None, took_seconds: float) -> None:
        self.effects.append((owed, error))

    def failed(self, what: str, error: BaseException) -> None:
        self.failures.append((what, str(error)))
