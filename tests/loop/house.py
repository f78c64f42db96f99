"""The daemon's loop over a world of fakes: what the tests of this folder put together."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random

from retrainer.core.events import ObjectCreated
from retrainer.core.execution import Execution
from retrainer.core.policy import Policy, Schedule
from retrainer.core.reason import Reason
from retrainer.core.record import digest, dump
from retrainer.core.state import ModelState
from retrainer.follow import Observer
from retrainer.intake import Intake
from retrainer.loop import Loop
from retrainer.outbox import Outbox
from retrainer.ports import Clock
from retrainer.supervise import Stage, Supervisor
from retrainer.timers import Timers
from tests.fakes.analyst import KnowingAnalyst
from tests.fakes.clock import LoopClock
from tests.fakes.engine import MemoryEngine
from tests.fakes.inbox import MemoryInbox
from tests.fakes.memory_ledger import MemoryLedger
from tests.fakes.parser import WordParser
from tests.fakes.telemetry import KeepingTelemetry

MACHINE = "arn:aws:states:eu-west-1:111111111111:stateMachine:retraining"


def policy(model: str = "recommender", /, **changes: object) -> Policy:
    """A policy that asks for a retraining when half of the columns drift."""
    told: dict[str, object] = {
        "model": model,
        "data": {
            "bucket": "data",
            "prefix": f"data/{model}/",
            "timestamp": "timestamp",
            "columns": {f"c{i}": {"kind": "numerical", "test": "psi", "threshold": 0.1} for i in range(10)},
            "predictions": {
                "prefix": f"predictions/{model}/",
                "key": "id",
                "prediction": "items",
                "label": "item",
                "metric": "hit_rate_at_10",
            },
        },
        "triggers": {"drift": {"share": 0.5, "false_alarms_per_year": None}},
        "guards": {"cooldown": "1h", "backoff": None},
        "action": {"state_machine": MACHINE, "candidates": [{"name": "sasrec"}]},
        "gate": {"metric": "hit_rate_at_10"},
    }
    return Policy.model_validate(told | changes)


def batch(number: int, model: str = "recommender", *, folder: str = "data") -> ObjectCreated:
    """The n-th batch of a model has arrived."""
    return ObjectCreated(bucket="data", key=f"{folder}/{model}/{number:04}.parquet", version="1", size_bytes=9)


@dataclass
class HandSchedules:
    """Fires at exactly these moments."""

    moments: Sequence[datetime] = ()

    def due(self, schedule: Schedule, after: datetime, until: datetime) -> Sequence[datetime]:
        return [m for m in self.moments if after < m <= until]


@dataclass
class World:
    """What outlives a process."""

    policies: dict[str, Policy] = field(default_factory=lambda: {"recommender": policy()})
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    inbox: MemoryInbox = field(default_factory=MemoryInbox)
    engine: MemoryEngine = field(default_factory=MemoryEngine)
    analyst: KnowingAnalyst = field(default_factory=KnowingAnalyst)
    schedules: HandSchedules = field(default_factory=HandSchedules)
    telemetry: KeepingTelemetry = field(default_factory=KeepingTelemetry)

    def known(self) -> Mapping[str, tuple[Policy, str]]:
        return {model: (policy, digest(dump(policy))) for model, policy in self.policies.items()}

    async def state(self, model: str = "recommender") -> ModelState:
        return await self.ledger.state(model)

    async def execution(self, model: str = "recommender") -> Execution:
        """The one in flight."""
        found = (await self.state(model)).execution
        assert found
        return found

    async def reasons(self, model: str = "recommender") -> list[Reason]:
        """Of every decision, the oldest first."""
        return [Reason(d.reason) for d in reversed(await self.ledger.decisions(model, limit=1000))]


class House:
    """One process in that world."""

    def __init__(
        self,
        world: World,
        *,
        clock: Clock | None = None,
        seed: int = 0,
        pollers: int = 1,
    ) -> None:
        ledger, engine = world.ledger, world.engine
        clock = clock or LoopClock()
        told, random = world.telemetry, Random(seed)  # noqa: S311 - the same seed, the same run
        self.loop = Loop(policies=world.known, ledger=ledger, clock=clock, telemetry=told)
        self.intake = Intake(
            loop=self.loop,
            inbox=world.inbox,
            parser=WordParser(),
            policies=world.known,
            ledger=ledger,
            clock=clock,
            telemetry=told,
            pollers_max=pollers,
            random=random,
        )
        self.pollers = pollers
        self.outbox = Outbox(
            loop=self.loop,
            policies=world.known,
            ledger=ledger,
            engine=engine,
            analyst=world.analyst,
            clock=clock,
            telemetry=told,
            random=random,
        )
        self.observer = Observer(loop=self.loop, ledger=ledger, engine=engine, telemetry=told, clock=clock)
        self.timers = Timers(
            loop=self.loop,
            policies=world.known,
            ledger=ledger,
            schedules=world.schedules,
            clock=clock,
            telemetry=told,
        )
        self.supervisor = Supervisor(telemetry=told, random=random)

    @asynccontextmanager
    async def alive(self, *, drain_seconds: float = 100.0) -> AsyncIterator["House"]:
        """Everything runs; drained at the end, which in no time at all means killed."""
        for poller in range(self.pollers):
            self.supervisor.start(f"poller-{poller}", Stage.INTAKE, partial(self.intake.poll, poller=poller))
        self.supervisor.start("outbox", Stage.OUTBOX, self.outbox.run)
        self.supervisor.start("observer", Stage.BACKGROUND, self.observer.run)
        self.supervisor.start("timers", Stage.BACKGROUND, self.timers.run)
        try:
            yield self
        finally:
            await self.supervisor.drain(drain_seconds)


async def until(holds: Callable[[], bool], *, within: timedelta = timedelta(hours=1)) -> None:
    """Let virtual time pass until something holds; fails when it does not within the time given."""
    async with asyncio.timeout(within.total_seconds()):
        while not holds():  # noqa: ASYNC110 - what holds may be anything
            await asyncio.sleep(0.5)  # virtual time
