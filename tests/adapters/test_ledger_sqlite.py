"""What the ledger promises of its SQLite file: it survives, it is one process's, and it says what is wrong with it."""

import asyncio
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.core.decide import decide
from retrainer.core.record import digest, dump, load_event
from retrainer.core.state import ModelState
from retrainer.ports import Committed, ConfigError, TransientError
from tests.fakes.story import ARN, START, Story, arrived, decided, failed, policy_of, promoted, started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SqlLedger]:
    opened = await SqlLedger.open(f"sqlite:///{path}", busy_seconds=0.2)
    yield opened
    await opened.close()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def test_everything_survives_closing_and_opening_again(path: Path, ledger: SqlLedger) -> None:
    story = Story(ledger)
    name = await story.running()
    await ledger.see("recommender", "nightly", START)
    state, told, counts = await ledger.state("recommender"), await ledger.decision(name), await ledger.counts()
    await ledger.close()
    again = await SqlLedger.open(f"sqlite:///{path}")
    assert await again.state("recommender") == state
    assert await again.decision(name) == told
    assert await again.counts() == counts
    assert await again.seen_until("recommender", "nightly") == START
    assert await again.commit([await Story(again).entry(started(name))]) == [Committed.DUPLICATE]
    await again.close()


async def test_an_execution_is_followed_from_planned_to_its_end(path: Path, ledger: SqlLedger) -> None:
    story = Story(ledger)
    followed = "SELECT name, generation, attempt, decision, status, arn, started_at > planned_at, outcome, cause "
    query = followed + "FROM executions ORDER BY generation"
    first = await story.planned()
    assert rows(path, query) == [(first, 1, 1, "recommender-3", "PLANNED", None, None, None, None)]
    await story.tell(started(first))
    assert rows(path, query) == [(first, 1, 1, "recommender-3", "RUNNING", f"{ARN}:{first}", 1, None, None)]
    retried = (await story.tell(failed(first))).decision.state.execution
    assert retried
    ended = (first, 1, 1, "recommender-3", "FAILED", f"{ARN}:{first}", 1, None, "CapacityError: none left")
    assert rows(path, query) == [ended, (retried.name, 2, 2, "recommender-5", "PLANNED", None, None, None, None)]
    await story.tell(started(retried.name))
    last = promoted(retried.name)
    await story.tell(last)
    assert last.outcome
    found = rows(path, "SELECT status, outcome, ended_at > started_at FROM executions WHERE generation = 2")
    assert found == [("SUCCEEDED", dump(last.outcome), 1)]


async def test_why_an_effect_was_postponed_is_kept(path: Path, ledger: SqlLedger) -> None:
    await ledger.postpone(await Story(ledger).planned(), START, "throttled")
    assert rows(path, "SELECT last_error FROM effects WHERE status = 'owed'") == [("throttled",)]


@pytest.mark.parametrize(
    "forged",
    [
        "UPDATE executions SET name = 'a', decision = 'recommender-1', status = 'FAILED'",
        "UPDATE executions SET name = 'a', generation = 2",
        "UPDATE executions SET name = 'a', generation = 2, status = 'PLANNED'",
        "UPDATE executions SET generation = 2, status = 'FAILED'",
        "UPDATE decisions SET id = 'a', event_identity = 'schedule:s'",
        "UPDATE decisions SET id = 'a', version = 9",
        "UPDATE events SET recorded_at = 0",
        "UPDATE effects SET status = 'done'",
    ],
)
async def test_the_database_itself_forbids_a_double(path: Path, ledger: SqlLedger, forged: str) -> None:
    """A copy of the newest row, changed as little as makes it another: one key at least still says no."""
    await Story(ledger).running()
    table = forged.split()[1]
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute(f"CREATE TEMP TABLE copy AS SELECT * FROM main.{table} ORDER BY rowid DESC LIMIT 1")  # noqa: S608
        raw.execute(forged.replace(table, "copy", 1))
        if table in ("decisions", "effects"):
            raw.execute("UPDATE copy SET number = NULL")
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            raw.execute(f"INSERT INTO main.{table} SELECT * FROM copy")  # noqa: S608


def commits_in_wal(path: Path) -> int:
    """Transactions in the write-ahead log: frames whose header has a database size (sqlite.org/fileformat2, 4.1)."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    (page_bytes,) = struct.unpack(">I", log[8:12])
    frames = range(32, len(log), 24 + page_bytes)
    return sum(struct.unpack(">I", log[start + 4 : start + 8])[0] > 0 for start in frames)


async def test_commits_that_wait_for_the_disk_share_a_transaction(path: Path, ledger: SqlLedger) -> None:
    entries = [decided(ModelState(model=f"model-{n}"), arrived(f"model-{n}", 1), START) for n in range(60)]
    before = commits_in_wal(path)
    committed = await asyncio.gather(*(ledger.commit([entry]) for entry in entries))
    assert committed == [[Committed.NEW]] * 60
    # The first may go alone while the others gather behind it.
    assert commits_in_wal(path) - before <= 3


async def test_a_commit_is_synced_to_a_write_ahead_log(path: Path, ledger: SqlLedger) -> None:
    writer = ledger._database.writer
    assert writer
    with writer.begin() as connection:
        asked = [connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")]
    assert asked == ["wal", 2]


async def test_only_its_owner_may_read_the_file(path: Path, ledger: SqlLedger) -> None:
    await Story(ledger).planned()
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir() if "lock" not in file.name}
    assert modes == {"ledger.db": "0o600", "ledger.db-wal": "0o600", "ledger.db-shm": "0o600"}


COMMITTING = """
import asyncio, sys
from retrainer.adapters.ledger_sql import SqlLedger
from tests.fakes.story import Story, arrived, failed, measured, requested, started

async def live(ledger, model):
    story = Story(ledger, model)
    while True:
        state = await ledger.state(model)
        version, execution, measuring = state.version, state.execution, state.measuring
        if measuring:
            await story.tell(measured(measuring, *state.window), completes=measuring)
        elif execution and execution.status == "PLANNED":
            await story.tell(started(execution.name), completes=execution.name)
        elif execution:
            await story.tell(failed(execution.name))
        elif version % 3:
            await story.tell(requested(f"r{version}"))
        else:
            await story.tell(arrived(model, version))
        print(model, version + 1, flush=True)

async def main():
    ledger = await SqlLedger.open(sys.argv[1])
    await asyncio.gather(*(live(ledger, f"model-{n}") for n in range(8)))

asyncio.run(main())
"""

FORKING = """
import asyncio, os, sys, time
from retrainer.adapters.ledger_sql import SqlLedger

async def main():
    ledger = await SqlLedger.open(sys.argv[1])
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
        os._exit(0)
    print(worker, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@contextmanager
def child(program: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A real process on the ledger; killed with SIGKILL at the end, if not before."""
    command = [sys.executable, "-c", program, f"sqlite:///{path}"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.system
async def test_after_kill_9_every_acknowledged_commit_is_there_and_nothing_half(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for kill_after in (53, 150):
        with child(COMMITTING, path) as process:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(kill_after)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        # The last line may be half; the others are what the dead process was told is on disk.
        whole = [line.split() for line in lines if line.endswith("\n")]
        acknowledged |= {model: int(version) for model, version in whole}
        ledger = await SqlLedger.open(f"sqlite:///{path}")
        for model, version in acknowledged.items():
            assert (await ledger.state(model)).version >= version
            await replay(ledger, model)
        await ledger.close()
    assert len(acknowledged) == 8
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "PRAGMA foreign_key_check") == []


async def replay(ledger: SqlLedger, model: str) -> None:
    """What the ledger holds of a model is what its events, decided again from the first, come to: nothing is half."""
    state = ModelState(model=model)
    for told in reversed(await ledger.decisions(model, limit=10_000)):
        decision = decide(policy_of(model), state, load_event(told.event_kind, told.event), told.at)
        state = decision.state
        assert (told.id, told.reason, told.state_hash_after) == (decision.id, decision.reason, digest(dump(state)))
        assert [key for key, _, _ in told.effects] == [effect.key for effect in decision.effects]
    assert await ledger.state(model) == state


@pytest.mark.system
async def test_a_killed_process_gives_up_its_lock_even_while_its_forked_worker_lives(path: Path) -> None:
    with child(FORKING, path) as process:
        assert process.stdout
        worker = int(process.stdout.readline())
        try:
            with pytest.raises(ConfigError, match=f"process {process.pid} is using this ledger"):
                await SqlLedger.open(f"sqlite:///{path}")
            process.kill()
            process.wait()
            os.kill(worker, 0)
            await (await SqlLedger.open(f"sqlite:///{path}")).close()
        finally:
            os.kill(worker, signal.SIGKILL)


# --- one process writes, others read ---


async def test_a_second_opener_is_refused_with_the_firsts_pid_and_the_file(path: Path, ledger: SqlLedger) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(ConfigError) as refused:
            await SqlLedger.open(f"sqlite:///{name}")
        assert f"{path}: process {os.getpid()} is using this ledger" in str(refused.value)
    assert await Story(ledger).planned()


async def test_a_reader_sees_what_a_running_writer_commits_and_cannot_write(path: Path, ledger: SqlLedger) -> None:
    reader = await SqlLedger.open(f"sqlite:///{path}", read_only=True)
    name = await Story(ledger).planned()
    assert await reader.decision(name) == await ledger.decision(name)
    assert await reader.counts() == await ledger.counts()
    with pytest.raises(TransientError, match="read only"):
        await reader.see("recommender", "nightly", START)
    await reader.close()


async def test_a_reader_needs_no_running_writer(path: Path, ledger: SqlLedger) -> None:
    name = await Story(ledger).planned()
    await ledger.close()
    reader = await SqlLedger.open(f"sqlite:///{path}", read_only=True)
    assert await reader.decision(name)
    await reader.close()


async def test_what_was_handed_in_before_closing_is_written_and_nothing_after(path: Path) -> None:
    ledger = await SqlLedger.open(f"sqlite:///{path}")
    story = Story(ledger)
    entry = await story.entry(arrived("recommender", 1))
    commit = asyncio.ensure_future(ledger.commit([entry]))
    await asyncio.sleep(0)
    await asyncio.gather(ledger.close(), ledger.close())
    assert await commit == [Committed.NEW]
    for late in (ledger.commit([entry]), ledger.counts()):
        with pytest.raises(TransientError, match="closed"):
            await late


# --- trouble ---


async def test_a_strangers_lock_delays_and_then_says_so_and_passes(path: Path, ledger: SqlLedger) -> None:
    entry = await Story(ledger).entry(arrived("recommender", 1))
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="locked") as refused:
            await ledger.commit([entry])
        assert refused.value.__cause__
        assert not await ledger.known("recommender", [entry.event.identity])
        stranger.execute("ROLLBACK")
    assert await ledger.commit([entry]) == [Committed.NEW]


async def test_a_caller_that_gave_up_waiting_harms_nobody(ledger: SqlLedger) -> None:
    stories = [Story(ledger, f"model-{n}") for n in range(3)]
    entries = [await story.entry(arrived(story.model, 1)) for story in stories]
    commits = [asyncio.ensure_future(ledger.commit([entry])) for entry in entries]
    await asyncio.sleep(0)
    commits[1].cancel()
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert [results[0], results[2]] == [[Committed.NEW], [Committed.NEW]]
    assert isinstance(results[1], asyncio.CancelledError)
    assert await ledger.commit([entries[1]]) == [Committed.DUPLICATE]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("ledger.db", "is not the URL of a ledger; write sqlite:///"),
        ("sqlite://", "is no ledger this version can keep; write sqlite:///"),
        ("sqlite:///:memory:", "is no ledger this version can keep; write sqlite:///"),
        ("mysql://ana:secret@db/ledger", r"mysql://ana:\*\*\*@db/ledger is no ledger this version can keep; write"),
        ("postgresql://ana:secret@db", r"postgresql://ana:\*\*\*@db is no ledger this version can keep; write"),
        ("postgresql://ana:secret@db:port/ledger", "'postgresql:...@db:port/ledger' is not the URL of a ledger; write"),
        ("sqlite:////no/such/directory/ledger.db", "there is no directory /no/such/directory; make it"),
    ],
)
async def test_a_wrong_url_is_answered_with_what_to_write(url: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        await SqlLedger.open(url)


async def test_reading_a_ledger_that_is_not_there_makes_none(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no ledger here"):
        await SqlLedger.open(f"sqlite:///{path}", read_only=True)
    assert [*path.parent.iterdir()] == []


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_text("model,version\n" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        asyncio.run(SqlLedger.open(f"sqlite:///{path}"))
    assert path.read_text() == "model,version\n" * 100


@pytest.mark.parametrize(("taken", "wanted"), [("ledger.db", "unable to open"), ("ledger.db.lock", "write there")])
async def test_a_file_that_cannot_be_opened_is_named(path: Path, taken: str, wanted: str) -> None:
    path.with_name(taken).mkdir()
    with pytest.raises(ConfigError, match=f"{path}.*{wanted}"):
        await SqlLedger.open(f"sqlite:///{path}")


def overwritten(path: Path) -> None:
    """Spoils the tables of decisions and events, and leaves those that opening looks at."""
    roots = rows(path, "SELECT rootpage FROM sqlite_master WHERE tbl_name IN ('decisions', 'events')")
    ((page_bytes,),) = rows(path, "PRAGMA page_size")
    assert isinstance(page_bytes, int)
    with path.open("r+b") as file:
        for (root,) in roots:
            assert isinstance(root, int)
            file.seek((root - 1) * page_bytes)
            file.write(b"\xff" * page_bytes)


async def test_a_damaged_file_is_said_to_be_damaged(path: Path, ledger: SqlLedger) -> None:
    entry = await Story(ledger).tell(arrived("recommender", 1))
    await ledger.close()
    overwritten(path)
    again = await SqlLedger.open(f"sqlite:///{path}")
    for attempt in (again.decisions(None, limit=9), again.commit([entry])):
        with pytest.raises(ConfigError, match=f"{path}: database disk image is malformed; it is damaged"):
            await attempt
    await again.close()


async def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE invoices (number INTEGER)")
    with pytest.raises(ConfigError, match="this database is no ledger; name another one"):
        await SqlLedger.open(f"sqlite:///{path}")
    assert rows(path, "SELECT name FROM sqlite_master") == [("invoices",)]
