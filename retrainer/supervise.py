"""Keeps the daemon's tasks going: one that fails is told of and started again, and all end in order at a drain."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import IntEnum
from random import Random

from retrainer.pacing import backoff_seconds, pause
from retrainer.ports import Telemetry

BACKOFF_CAP_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A task that ran this long before it failed starts its backoff anew."""

LAG_EVERY_SECONDS = 1.0


class Stage(IntEnum):
    """When a task ends at a drain. INTAKE and OUTBOX are asked to stop, and finish; BACKGROUND is cancelled."""

    INTAKE = 1
    OUTBOX = 2
    BACKGROUND = 3


class EndedError(Exception):
    """A task ended though nobody had asked it to."""


class Supervisor:
    """Runs named tasks. `ready` is set by whoever has started the last of them, and false from a drain on."""

    def __init__(
        self,
        *,
        telemetry: Telemetry,
        random: Random | None = None,
        lag_every_seconds: float = LAG_EVERY_SECONDS,
    ) -> None:
        self._telemetry = telemetry
        self._random = random or Random()  # noqa: S311 - it spreads retries, it guards nothing
        self._lag_every_seconds = lag_every_seconds
        self._stopping = {stage: asyncio.Event() for stage in Stage}
        self._tasks: dict[Stage, list[asyncio.Task[None]]] = {stage: [] for stage in Stage}
        self.ready = False
        self.lag_seconds = 0.0
        """How late the event loop last was; what /livez judges by, together with `Loop.last_poll_at`."""

    def start(self, name: str, stage: Stage, run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Run `run(stopping)` now and again until the drain reaches its stage."""
        task = asyncio.create_task(self._keep(name, run, self._stopping[stage]), name=name)
        self._tasks[stage].append(task)

    async def watch_lag(self, stopping: asyncio.Event) -> None:
        """Keep `lag_seconds` up to date; a task for the background."""
        loop = asyncio.get_running_loop()
        while not stopping.is_set():
            due = loop.time() + self._lag_every_seconds
            await asyncio.sleep(self._lag_every_seconds)
            self.lag_seconds = max(0.0, loop.time() - due)

    async def drain(self, timeout_seconds: float) -> Iterable[str]:
        """Stop taking in, finish what is in hand, then stop the rest.

        Returns the names of the tasks that had to be cancelled because the time was up; none when all went well. The
        long poll and the work in hand both have to fit into `timeout_seconds`.
        """
        self.ready = False
        until = asyncio.get_running_loop().time() + timeout_seconds
        late: list[str] = []
        for stage in (Stage.INTAKE, Stage.OUTBOX):
            self._stopping[stage].set()
            late += await self._ended(self._tasks[stage], until)
        self._stopping[Stage.BACKGROUND].set()
        await self._cancel(self._tasks[Stage.BACKGROUND])
        return late

    async def _ended(self, tasks: list[asyncio.Task[None]], until: float) -> list[str]:
        if not tasks:
            return []
        left = max(0.0, until - asyncio.get_running_loop().time())
        _, pending = await asyncio.wait(tasks, timeout=left)
        await self._cancel(pending)
        return sorted(task.get_name() for task in pending)

    async def _cancel(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        tasks = list(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, name: str, run: Callable[[asyncio.Event], Awaitable[None]], stopping: asyncio.Event) -> None:
        """Start it again whenever it fails, or ends unasked: a consumer that ends silently is found out by nobody."""
        failures = 0
        while not stopping.is_set():
            started = asyncio.get_running_loop().time()
            error: Exception = EndedError(f"{name} ended by itself")
            try:
                await run(stopping)
            except Exception as failure:  # whatever it is, the others go on and this one starts again
                error = failure
            else:
                if stopping.is_set():
                    return
            steady = asyncio.get_running_loop().time() - started >= STEADY_SECONDS
            failures = 1 if steady else failures + 1
            self._telemetry.failed(name, error)
            seconds = backoff_seconds(failures, cap_seconds=BACKOFF_CAP_SECONDS, random=self._random)
            await pause(stopping, seconds)
