"""The invariants: what must hold after every port call, and what must hold when all has come to rest."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from retrainer.core.effects import AnswerApproval, StartExecution
from retrainer.core.events import EffectFailed, ScheduleFired
from retrainer.core.state import ModelState
from retrainer.outbox import START_WITHIN
from retrainer.ports import Committed, Entry, Message, Owed, Verdict
from tests.fakes.parser import WordParser
from tests.simulation.calendar import fires, schedule_of
from tests.simulation.gate import told
from tests.simulation.step import Step

if TYPE_CHECKING:
    from tests.simulation.aws import Walk
    from tests.simulation.world import World


@dataclass(slots=True)
class Lease:
    """Who has an effect, and until when by the clock of whoever said so."""

    until: datetime
    holder: str


class Watch:
    """Sees every port call's end. Keeps a book of its own, so that it need not believe the ledger."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._parser = WordParser()
        self.entries: dict[str, list[Entry]] = defaultdict(list)
        self.identities: set[tuple[str, str]] = set()
        self._leases: dict[str, Lease] = {}
        self._created: dict[str, datetime] = {}
        self._tokens: dict[str, str] = {}
        self._refused: set[str] = set()
        self._beginning: set[tuple[str, str, str]] = set()
        self._cursors: dict[tuple[str, str], datetime] = {}
        self._decisions: dict[str, str] = {}

    def called(self, replica: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], answer: Any) -> None:
        """A port call has taken effect."""
        quiet = name in ("Ledger.active", "Ledger.owed", "Inbox.receive") and not answer
        if not quiet and name != "Ledger.active":
            self._world.say(replica, told(name, args, answer))
        port, _, method = name.partition(".")
        if port == "Ledger":
            self._of_the_ledger(replica, method, args, kwargs, answer)
        elif method == "acknowledge":
            for message in args[0]:
                self._acknowledged(message)

    def _of_the_ledger(
        self, replica: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], answer: Any
    ) -> None:
        match method:
            case "commit":
                for entry, verdict in zip(args[0], answer, strict=True):
                    self._committed(replica, entry, verdict)
            case "owed":
                for owed in answer:
                    self._leased(replica, owed, args[0], kwargs["lease_seconds"])
            case "postpone":
                lease = self._leases.get(args[0])
                self._leases[args[0]] = Lease(args[1], lease.holder if lease else replica)
            case "seen_until" if answer is None:
                self._beginning.add((replica, args[0], args[1]))
            case "see":
                self._cursor_moved(replica, *args)

    # --- decisions ---

    def _committed(self, replica: str, entry: Entry, verdict: Committed) -> None:
        known = (entry.model, entry.event.identity) in self.identities
        if verdict is not Committed.NEW:
            if verdict is Committed.DUPLICATE and not known:
                self._violate("no trigger lost", f"{entry.event.identity} is called a duplicate, and is the first")
            return
        if known:
            self._violate("no decision twice", f"{entry.model} {entry.event.identity}")
        self.identities.add((entry.model, entry.event.identity))
        entries = self.entries[entry.model]
        before = entries[-1].decision.state if entries else ModelState(model=entry.model)
        if entry.state_before != before or entry.decision.state.version != before.version + 1:
            versions = f"{entry.state_before.version} -> {entry.decision.state.version}, after {before.version}"
            self._violate("versions gapless", f"{entry.model} decided on another state: {versions}")
        entries.append(entry)
        for effect in entry.decision.effects:
            self._created[effect.key] = entry.now
            if entry.leased_until:
                self._leases[effect.key] = Lease(entry.leased_until, replica)
            if isinstance(effect, StartExecution):
                self._decisions[effect.key] = entry.decision.id
        if isinstance(entry.event, EffectFailed):
            self._given_up(entry, entry.event)
        self._world.expected_of_a_decision(entry)
        Step(self._world, entry, entries).check()

    # --- effects ---

    def _leased(self, replica: str, owed: Owed, now: datetime, seconds: float) -> None:
        lease = self._leases.get(owed.effect.key)
        if lease and lease.until > now:
            self._violate("leases hold", f"{owed.effect.key} leased to {replica}, and {lease.holder} has it")
        elif lease and lease.holder in self._world.in_hand(owed.effect.key) and self._world.history.is_calm:
            self._violate("leases hold", f"{owed.effect.key} ran out under {lease.holder}, who works on it")
        self._leases[owed.effect.key] = Lease(now + timedelta(seconds=seconds), replica)

    def starting(self, walk: "Walk", active: Sequence["Walk"]) -> None:
        """Step Functions accepts an execution; `active` are those that run."""
        self._world.say("aws", f"{walk.name} starts")
        planned = self._decisions.get(walk.name)
        if planned is None:
            self._violate("names stay", f"{walk.name} was never decided")
        elif planned != walk.decision:
            self._violate("names stay", f"{walk.name} was decided by {planned}, not {walk.decision}")
        others = [w.name for w in active if w.model == walk.model]
        if others:
            self._violate("one execution a model", f"{walk.name} starts while {', '.join(others)} runs")
        twice = [w.name for w in self._world.engine.walks.values() if w.decision == walk.decision]
        if twice:
            self._violate("one execution a decision", f"{walk.decision}: {twice[0]} and {walk.name}")
        same = [
            w.name
            for w in self._world.engine.walks.values()
            if (w.model, w.generation) == (walk.model, walk.generation)
        ]
        if same:
            self._violate("generations are unique", f"{same[0]} and {walk.name}")
        age = self._world.now() - self._created.get(walk.name, self._world.now())
        if age > START_WITHIN + timedelta(hours=1):
            self._violate("stale plans expire", f"{walk.name} is started {age} after it was planned")

    def crowned(self, walk: "Walk", before: int, after: int) -> None:
        """The champion pointer was written, or not."""
        if after < before:
            self._violate("no stale promotion", f"{walk.model}: generation {after} serves after generation {before}")

    def answering(self, effect: AnswerApproval) -> None:
        """Step Functions is given an answer, whether or not it takes it."""
        first = self._tokens.setdefault(effect.task_token, effect.key)
        if first != effect.key:
            self._violate("one answer a question", f"{effect.execution} was answered by {first} and {effect.key}")

    def refused(self, effect: str) -> None:
        """AWS or the worker said that it never will."""
        self._refused.add(effect)

    def _given_up(self, entry: Entry, event: EffectFailed) -> None:
        if event.kind not in (StartExecution.__name__, AnswerApproval.__name__) or event.effect in self._refused:
            return
        age = entry.now - self._created.get(event.effect, entry.now)
        if age < START_WITHIN:
            self._violate("nothing is given up", f"{event.effect} after {age}: {event.why}")

    # --- schedules ---

    def _cursor_moved(self, replica: str, model: str, name: str, until: datetime) -> None:
        """What the cursor passes was taken, or merged with what was taken, or is past its grace.

        A schedule begins when a replica sees it first, which two may do at two times by their clocks.
        """
        stood = None if (replica, model, name) in self._beginning else self._cursors.get((model, name))
        self._beginning.discard((replica, model, name))
        self._cursors[model, name] = max(self._cursors.get((model, name), until), until)
        schedule = schedule_of(model, name)
        end = self._world.history.start + timedelta(seconds=self._world.history.quiet_at)
        due = fires(schedule.cron, schedule.time_zone, self._world.history.start)
        timely = [f for f in due if (stood or until) < f <= min(until, end) and until - f <= schedule.misfire_grace]
        newest = ScheduleFired(schedule=name, fire_at=timely[-1]) if timely else None
        if newest and (model, newest.identity) not in self.identities:
            self._violate("no trigger lost", f"{model}: the cursor passed {newest.identity}")

    # --- messages ---

    def _acknowledged(self, message: Message) -> None:
        parsed = self._parser.parse(message.body)
        if parsed.verdict in (Verdict.MALFORMED, Verdict.FOREIGN):
            self._violate("refused means kept", f"{message.id} is acknowledged, and was to be refused")
        for model, event in parsed.events:
            for concerned in self._world.concerned(model, event):
                if not self._world.is_committed(concerned, event.identity):
                    self._violate("commit, then acknowledge", f"{message.id} {concerned} {event.identity}")

    def _violate(self, invariant: str, said: str) -> None:
        self._world.violate(invariant, said)
