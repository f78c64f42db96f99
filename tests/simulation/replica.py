"""One process: the product's own loop, intake, outbox, observer and timers, put together as wiring.py does."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from retrainer.core.events import Event, PolicyChanged
from retrainer.core.policy import Policy
from retrainer.follow import Observer
from retrainer.intake import Intake
from retrainer.loop import Loop
from retrainer.outbox import Outbox
from retrainer.pacing import pause
from retrainer.ports import (
    Analyst,
    Committed,
    ConfigError,
    Engine,
    Entry,
    Inbox,
    Ledger,
    Owed,
    PermanentError,
    TransientError,
    Verdict,
)
from retrainer.supervise import EndedError, Stage, Supervisor
from retrainer.timers import Timers
from tests.fakes.clock import LoopClock
from tests.fakes.parser import WordParser
from tests.simulation.calendar import Calendar
from tests.simulation.gate import Gate
from tests.simulation.history import Crash
from tests.simulation.policies import Policies
from tests.simulation.queue import SimInbox

if TYPE_CHECKING:
    from tests.simulation.world import World

RELOAD_SECONDS = 15.0
DRAIN_SECONDS = 60.0


class Ears:
    """Implements ports.Telemetry: what fails must be one of our own errors."""

    def __init__(self, world: "World", replica: str, gate: Gate) -> None:
        self._world = world
        self._replica = replica
        self._gate = gate

    def received(self, queue: str, kind: str, verdict: Verdict, why: str) -> None: ...

    def decided(self, entry: Entry, committed: Committed, took_seconds: float) -> None: ...

    def duplicate(self, model: str, event: Event) -> None: ...

    def carried_out(self, owed: Owed, error: str | None, took_seconds: float) -> None:
        if error and not self._gate.dead.is_set():
            self._world.say(self._replica, f"{owed.effect.key} failed, try {owed.tries}: {error}")

    def failed(self, what: str, error: BaseException) -> None:
        if self._gate.dead.is_set() or self._world.is_over:
            return
        self._world.say(self._replica, f"{what} failed: {type(error).__name__}: {error}")
        expected = isinstance(error, TransientError | PermanentError | ConfigError | EndedError)
        if not expected or "forbids" in str(error):
            self._world.violate("no defect", f"{self._replica} {what}: {type(error).__name__}: {error}")


class Replica:
    """A process, from its start to its drain or death."""

    def __init__(self, world: "World", name: str, *, skew: timedelta, crash: Crash | None) -> None:
        self.name = name
        self._world = world
        self.gate = Gate(world, name, crash)
        self._policies: Policies = world.policies()
        self._clock = LoopClock(start=world.history.start, skew=skew)
        self._ears = Ears(world, name, self.gate)
        self.takes = True
        """Whether its HTTP interface answers."""
        random = Random(world.random.random())  # noqa: S311 - it spreads retries
        self.ledger: Ledger = self.gate.around(Ledger, world.ledger)
        engine: Engine = self.gate.around(Engine, world.engine)
        self.inbox: Inbox = self.gate.around(Inbox, SimInbox(world.queue, name))
        self.loop = Loop(policies=self.policies, ledger=self.ledger, clock=self._clock, telemetry=self._ears)
        self.intake = Intake(
            loop=self.loop,
            inbox=self.inbox,
            parser=WordParser(),
            policies=self.policies,
            ledger=self.ledger,
            clock=self._clock,
            telemetry=self._ears,
            pollers_max=world.history.pollers,
            random=random,
        )
        self.outbox = Outbox(
            loop=self.loop,
            policies=self.policies,
            ledger=self.ledger,
            engine=engine,
            analyst=self.gate.around(Analyst, world.analyst),
            clock=self._clock,
            telemetry=self._ears,
            random=random,
        )
        self.observer = Observer(
            loop=self.loop, ledger=self.ledger, engine=engine, telemetry=self._ears, clock=self._clock
        )
        self.timers = Timers(
            loop=self.loop,
            policies=self.policies,
            ledger=self.ledger,
            schedules=Calendar(world.history.start, world.history.start + timedelta(seconds=world.history.quiet_at)),
            clock=self._clock,
            telemetry=self._ears,
        )
        self.supervisor = Supervisor(telemetry=self._ears, random=random)

    def policies(self) -> Mapping[str, tuple[Policy, str]]:
        return self._policies

    def start(self) -> None:
        start = self.supervisor.start
        for number in range(self._world.history.pollers):
            start(f"poller-{number}", Stage.INTAKE, partial(self.intake.poll, poller=number))
        start("outbox", Stage.OUTBOX, self.outbox.run)
        start("observer", Stage.BACKGROUND, self.observer.run)
        start("timers", Stage.BACKGROUND, self.timers.run)
        start("policies", Stage.BACKGROUND, self._watch_policies)
        self._world.replicas.append(self)
        self._world.say(self.name, "starts")

    async def lives(self, seconds: float) -> bool:
        """Let it live so long; False when it died before."""
        return not await pause(self.gate.dead, seconds)

    async def drain(self) -> None:
        """SIGTERM: nothing may stay invisible because of it."""
        world = self._world
        world.say(self.name, "drains")
        began = world.loop_time()
        self.takes, self.gate.drains = False, True
        draining = asyncio.create_task(self.supervisor.drain(DRAIN_SECONDS))
        dead = asyncio.create_task(self.gate.dead.wait())
        await asyncio.wait([draining, dead], return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        if not self.gate.dead.is_set():
            self._drained(list(draining.result()), world.loop_time() - began)
            self.gate.dead.set()
        world.replicas.remove(self)

    def _drained(self, late: Sequence[str], seconds: float) -> None:
        world = self._world
        world.say(self.name, f"drained, {seconds:.1f} s")
        left = world.queue.of(self.name)
        if left and not world.was_away("Inbox", DRAIN_SECONDS):
            world.violate("drains leave nothing", f"{self.name} leaves {', '.join(left)} invisible")
        if late:
            world.violate("drains end", f"{self.name}: {', '.join(late)} did not end by themselves")

    def kill(self) -> None:
        self.gate.kill("killed")

    async def _watch_policies(self, stopping: asyncio.Event) -> None:
        """As wiring.py does: a changed policy is in force at once, and each model is told."""
        untold: dict[str, PolicyChanged] = {}
        while not await pause(stopping, RELOAD_SECONDS):
            if self.gate.dead.is_set():
                await self._world.grave()
            new = self._world.policies()
            if new is self._policies and not untold:
                continue
            for model in new:
                if new[model] != self._policies[model]:
                    untold[model] = PolicyChanged(policy_hash=new[model][1], changed_at=self._clock.now())
            self._policies = new
            for model, event in list(untold.items()):
                try:
                    await self.loop.take(model, event)
                    del untold[model]
                except TransientError as error:
                    self._ears.failed("policies", error)
