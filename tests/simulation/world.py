"""What outlives every process: the queue, the ledger, AWS, people, and the time."""

import asyncio
import hashlib
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Any

from retrainer.core.events import AlarmChanged, ApprovalAnswered, ApprovalRequested, Event, ObjectCreated
from retrainer.core.reason import Reason
from retrainer.core.record import load_state
from retrainer.core.state import ModelState
from retrainer.ports import Entry, Ledger
from tests.fakes.memory_ledger import MemoryLedger
from tests.simulation.aws import ARN, SimAnalyst, SimEngine
from tests.simulation.clockwork import peek
from tests.simulation.history import Crash, History
from tests.simulation.policies import SHARED, Policies, limited, versions
from tests.simulation.queue import Queue
from tests.simulation.replica import Replica
from tests.simulation.watch import Watch

parsed = lru_cache(maxsize=10_000)(load_state)
LINES_MAX = 30_000
"""The longest transcript of a healthy history has a third of that."""


class SwiftLedger(MemoryLedger):
    """The same, but for parsing a state once: it is a value."""

    def _state(self, model: str) -> ModelState:
        text = self._states.get(model)
        return parsed(text) if text else ModelState(model=model)

    async def active(self) -> Mapping[str, ModelState]:
        states = {model: parsed(text) for model, text in sorted(self._states.items())}
        return {model: state for model, state in states.items() if state.execution or state.wake_at}


class World:
    """One seed's world. `is_quiet`: nothing goes wrong any more; `is_over`: nobody may call any more."""

    def __init__(self, history: History, ledger: Ledger | None = None) -> None:
        self.history = history
        self.random = Random(history.seed)  # noqa: S311 - the same seed, the same world
        self.transcript: list[tuple[float, str, str]] = []
        self.violations: list[tuple[str, str]] = []
        self.broken = asyncio.Event()
        self.awake = asyncio.Event()
        self.awake.set()
        self.is_quiet = False
        self.is_over = False
        self.crashes: set[tuple[str, bool]] = set()
        self.expected: dict[tuple[str, str], Event] = {}
        """(model, identity) of every event that has to be decided upon."""
        self.refusable: dict[str, str] = {}
        """Messages that must be refused."""
        self.asked_open = 0
        self.replicas: list[Replica] = []
        """The processes that live."""
        self._tickets = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._graves: list[asyncio.Future[None]] = []
        self._versions = limited() if history.is_limited else versions()
        self._version = 0
        self.working: dict[str, list[str]] = {}
        """Who is carrying out which effect."""
        self.queue = Queue(self, visibility=history.visibility, receives_max=history.receives_max)
        self.ledger = ledger or SwiftLedger()
        self.watch = Watch(self)
        self.engine = SimEngine(self)
        self.analyst = SimAnalyst(self)

    # --- telling ---

    def say(self, who: str, what: str) -> None:
        self.transcript.append((asyncio.get_running_loop().time(), who, what))
        if len(self.transcript) == LINES_MAX:
            self.violate("nothing goes round", f"more than {LINES_MAX} calls")

    def violate(self, invariant: str, said: str) -> None:
        self.say("!!!!", f"{invariant}: {said}")
        self.violations.append((invariant, said))
        self.broken.set()

    def digest(self) -> str:
        """Two runs of one history have the same."""
        return hashlib.sha256(
            "\n".join(f"{t:.6f} {who} {what}" for t, who, what in self.transcript).encode()
        ).hexdigest()

    def crashed(self, crash: Crash) -> None:
        self.crashes.add((crash.call, crash.after))

    # --- asking ---

    def loop_time(self) -> float:
        """Seconds since the world began."""
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """The time that no clock is ahead of or behind."""
        return self.history.start + timedelta(seconds=asyncio.get_running_loop().time())

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def policies(self) -> Policies:
        return self._versions[self._version]

    def change_policies(self) -> None:
        self._version = (self._version + 1) % len(self._versions)
        self.say("world", f"policies {self._version}")

    def is_away(self, port: str) -> bool:
        return self.was_away(port, 0.0)

    def was_away(self, port: str, seconds: float) -> bool:
        """Whether the port is away, or was at some time in the last seconds."""
        now = self.loop_time()
        return any(o.port == port and o.begin <= now < o.end + seconds for o in self.history.outages)

    def concerned(self, model: str | None, event: Event) -> Iterable[str]:
        """Whom an event is for, which does not depend on the policies' version."""
        match event:
            case ObjectCreated(key=key):
                return ("alpha", "beta") if key.startswith(SHARED) else ("gamma",)
            case AlarmChanged():
                return ("gamma",)
            case _:
                assert model
                return (model,)

    def is_committed(self, model: str, identity: str) -> bool:
        return bool(peek(self.ledger.known(model, [identity])))

    def state(self, model: str) -> ModelState:
        return peek(self.ledger.state(model))

    def knows_arn(self, model: str, name: str) -> bool:
        execution = self.state(model).execution
        return bool(execution and execution.name == name and execution.arn == ARN + name)

    def was_done(self, kind: str, key: str) -> bool:
        """Whether it was carried out, in the eyes of whoever was to be asked to."""
        match kind:
            case "StartExecution":
                return key in self.engine.walks
            case "AnswerApproval":
                return key in self.engine.answered
            case _:
                return key in self.analyst.done

    def in_hand(self, effect: str) -> Sequence[str]:
        """The live processes that are carrying out this effect."""
        alive = {r.name for r in self.replicas if not r.gate.dead.is_set()}
        return [name for name in self.working.get(effect, ()) if name in alive]

    # --- what happens outside ---

    def outside(self, life: Coroutine[Any, Any, None]) -> None:
        """Something that happens whether or not a daemon runs."""
        self._tasks.append(asyncio.create_task(life))

    def expect(self, model: str | None, event: Event) -> None:
        for concerned in self.concerned(model, event):
            self.expected[concerned, event.identity] = event

    def expected_of_a_decision(self, entry: Entry) -> None:
        """People answer what they are asked."""
        if isinstance(entry.event, ApprovalRequested) and entry.decision.reason is Reason.APPROVAL_REQUESTED:
            self.asked_open += 1
            self.outside(self._answers(entry.model, entry.event.execution))

    async def _answers(self, model: str, execution: str) -> None:
        """A person, and sometimes a second one who thinks otherwise."""
        await asyncio.sleep(self.random.choice((20.0, 300.0)) * self.random.uniform(0.2, 1.0))
        approved = self.random.random() < 0.8
        persons = (("ann", approved), ("bob", not approved))[: self.random.choice((1, 1, 2))]
        answers = (
            ApprovalAnswered(request=f"{by} on {execution}", execution=execution, approved=yes, by=by)
            for by, yes in persons
        )
        await asyncio.gather(*(self.asks(model, answer) for answer in answers))
        self.asked_open -= 1

    async def asks(self, model: str, event: Event) -> None:
        """Over HTTP: another time, and of another replica, until it is answered."""
        self.expect(model, event)
        self.asked_open += 1
        while not await self._asked(model, event):
            await self.awake.wait()
            await asyncio.sleep(self.random.uniform(2.0, 15.0))
        self.asked_open -= 1
        if not self.is_committed(model, event.identity):
            self.violate("commit, then answer", f"{model} {event.identity}")

    async def _asked(self, model: str, event: Event) -> bool:
        """Whether a replica has answered."""
        alive = [r for r in self.replicas if r.takes]
        if not alive:
            return False
        replica = self.random.choice(alive)
        asking = asyncio.create_task(replica.loop.take(model, event))
        asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        dead = asyncio.create_task(replica.gate.dead.wait())
        try:
            await asyncio.wait([asking, dead], return_when=asyncio.FIRST_COMPLETED)
            return asking.done() and asking.exception() is None
        finally:
            dead.cancel()

    async def grave(self) -> None:
        """Where the tasks of a dead process stay. Held on to, or the garbage collector would wake them."""
        self._graves.append(asyncio.get_running_loop().create_future())
        await self._graves[-1]

    async def end(self) -> None:
        """Nobody may call any more, and nothing happens."""
        self.is_over = True
        me = asyncio.current_task()
        while others := [t for t in asyncio.all_tasks() if t is not me]:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
