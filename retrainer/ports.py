"""The edges of the loop: what it needs of the outside world, as narrow as it needs it."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from retrainer.core.decide import Decision
from retrainer.core.effects import AnswerApproval, Effect, MeasureEvidence, PublishReport, StartExecution
from retrainer.core.events import Event, ExecutionEnded
from retrainer.core.evidence import Evidence
from retrainer.core.fleet import Fleet
from retrainer.core.policy import Policy
from retrainer.core.state import ModelState


class TransientError(Exception):
    """It may work later: tried again with backoff, and nothing is lost meanwhile."""


class PermanentError(Exception):
    """It will not work however often it is tried: becomes EffectFailed and is decided upon."""


class UnknownExecutionError(PermanentError):
    """AWS does not know the execution: not yet, because its answers lag behind its deeds, or no longer."""


class ConfigError(Exception):
    """Somebody has to mend a file or a setting; the message names the place and what to write instead."""


class Clock(Protocol):
    """The time, UTC and aware."""

    def now(self) -> datetime: ...


# --- intake ---


class Verdict(StrEnum):
    """What parsing made of a message."""

    EVENT = "event"
    WAKE = "wake"
    IGNORED = "ignored"
    MALFORMED = "malformed"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A message's meaning.

    EVENT: `events`, each with the model it concerns, or None for every model whose policy watches it.
    WAKE: it says that executions have moved, so the observer looks sooner.
    IGNORED: well formed, but nothing of ours (`kind` says what). MALFORMED and FOREIGN: `why` says what is wrong.
    """

    verdict: Verdict
    kind: str
    events: tuple[tuple[str | None, Event], ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One received message; `receipt` acknowledges it, `body` is as it came, hostile until parsed."""

    id: str
    body: str
    receipt: str = field(repr=False)
    queue: str
    received_at: datetime
    sent_at: datetime | None = None


class Inbox(Protocol):
    """A queue with at-least-once delivery. Besides what is said below, ConfigError: it does not exist, or is denied."""

    async def receive(self) -> Sequence[Message]:
        """Up to ten messages, after at most one long poll. Raises TransientError."""
        ...

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Delete them; those that fail are delivered again, which is harmless. Raises TransientError."""
        ...

    async def refuse(self, message: Message, why: str) -> None:
        """Put a copy with the reason on the dead-letter queue, then acknowledge. Raises TransientError."""
        ...

    async def release(self, messages: Sequence[Message]) -> None:
        """Make them visible again at once. Raises TransientError."""
        ...

    async def keep(self, messages: Sequence[Message]) -> None:
        """Keep them invisible to others for another minute. Raises TransientError."""
        ...


class Parser(Protocol):
    """Bytes in, meaning out; never raises on what a stranger may have written."""

    def parse(self, body: str) -> Parsed: ...


# --- the ledger ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One decision to be committed: the event that caused it, what was decided, and on which version of the state.

    `fleet` is what was known of the other models, None where the policy does not ask. `completes` names the effect
    whose answer the event is; it is marked done in the same transaction. Until `leased_until` the decision's effects
    are in the hands of the replica that commits it; None: anybody's at once.
    """

    model: str
    event: Event
    now: datetime
    decision: Decision
    policy: Policy
    policy_hash: str
    state_before: ModelState
    fleet: Fleet | None = None
    completes: str | None = None
    leased_until: datetime | None = None


class Committed(StrEnum):
    """What became of an entry. CONFLICT: another replica was first; reload the state and decide again."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """An effect of the outbox, leased to this replica; `tries` counts this one."""

    model: str
    effect: Effect
    decision: str
    tries: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A decision as the ledger tells it. Texts are canonical JSON; a task token is left out.

    `event` is empty once the ledger was compacted.
    """

    id: str
    model: str
    at: datetime
    event_kind: str
    event_identity: str
    event: str
    reason: str
    detail: str
    policy_hash: str
    state_hash_before: str
    state_hash_after: str
    effects: tuple[tuple[str, str, str], ...]
    """(key, kind, status) of each effect; status is owed, done or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A decision with all that went into it and came of it, as the texts that were stored: it can be made again.

    The texts hold task tokens, so none of them is ever shown. `event` is empty once the ledger was compacted, and so
    is an effect's body. `policy` is None where the ledger does not have it, `recorded_by` (the version that decided)
    where that was before policies were kept. `state_after` is there every so often.
    """

    id: str
    model: str
    version: int
    at: datetime
    event_kind: str
    event_identity: str
    event: str
    reason: str
    detail: str
    policy_hash: str
    policy: str | None
    fleet: str | None
    recorded_by: str | None
    state_hash_before: str
    state_hash_after: str
    state_after: str | None
    effects: tuple[tuple[str, str, str], ...]
    """(key, kind, body) of each effect, in the order of the decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A message that could not be parsed, or was not for us."""

    message_id: str
    queue: str
    received_at: datetime
    why: str
    body: str


class Ledger(Protocol):
    """The durable truth. Every method is one transaction; TransientError when it cannot be had now."""

    async def state(self, model: str) -> ModelState:
        """The model's state; a model never seen has version 0."""
        ...

    async def known(self, model: str, identities: Collection[str]) -> Collection[str]:
        """Which of these events were committed for this model."""
        ...

    async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
        """State, decision, event and effects of each, in one transaction; returns once they are on disk.

        The entries are a chain, each decided on what the one before leaves: after the first that is not NEW, what
        follows on that model is built on a decision that was never taken, and CONFLICTs whatever its version.
        DUPLICATE is judged before CONFLICT, and completes the effect all the same. An execution planned under a limit
        over all models CONFLICTs if one of another model became active that its `fleet` did not know of. Raises
        PermanentError when the ledger forbids one of them, or it cannot be written down; then none is committed.
        """
        ...

    async def fleet(self, model: str, since: datetime) -> Fleet:
        """What is known of all models but this one: what runs, who waits, and what was started after `since`."""
        ...

    async def owed(self, now: datetime, *, limit: int, lease_seconds: float) -> Sequence[Owed]:
        """Lease effects that are due; nobody else gets them until the lease ends."""
        ...

    async def postpone(self, effect: str, until: datetime, why: str) -> None:
        """The effect is due again at `until`, which also renews a lease; nothing happens unless it is still owed."""
        ...

    async def active(self) -> Mapping[str, ModelState]:
        """Models with an execution planned or running, or a moment to be woken at."""
        ...

    async def seen_until(self, model: str, schedule: str) -> datetime | None:
        """Up to when a schedule's fires were taken; None for a schedule never seen."""
        ...

    async def see(self, model: str, schedule: str, until: datetime) -> None:
        """The schedule's fires were taken up to then; never moves backwards."""
        ...

    async def quarantine(self, message: Quarantined) -> None:
        """Keep a message that was refused; the same message twice is kept once."""
        ...

    async def decisions(self, model: str | None, *, limit: int) -> Sequence[Recorded]:
        """The newest decisions first."""
        ...

    async def decision(self, name: str) -> Recorded | None:
        """One decision, by its id, its event's identity, or the key of one of its effects: an execution's name."""
        ...

    async def about(self, execution: str) -> Sequence[Recorded]:
        """The decisions on what became of an execution, oldest first: started, a person asked, answered, ended."""
        ...

    async def models(self) -> Sequence[str]:
        """Every model that a decision was ever made on, sorted."""
        ...

    async def kept_state(self, model: str, version: int) -> int:
        """The newest version up to this one whose state was kept beside its decision; 0 where none was."""
        ...

    def history(self, model: str, first: int) -> AsyncIterator[Original]:
        """The model's decisions from this version on, the oldest first; a page of them is in memory at a time."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """How many rows each table holds, and `effects_owed`."""
        ...

    async def size_bytes(self) -> int:
        """What the ledger takes on disk."""
        ...

    async def compact(self, before: datetime) -> int:
        """Drop the bodies of what was settled before then; returns how many rows it made smaller.

        Identities, decisions with their reasons, and executions stay, so that nothing is ever taken for new again. So
        do the events after the last state that was kept before then: from there on every decision can be made again.
        """
        ...


# --- doing ---


class Engine(Protocol):
    """Step Functions."""

    async def start(self, effect: StartExecution) -> tuple[str, bool]:
        """Store the manifest and start; returns (execution ARN, adopted). Doing it twice starts it once.

        Raises TransientError, or PermanentError when the name is taken by another input or the request is refused.
        """
        ...

    async def answer(self, effect: AnswerApproval) -> None:
        """Answer a task token. Raises TransientError, or PermanentError when the execution no longer waits."""
        ...

    async def heartbeat(self, task_token: str) -> None:
        """Keep a question to a person open. Raises TransientError, or PermanentError when nobody waits any more."""
        ...

    async def running(self, arns: Collection[str]) -> Collection[str]:
        """Those of the executions that are listed as running; the others may have ended, and may be asked about.

        Raises TransientError, or PermanentError when listing is denied.
        """
        ...

    async def known(self, effect: StartExecution) -> str | None:
        """The ARN of the execution that the effect started earlier, if it did. Raises as `start`."""
        ...

    async def ended(self, arn: str) -> ExecutionEnded | None:
        """How the execution ended, or None while it runs.

        Raises TransientError, UnknownExecutionError, or PermanentError when asking is denied.
        """
        ...


class Analyst(Protocol):
    """The evidence worker: a process of its own, with a deadline; a lost one costs one try."""

    async def measure(self, effect: MeasureEvidence, policy: Policy) -> Evidence:
        """Raises TransientError (worker lost, S3 away) or PermanentError (no answer can be had)."""
        ...

    async def publish(self, effect: PublishReport, policy: Policy) -> None:
        """Store the report. Raises as `measure`."""
        ...


class Telemetry(Protocol):
    """Told of everything, once, for logs and metrics; never raises."""

    def received(self, queue: str, kind: str, verdict: Verdict, why: str) -> None: ...

    def decided(self, entry: Entry, committed: Committed, took_seconds: float) -> None: ...

    def duplicate(self, model: str, event: Event) -> None:
        """The event was known before anything was decided on it."""

    def carried_out(self, owed: Owed, error: str | None, took_seconds: float) -> None: ...

    def failed(self, what: str, error: BaseException) -> None: ...
