"""The crash campaign: daemons are fed, failed and killed for a time; then there is peace, and everything is counted."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.ports import Recorded, TransientError
from tests.chaos import judge
from tests.chaos.daemon import methods
from tests.chaos.proxy import PEACE, Line
from tests.chaos.replica import Nursery, Replica
from tests.chaos.report import Plan, Report
from tests.chaos.world import MODELS, TIMED, World

Tell = Callable[[str], None]

ON_THE_WIRE = {
    "StartExecution": 4,
    "PutObject": 3,
    "DescribeExecution": 1,
    "ListExecutions": 1,
    "ReceiveMessage": 1,
    "DeleteMessageBatch": 2,
    "SendMessage": 1,
}
"""The calls before and after which a daemon is made to die, the rare ones more often."""

IN_THE_PROCESS = {
    "COMMIT": 6,
    "SqlLedger.commit": 5,
    "SqlLedger.owed": 1,
    "SqlLedger.postpone": 1,
    "SqlLedger.state": 3,
    "SqlLedger.known": 2,
    "SqlLedger.active": 2,
    "SqlLedger.quarantine": 1,
    "SqlLedger.see": 1,
    "SqlLedger.seen_until": 1,
    "WorkerAnalyst.measure": 1,
}
"""Where a daemon is made to die, and at which call at the latest."""

PATIENCE_SECONDS = 1.5
"""How long a named point is waited for, once the daemon polls; then the process is killed wherever it is."""

START_SECONDS = 8.0
COLD_SHARE = 0.1
"""Of the starts are by the command itself. The rest come out of the nursery: what is to be killed is a daemon at work,
and a hundred times the imports would leave it little time for that."""

SETTLE_SECONDS = 180.0
END_SECONDS = 15.0
"""In so many seconds the daemons are ended and all is counted. No minute begins meanwhile, with its schedules."""
PUT_EVERY_SECONDS = 1.5
_BEAT_SECONDS = 0.25
_TOLD_EVERY_SECONDS = 5.0


class Campaign:
    """One backend's campaign in a folder of its own."""

    def __init__(self, folder: Path, plan: Plan, tell: Tell) -> None:
        self.folder = folder
        self.report = Report(plan=plan)
        self._plan = plan
        self._tell = tell
        self._random = Random(plan.seed)  # noqa: S311
        self._lines: list[Line] = []
        self._replicas: list[Replica] = []
        self._orders: set[str] = set()
        self._killed: dict[int, str] = {}
        self._over = asyncio.Event()

    async def run(self) -> Report:
        """Raises what the campaign itself cannot go on from; what the daemons do wrong is in the report."""
        async with AsyncExitStack() as stack:
            self._world = await stack.enter_async_context(World(self.folder, self._random))
            nursery = await stack.enter_async_context(Nursery(self.folder / "nursery.log"))
            for n in range(self._plan.replicas):
                await self._add(n, nursery, stack)
            began_at = await self._war()
            await self._peace(began_at)
        self._look_for_processes()
        return self.report

    async def _add(self, n: int, nursery: Nursery, stack: AsyncExitStack) -> None:
        async def kill(point: str) -> None:
            replica = self._replicas[n]
            if replica.pid:
                self._killed[replica.pid] = point
                await replica.kill()

        line = Line(self._world.endpoint_url, Random(self._random.random()), self._orders, kill)  # noqa: S311
        self._lines.append(await stack.enter_async_context(line))
        environment = self._world.environment(line.url) | {
            "RETRAINER_LEDGER": self._plan.ledger,
            "RETRAINER_HTTP_PORT": "0",
        }
        self._replicas.append(Replica(nursery, environment, self.folder / f"daemon-{n}.log"))

    # --- war ---

    async def _war(self) -> datetime:
        """Returns since when a daemon is there."""
        await self._replicas[0].start()
        await self._lines[0].heard()
        await self._world.put_all()
        await self._measured()
        began, began_at = time.monotonic(), datetime.now(UTC)
        await self._replicas[0].kill()
        for line in self._lines:
            line.faults = self._plan.faults
        lives = [self._live(r, ln) for r, ln in zip(self._replicas, self._lines, strict=True)]
        async with asyncio.TaskGroup() as tasks:
            for work in (self._feed(), self._starve(), self._progress(began), *lives):
                tasks.create_task(work)
            tasks.create_task(self._end(began))
        self.report.seconds = time.monotonic() - began
        return began_at

    async def _end(self, began: float) -> None:
        plan = self._plan
        while not self._over.is_set():
            await asyncio.sleep(0.1)
            enough = plan.kills_most is not None and self.report.kills.total() >= plan.kills_most
            if enough or time.monotonic() - began >= plan.seconds:
                self._over.set()

    async def _live(self, replica: Replica, line: Line) -> None:
        """One life after the other, each ended by a kill."""
        died_at = None
        while not self._over.is_set():
            crash, wire, seconds = self._fate()
            line.expect()
            if wire:
                self._orders.add(wire)  # it stands until a replica meets it, this one or another
            end = await replica.start(crash, cold=self._random.random() < COLD_SHARE)
            pid = replica.pid
            await self._until(end, line, seconds, from_start=not (crash or wire))
            if not end.done() and pid:
                self._killed[pid] = "at random"
            status = await replica.kill()
            self._count(pid, status, crash, line, died_at)
            died_at = time.monotonic()

    async def _until(self, end: asyncio.Future[int], line: Line, seconds: float, *, from_start: bool) -> None:
        """Wait for its end, at most so many seconds from its start or from its first poll."""
        born_at = time.monotonic()
        latest = born_at + (seconds if from_start else START_SECONDS)
        while not end.done() and not self._over.is_set() and time.monotonic() < latest:
            if not from_start and line.heard_at:
                latest = min(latest, line.heard_at + seconds)
            await asyncio.wait({end}, timeout=min(0.05, seconds))

    def _fate(self) -> tuple[str | None, str | None, float]:
        """How the next life ends: at a point in the process, at one on the wire, or after so many seconds."""
        dice = self._random
        lot = dice.random()
        if lot < 0.35:
            operation = dice.choices(list(ON_THE_WIRE), list(ON_THE_WIRE.values()))[0]
            return None, f"{dice.choice(('before', 'after'))}:{operation}", PATIENCE_SECONDS
        if lot < 0.70:
            places = [p for p in IN_THE_PROCESS if p == "COMMIT" or p in methods()]
            place = dice.choice(places)
            side = "before" if place == "COMMIT" else dice.choice(("before", "after"))
            latest = max(1, IN_THE_PROCESS[place] // self._plan.replicas)
            return f"{side}:{place}:{dice.randint(1, latest)}", None, PATIENCE_SECONDS
        # Long enough, now and then, for the evidence worker to start and answer.
        return None, None, dice.choice((0.05, 0.2, dice.uniform(0.2, 1.0), dice.uniform(0.2, 2.0), 5.0))

    def _count(self, pid: int | None, status: int, crash: str | None, line: Line, died_at: float | None) -> None:
        assert pid
        point = self._killed.pop(pid, None) or (crash or "").rpartition(":")[0]
        if status != -9:
            self.report.findings.wrong.append(f"a daemon ended by itself with exit status {status}")
            return
        self.report.kills[point] += 1
        self.report.kills_starting += line.heard_at is None
        if line.heard_at and died_at:
            took = line.heard_at - died_at
            self.report.longest_recovery_seconds = max(self.report.longest_recovery_seconds, took)

    async def _feed(self) -> None:
        put_at, owed = 0.0, 0.0
        while not self._over.is_set():
            now = time.monotonic()
            owed += self._plan.rate * _BEAT_SECONDS
            await self._world.tell(int(owed), now)
            owed -= int(owed)
            if now >= put_at:
                await self._world.put()
                put_at = now + PUT_EVERY_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)

    async def _starve(self) -> None:
        """Now and then one of the services refuses everybody everything for seconds."""
        while not self._over.is_set():
            await self._rest(self._random.uniform(5, 12))
            service = self._random.choice(("sqs", "states", "s3"))
            for line in self._lines:
                line.throttled_service = service
            await self._rest(self._random.uniform(1, 4))
            for line in self._lines:
                line.throttled_service = None

    async def _progress(self, began: float) -> None:
        while not self._over.is_set():
            await self._rest(_TOLD_EVERY_SECONDS)
            report, sent = self.report, self._world.sent
            self._tell(
                f"{self._plan.backend} {time.monotonic() - began:5.0f} s  {sent.messages} messages  "
                f"{report.kills.total()} kills  longest recovery {report.longest_recovery_seconds:.1f} s"
            )

    async def _rest(self, seconds: float) -> None:
        """Until then, or until the war is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    async def _measured(self) -> None:
        """Every model has rows, so that from now on whatever asks for a retraining gets one."""
        async with asyncio.timeout(60):
            while True:
                _, decisions = await self._read()
                if {d.model for d in decisions if d.event_kind == "EvidenceMeasured"} >= set(MODELS):
                    return
                await asyncio.sleep(0.1)

    # --- peace ---

    async def _peace(self, began_at: datetime) -> None:
        self._orders.clear()
        for line in self._lines:
            line.faults, line.throttled_service = PEACE, None
            line.expect()
        ended_at = datetime.now(UTC)
        began = time.monotonic()
        for replica in self._replicas:
            await replica.start(cold=True)
        for line in self._lines:
            await line.heard()
        await self._world.tell_the_rest()
        counts = await self._settled(began)
        self.report.settled_seconds = time.monotonic() - began
        for replica in self._replicas:
            if (status := await replica.stop()) != 0:
                self.report.findings.wrong.append(f"SIGTERM: exit status {status}")
        await self._judge(began_at, ended_at, counts)

    async def _settled(self, began: float) -> Mapping[str, int]:
        """Wait until nothing is on its way, nor soon will be, at most SETTLE_SECONDS; the ledger's counts then."""
        quiet = 0
        counts: Mapping[str, int] = {}
        while quiet < 3 and time.monotonic() - began < SETTLE_SECONDS:
            self.report.redriven += await self._world.redrive()
            with contextlib.suppress(TransientError):
                counts, decisions = await self._read()
                waiting = await self._world.waiting(self._world.queue)
                running = [e for e in await self._world.executions() if e["status"] == "RUNNING"]
                undecided = judge.missing(self._world.sent.identities, decisions)
                due = len(TIMED) if 60 - time.time() % 60 < END_SECONDS else 0
                unrest = (waiting, len(running), undecided, counts["effects_owed"], due)
                quiet = 0 if any(unrest) else quiet + 1
                if any(unrest) and int(time.monotonic() - began) % 5 == 0:
                    names = ("messages", "executions running", "facts undecided", "effects owed", "schedules due soon")
                    words = zip(unrest, names, strict=True)
                    self._tell(f"{self._plan.backend} settling: " + ", ".join(f"{n} {what}" for n, what in words))
            await asyncio.sleep(0.5)
        return counts

    async def _read(self) -> tuple[Mapping[str, int], list[Recorded]]:
        ledger = await SqlLedger.open(self._plan.ledger, read_only=True)
        try:
            return await ledger.counts(), list(await ledger.decisions(None, limit=judge.ALL))
        finally:
            await ledger.close()

    async def _judge(self, began_at: datetime, ended_at: datetime, counts: Mapping[str, int]) -> None:
        report, world = self.report, self._world
        counts, decisions = await self._read()
        executions = await world.executions()
        found = report.findings
        judge.decided(found, world.sent.identities, decisions)
        judge.started(found, decisions, executions)
        judge.one_at_a_time(found, executions)
        judge.chained(found, decisions)
        for model in TIMED:
            judge.fired(found, decisions, model, began_at, ended_at)
        judge.refused(found, world.sent.malformed, await world.refused())
        if self._plan.ledger.startswith("sqlite:"):
            judge.intact(found, Path(self._plan.ledger.removeprefix("sqlite:///")))
        if left := await world.waiting(world.queue):
            found.lost.append(f"{left} messages are still in the queue")
        if owed := counts["effects_owed"]:
            found.lost.append(f"{owed} effects are still owed")
        report.messages, report.facts = world.sent.messages, len(world.sent.identities)
        report.decisions, report.executions = len(decisions), len(executions)
        for line in self._lines:
            report.faults += line.told
        report.conflicts = sum(r.log.read_text(errors="replace").count('"conflict"') for r in self._replicas)

    def _look_for_processes(self) -> None:
        """Nothing that was started for this campaign is left; an orphaned worker has a moment to notice."""
        until = time.monotonic() + 10
        while (left := _processes(self.folder)) and time.monotonic() < until:
            time.sleep(0.1)
        self.report.findings.wrong += [f"a process is left: {words}" for words in left]


def _processes(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            command = (process / "cmdline").read_bytes()
            if str(folder).encode() in command + (process / "environ").read_bytes():
                found.append(f"{process.name} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found
