"""The observer: follows every running execution to its end. Level, not edge: a lost status message only delays it."""

import asyncio

from retrainer.core.execution import Execution, Status
from retrainer.loop import Loop, NoPolicyError
from retrainer.pacing import pause
from retrainer.ports import Engine, Ledger, Telemetry

EVERY_SECONDS = 15.0
LEAST_SECONDS = 1.0
"""Between two looks, however often the observer is woken; DescribeExecution refills at 15 a second in most regions
(https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html)."""

AT_ONCE_MAX = 8


class Observer:
    """Asks the engine about every execution that the ledger believes to be running."""

    def __init__(
        self,
        *,
        loop: Loop,
        ledger: Ledger,
        engine: Engine,
        telemetry: Telemetry,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._engine = engine
        self._telemetry = telemetry
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
        running = [
            (model, state.execution)
            for model, state in active.items()
            if state.execution and state.execution.status is Status.RUNNING
        ]
        await asyncio.gather(*(self._follow(model, execution) for model, execution in running))

    async def _follow(self, model: str, execution: Execution) -> None:
        if execution.arn is None:
            # It runs, an approval request said so; its start is still the outbox's, which will learn the ARN.
            return
        try:
            async with self._at_once:
                ended = await self._engine.ended(execution.arn)
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
