"""Tasks that fail start again, and all end in order."""

import asyncio
import time

import pytest

from retrainer.supervise import Stage, Supervisor
from tests.fakes.telemetry import KeepingTelemetry
from tests.loop.house import House, World

pytestmark = pytest.mark.looptime


async def test_a_task_that_fails_is_told_of_and_started_again() -> None:
    async def run(stopping: asyncio.Event) -> None:
        runs.append(asyncio.get_running_loop().time())
        if len(runs) < 4:
            raise ValueError("broken")
        await stopping.wait()

    runs: list[float] = []
    told = KeepingTelemetry()
    supervisor = Supervisor(telemetry=told)
    supervisor.start("worker", Stage.OUTBOX, run)
    await asyncio.sleep(60)
    assert len(runs) == 4
    assert told.failures == [("worker", "broken")] * 3
    assert list(await supervisor.drain(1)) == []


async def test_a_task_that_ends_by_itself_is_started_again() -> None:
    async def run(stopping: asyncio.Event) -> None:
        runs.append(1)
        if len(runs) > 1:
            await stopping.wait()

    runs: list[int] = []
    told = KeepingTelemetry()
    supervisor = Supervisor(telemetry=told)
    supervisor.start("poll", Stage.INTAKE, run)
    await asyncio.sleep(60)
    assert len(runs) == 2
    assert told.failures == [("poll", "poll ended by itself")]
    await supervisor.drain(1)


async def test_the_intake_ends_before_the_outbox_and_the_outbox_before_the_rest() -> None:
    def runs(name: str, seconds: float) -> None:
        async def run(stopping: asyncio.Event) -> None:
            try:
                await stopping.wait()
                await asyncio.sleep(seconds)
            finally:
                ended.append(name)

        supervisor.start(name, Stage[name], run)

    ended: list[str] = []
    supervisor = Supervisor(telemetry=KeepingTelemetry())
    runs("BACKGROUND", 0)
    runs("OUTBOX", 1)
    runs("INTAKE", 5)
    supervisor.ready = True
    await asyncio.sleep(1)
    draining = asyncio.create_task(supervisor.drain(10))
    await asyncio.sleep(0.1)
    assert not supervisor.ready
    await draining
    assert ended == ["INTAKE", "OUTBOX", "BACKGROUND"]


async def test_a_task_that_does_not_end_in_time_is_cancelled_and_named() -> None:
    async def run(stopping: asyncio.Event) -> None:
        await asyncio.sleep(1_000_000)

    supervisor = Supervisor(telemetry=KeepingTelemetry())
    supervisor.start("stubborn", Stage.INTAKE, run)
    await asyncio.sleep(1)
    started = asyncio.get_running_loop().time()
    assert list(await supervisor.drain(25)) == ["stubborn"]
    assert asyncio.get_running_loop().time() - started == pytest.approx(25)


async def test_nothing_is_left_running_after_a_drain() -> None:
    before = asyncio.all_tasks()
    async with House(World()).alive():
        await asyncio.sleep(100)
    assert asyncio.all_tasks() == before


def test_a_blocked_event_loop_is_seen_as_lag() -> None:
    async def blocked() -> float:
        supervisor = Supervisor(telemetry=KeepingTelemetry(), lag_every_seconds=0.01)
        supervisor.start("lag", Stage.BACKGROUND, supervisor.watch_lag)
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 - blocking is what this is about
        async with asyncio.timeout(5):
            while not supervisor.lag_seconds:  # noqa: ASYNC110 - an attribute, not an event
                await asyncio.sleep(0)
        lag_seconds = supervisor.lag_seconds
        await supervisor.drain(1)
        return lag_seconds

    assert asyncio.run(blocked()) >= 0.08
