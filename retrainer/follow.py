"""The observer: follows every running execution to its end. Level, not edge: a lost status message only delays it."""

import asyncio
from collections.abc import Collection
from datetime import timedelta

from retrainer.core.events import ExecutionEnded
from retrainer.core.execution import Execution, Status
from retrainer.loop import Loop, NoPolicyError
from retrainer.pacing import pause
from retrainer.ports import Clock, Engine, Ledger, PermanentError, Telemetry, TransientError, UnknownExecutionError

EVERY_SECONDS = 15.0
LEAST_SECONDS = 1.0
"""Between two looks, however often the observer is woken; DescribeExecution refills at 15 a second in most regions
(https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html)."""

AT_ONCE_MAX = 8
KNOWN_WITHIN = timedelta(minutes=5)
"""How long after its start an execution may still be unknown: DescribeExecution is eventually consistent
(https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html). Believing it at once would
start a second retraining beside the first."""


class Observer:
    """Compares what the ledger believes to be running with the engine's list, and asks about what is missing there."""

    def __init__(
        self,
        *,
        loop: Loop,
        ledger: Ledger,
        engine: Engine,
        telemetry: Telemetry,
        clock: Clock,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._engine = engine
        self._telemetry = telemetry
        self._clock = clock
        self._every_seconds = every_seconds
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look at the start, on the interval and when woken, until `stopping` is set. May be cancelled at any time."""
        while not stopping.is_set():
            self._loop.executions_moved.clear()
            try:
                await self.look()
            except Exception as error:  # it is looked again, and what is running stays known
                self._telemetry.failed("observer", error)
            await asyncio.sleep(LEAST_SECONDS)
            await pause(self._loop.executions_moved, self._every_seconds - LEAST_SECONDS)

    async def look(self) -> None:
        """Take the end of every execution that has ended. Raises TransientError when the ledger cannot be read."""
        active = await self._ledger.active()
        # One without an ARN runs too, an approval request said so; its start is still the outbox's, which learns it.
        known = {
            execution.arn: (model, execution)
            for model, state in active.items()
            if (execution := state.execution) and execution.status is Status.RUNNING and execution.arn
        }
        running = await self._running(known.keys())
        await asyncio.gather(*(self._follow(arn, *known[arn], listed=arn in running) for arn in known))

    async def _running(self, arns: Collection[str]) -> Collection[str]:
        """Those listed as running; none when there is no list, so that each is asked about."""
        if not arns:
            return ()
        try:
            return await self._engine.running(arns)
        except (TransientError, PermanentError) as error:
            self._telemetry.failed("observer", error)
            return ()

    async def _follow(self, arn: str, model: str, execution: Execution, *, listed: bool) -> None:
        try:
            async with self._at_once:
                ended = None if listed else await self._ended(arn, execution)
                if ended is None and execution.approval:
                    # The state machine gives up asking a person when the daemon, which holds the question, is gone.
                    await self._engine.heartbeat(execution.approval.task_token)
            if ended:
                await self._loop.take(model, ended)
        except NoPolicyError:
            # Nothing can be decided for it now; its end is still there to be seen when it has a policy again.
            return
        except Exception as error:  # one execution must not stop the others from being followed
            self._telemetry.failed("observer", error)

    async def _ended(self, arn: str, execution: Execution) -> ExecutionEnded | None:
        try:
            return await self._engine.ended(arn)
        except UnknownExecutionError as error:
            if self._clock.now() - (execution.started_at or execution.planned_at) < KNOWN_WITHIN:
                return None
            return ExecutionEnded(execution=execution.name, status=Status.ABORTED, cause=str(error))
