"""What a daemon needs is away for a while: it says so plainly, stays alive, loses nothing, and goes on."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Protocol

import httpx
import pytest

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.ports import Recorded, TransientError
from tests.chaos import judge
from tests.chaos.proxy import PEACE, Faults, Line
from tests.chaos.replica import Nursery, Replica
from tests.chaos.world import World
from tests.postgres import PostgresServer

pytestmark = pytest.mark.system

DISK_BYTES = 8 << 20
SMALL_FILE_BYTES = 256 << 10


class Installation:
    """One replica in a world, and what its operator sees of it."""

    def __init__(self, world: World, line: Line, replica: Replica, ledger: str, port: int) -> None:
        self.world, self.line, self.replica, self.ledger = world, line, replica, ledger
        self._url = f"http://127.0.0.1:{port}"

    async def start(self) -> None:
        await self.replica.start()
        await self.becomes(self.is_live)

    async def is_live(self) -> bool:
        async with httpx.AsyncClient() as client:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get(f"{self._url}/livez", timeout=5)).status_code == httpx.codes.OK
        return False

    async def feed(self, seconds: float, *, rate: float = 20.0) -> None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            await self.world.tell(int(rate / 4), now)
            await asyncio.sleep(0.25)

    async def decisions(self) -> list[Recorded]:
        ledger = await SqlLedger.open(self.ledger, read_only=True)
        try:
            return list(await ledger.decisions(None, limit=judge.ALL))
        finally:
            await ledger.close()

    async def is_decided(self) -> bool:
        """Everything that was sent, and nothing waits."""
        with contextlib.suppress(TransientError):
            if not judge.missing(self.world.sent.identities, await self.decisions()):
                return not await self.world.waiting(self.world.queue)
        return False

    def said(self) -> str:
        return self.replica.log.read_text(errors="replace")

    async def in_hand(self) -> int:
        name = "ApproximateNumberOfMessagesNotVisible"
        answer = await self.world.sqs.get_queue_attributes(QueueUrl=self.world.queue, AttributeNames=[name])
        return int(answer["Attributes"][name])

    async def becomes(self, condition: Callable[[], object], *, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            assert time.monotonic() < until, f"not so within {seconds:g} s:\n{self.said()[-3000:]}"
            await asyncio.sleep(0.1)

    async def nothing_is_wrong(self) -> None:
        found = judge.Findings()
        decisions, executions = await self.decisions(), await self.world.executions()
        judge.decided(found, self.world.sent.identities, decisions)
        judge.chained(found, decisions)
        judge.one_at_a_time(found, executions)
        assert not found.doubled + found.lost + found.wrong, str(found)


@asynccontextmanager
async def installed(folder: Path, ledger: str, **settings: str) -> AsyncIterator[Installation]:
    """A daemon that runs and has decided something already."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]

    async def nobody(_: str) -> None: ...

    async with (
        World(folder / "world", Random(1)) as world,  # noqa: S311
        Nursery(folder / "nursery.log") as nursery,
        Line(world.endpoint_url, Random(2), set(), nobody) as line,  # noqa: S311
    ):
        mine = {"RETRAINER_LEDGER": ledger, "RETRAINER_HTTP_PORT": str(port), **settings}
        replica = Replica(nursery, world.environment(line.url) | mine, folder / "daemon.log")
        house = Installation(world, line, replica, ledger, port)
        await house.start()
        try:
            await house.feed(1)
            await house.becomes(house.is_decided)
            yield house
        finally:
            status = await replica.stop()
        assert status == 0, house.said()[-3000:]


# --- PostgreSQL ---


@pytest.mark.parametrize("outage", ["restart", "crash"])
async def test_a_lost_database_is_told_of_and_waited_for(
    tmp_path: Path, postgres_server: PostgresServer, outage: str
) -> None:
    async with installed(tmp_path, postgres_server.database(f"outage_{outage}")) as house:
        feeding = asyncio.create_task(house.feed(4))
        await asyncio.sleep(1)
        await asyncio.to_thread(postgres_server.stop if outage == "restart" else postgres_server.crash)
        await house.becomes(lambda: "task_failed" in house.said())
        assert await house.is_live()
        await feeding
        assert await house.is_live()
        await asyncio.to_thread(postgres_server.start)
        await house.becomes(house.is_decided)
        await house.nothing_is_wrong()
        assert "Traceback" not in house.said()


# --- a full disk ---


class Disk(Protocol):
    """Where a ledger is kept, and how it is filled up and freed while the daemon with this process id runs."""

    folder: Path

    def fill(self, pid: int) -> None: ...

    def free(self, pid: int) -> None: ...


class SmallDisk:
    """A real file system of its own, in memory: ENOSPC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        with contextlib.suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass

    def free(self, pid: int) -> None:
        (self.folder / "ballast").unlink()


class SmallFiles:
    """A limit on the size of the process's files, where nothing can be mounted: EFBIG."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL_FILE_BYTES, resource.RLIM_INFINITY))

    def free(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A file system of 8 MiB if this user may mount one, else files that may not grow."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        yield SmallFiles(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_told_of_and_nothing_is_lost_or_damaged(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        await _on_a_full_disk(tmp_path, disk)


async def test_a_ledger_that_may_not_grow_is_told_of_and_nothing_is_lost_or_damaged(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    await _on_a_full_disk(tmp_path, SmallFiles(tmp_path / "disk"))


async def _on_a_full_disk(tmp_path: Path, disk: Disk) -> None:
    path = disk.folder / "ledger.db"
    async with installed(tmp_path, f"sqlite:///{path}", RETRAINER_LOG_LEVEL="warning") as house:
        assert house.replica.pid
        disk.fill(house.replica.pid)
        feeding = asyncio.create_task(house.feed(5))
        await house.becomes(lambda: any(words in house.said() for words in ("disk is full", "disk I/O error")))
        assert await house.is_live()
        await feeding
        assert await house.is_live()
        undecided = judge.missing(house.world.sent.identities, await house.decisions())
        disk.free(house.replica.pid)
        assert undecided, "the disk was never full"
        await house.becomes(house.is_decided)
        await house.nothing_is_wrong()
        found = judge.Findings()
        judge.intact(found, path)
        assert not found.wrong
        assert str(path) in house.said()
        assert "Traceback" not in house.said()


# --- being told to end ---


# No reply is lost here: what a lost ReceiveMessage took with it, nobody can give back.
THROTTLED = Faults(ambiguous=0, throttled=0.33, duplicated=0)


@pytest.mark.parametrize(
    ("service", "faults"), [(None, PEACE), ("states", PEACE), ("s3", PEACE), (None, THROTTLED)], ids=str
)
async def test_sigterm_in_mid_traffic_leaves_no_message_invisible(
    tmp_path: Path, service: str | None, faults: Faults
) -> None:
    async with installed(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}") as house:
        for _ in range(3):
            house.line.throttled_service, house.line.faults = service, faults
            await house.feed(1, rate=80)
            assert await house.replica.stop() == 0
            assert await house.in_hand() == 0
            house.line.throttled_service, house.line.faults = None, PEACE
            await house.start()
        await house.becomes(house.is_decided)
        await house.nothing_is_wrong()


# --- the evidence worker ---


async def test_a_hung_worker_holds_nothing_else_up(tmp_path: Path) -> None:
    async with installed(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}") as house:
        for _ in range(8):
            await house.world.put()
        await house.becomes(house.world.executions)
        worker = _worker_of(house.replica.pid)
        os.kill(worker, signal.SIGSTOP)
        try:
            known = len(await house.world.executions())
            for _ in range(4):
                await house.world.put()
            await house.feed(3)
            await house.becomes(house.is_decided)
            assert len(await house.world.executions()) > known
            assert await house.is_live()
        finally:
            os.kill(worker, signal.SIGKILL)
        await house.nothing_is_wrong()


def _worker_of(pid: int | None) -> int:
    """The daemon's child process that measures."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for listed in children for child in listed.read_text().split()]
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return next(child for child, command in commands.items() if b"retrainer.worker" in command)
