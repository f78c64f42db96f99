"""What the ledger promises of PostgreSQL: replicas share it, and an outage of the server loses and doubles nothing."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.adapters.ledger_sql.database import ContendedError
from retrainer.adapters.ledger_sql.postgres import PostgresDatabase
from retrainer.core.state import ModelState
from retrainer.ports import Committed, ConfigError, Entry, PermanentError, Quarantined, TransientError
from tests.fakes.story import START, Story, arrived, decided, requested, started
from tests.postgres import PASSWORD, PostgresServer

HOUR = timedelta(hours=1)


@pytest.fixture
def server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """Up again after the test, whatever the test did to it."""
    yield postgres_server
    postgres_server.resume()
    if not postgres_server.is_up():
        postgres_server.start()


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.schema()


@asynccontextmanager
async def opened(url: str, count: int = 1) -> AsyncIterator[list[SqlLedger]]:
    ledgers = [await SqlLedger.open(url) for _ in range(count)]
    try:
        yield ledgers
    finally:
        await asyncio.gather(*(ledger.close() for ledger in ledgers))


# --- replicas ---


async def test_of_replicas_deciding_on_one_state_at_once_one_is_first(url: str) -> None:
    async with opened(url, 3) as replicas:
        for model in ("new", "new-too"):
            rivals = [await Story(ledger, model).entry(requested(f"r{n}")) for n, ledger in enumerate(replicas)]
            verdicts = await asyncio.gather(*(a.commit([rival]) for a, rival in zip(replicas, rivals, strict=True)))
            assert sorted(verdict for (verdict,) in verdicts) == [Committed.CONFLICT, Committed.CONFLICT, Committed.NEW]
            states = [await ledger.state(model) for ledger in replicas]
            assert {state.version for state in states} == {1}


async def test_one_event_that_reaches_every_replica_is_decided_once(url: str) -> None:
    async with opened(url, 3) as replicas:
        entries = [await Story(ledger).entry(arrived("recommender", 1)) for ledger in replicas]
        verdicts = await asyncio.gather(*(a.commit([entry]) for a, entry in zip(replicas, entries, strict=True)))
        assert sorted(verdict for (verdict,) in verdicts) == [Committed.DUPLICATE, Committed.DUPLICATE, Committed.NEW]
        assert (await replicas[0].counts())["decisions"] == 1


async def _brings_about(ledger: SqlLedger, models: list[str], seed: int) -> int:
    """A replica that takes the same facts as the others, each model's in order, models as chance has it."""
    random, new = Random(seed), 0  # noqa: S311
    left = {model: list(range(4)) for model in models}
    while left:
        chosen = random.sample(sorted(left), min(5, len(left)))
        chains: list[list[Entry]] = []
        for model in chosen:
            state, chain = await ledger.state(model), []
            for number in left[model][:2]:
                chain.append(decided(state, arrived(model, number), START))
                state = chain[-1].decision.state
            chains.append(chain)
        verdicts = await asyncio.gather(*(ledger.commit(chain) for chain in chains))
        for model, chain, answers in zip(chosen, chains, verdicts, strict=True):
            new += answers.count(Committed.NEW)
            taken = [entry for entry, answer in zip(chain, answers, strict=True) if answer is not Committed.CONFLICT]
            left[model] = left[model][len(taken) :]
            if not left[model]:
                del left[model]
    return new


async def test_replicas_with_the_same_events_for_twenty_models_decide_each_once_and_never_deadlock(url: str) -> None:
    models = [f"model-{number}" for number in range(20)]
    async with opened(url, 3) as replicas:
        new = await asyncio.gather(*(_brings_about(ledger, models, seed) for seed, ledger in enumerate(replicas)))
        assert sum(new) == 80
        counts = await replicas[0].counts()
        assert (counts["events"], counts["decisions"], counts["model_state"]) == (80, 80, 20)
        assert {(await replicas[1].state(model)).version for model in models} == {4}


async def test_replicas_asking_at_once_never_lease_the_same_effect(url: str) -> None:
    async with opened(url, 3) as replicas:
        entries = [decided(ModelState(model=f"m{n}"), arrived(f"m{n}", 1), START) for n in range(60)]
        assert await replicas[0].commit(entries) == [Committed.NEW] * 60
        keys: list[str] = []
        for _ in range(10):
            asked = (ledger.owed(START, limit=4, lease_seconds=60) for ledger in replicas for _ in range(2))
            keys += [owed.effect.key for leased in await asyncio.gather(*asked) for owed in leased]
        assert len(keys) == len(set(keys)) == 60
        assert await replicas[2].owed(START, limit=9, lease_seconds=60) == []


async def test_leases_outlive_who_has_them_until_they_run_out(url: str) -> None:
    async with opened(url) as (first,):
        entry = decided(ModelState(model="m"), arrived("m", 1), START, leased_until=START + HOUR)
        await first.commit([entry])
    async with opened(url) as (second,):
        assert await second.owed(START + HOUR / 2, limit=9, lease_seconds=60) == []
        assert [owed.tries for owed in await second.owed(START + HOUR, limit=9, lease_seconds=60)] == [2]


async def test_replicas_that_refuse_the_same_messages_at_once_keep_each_once(url: str) -> None:
    message = Quarantined(message_id="m", queue="q", received_at=START, why="no JSON", body="{")
    messages = [replace(message, message_id=f"m{number}") for number in range(30)]
    async with opened(url, 2) as (one, two):
        kept = [one.quarantine(m) for m in messages] + [two.quarantine(m) for m in reversed(messages)]
        await asyncio.gather(*kept)
        assert (await one.counts())["quarantine"] == 30


# --- outages ---


async def _until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110 - real work goes on meanwhile
        await asyncio.sleep(0)


async def _tells(ledger: SqlLedger, acknowledged: list[int], until: asyncio.Event) -> list[str]:
    """Commits one decision after the other, and goes on after every error; returns what the errors said."""
    said: list[str] = []
    state = ModelState(model="recommender")
    number = 0
    while not until.is_set():
        entry = decided(state, arrived("recommender", number), START)
        try:
            (verdict,) = await ledger.commit([entry])
            assert verdict in (Committed.NEW, Committed.DUPLICATE)
            if verdict is Committed.DUPLICATE:
                assert said, "it was committed although the caller was told nothing"
            state = entry.decision.state
            acknowledged.append(number)
            number += 1
        except TransientError as error:
            said.append(str(error))
    return said


@pytest.mark.system
@pytest.mark.parametrize("outage", ["restart", "crash"])
async def test_a_server_that_goes_and_comes_back_loses_nothing_that_was_acknowledged(
    server: PostgresServer, url: str, outage: str
) -> None:
    acknowledged: list[int] = []
    until = asyncio.Event()
    async with opened(url) as (ledger,):
        telling = asyncio.create_task(_tells(ledger, acknowledged, until))
        for _ in range(2):
            seen = len(acknowledged)
            await _until(lambda: len(acknowledged) >= seen + 20)  # noqa: B023
            await asyncio.to_thread(server.stop if outage == "restart" else server.crash)
            await asyncio.to_thread(server.start)
        seen = len(acknowledged)
        await _until(lambda: len(acknowledged) >= seen + 20)
        until.set()
        said = await telling
        assert said
        assert all(PASSWORD not in words for words in said)
        assert acknowledged == list(range(len(acknowledged)))
        assert (await ledger.state("recommender")).version == len(acknowledged)
        assert (await ledger.counts())["events"] == len(acknowledged)


async def test_a_server_that_is_away_is_said_to_be_and_a_reader_waits_for_it_too(
    server: PostgresServer, url: str
) -> None:
    async with opened(url) as (ledger,):
        story = Story(ledger)
        name = await story.planned()
        answer = await story.entry(started(name), completes=name)
        server.stop()
        for attempt in (
            ledger.commit([answer]),
            ledger.state("recommender"),
            ledger.owed(START, limit=1, lease_seconds=1),
        ):
            with pytest.raises(TransientError, match=r"postgresql://retrainer:\*\*\*@127") as refused:
                await attempt
            assert PASSWORD not in str(refused.value)
        with pytest.raises(TransientError, match="refused"):
            await SqlLedger.open(url)
        server.start()
        assert await ledger.commit([answer]) == [Committed.NEW]
        assert (await ledger.state("recommender")).version == 4


async def test_a_server_that_hangs_is_hung_up_on(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrainer.adapters.ledger_sql.postgres.PATIENCE_SECONDS", 0.3)
    async with opened(f"{url}&connect_timeout=2") as (ledger,):
        entry = await Story(ledger).entry(arrived("recommender", 1))
        server.pause()
        for attempt in (ledger.commit([entry]), ledger.state("recommender")):
            with pytest.raises(TransientError, match=r"no answer within 0\.3 s"):
                await attempt
        server.resume()
        while True:
            try:
                verdicts = await ledger.commit([entry])
                break
            except TransientError:
                continue
        # Whether the hung server took it is open until it is asked.
        assert set(verdicts) <= {Committed.NEW, Committed.DUPLICATE}
        assert (await ledger.state("recommender")).version == 1


async def _backend(ledger: SqlLedger) -> object:
    """The server's process behind the writing connection."""
    return await ledger._write(lambda connection: connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.DiskFull, TransientError),
        (psycopg.errors.AdminShutdown, TransientError),
        (psycopg.errors.TooManyConnections, TransientError),
        (psycopg.errors.ReadOnlySqlTransaction, TransientError),
        (psycopg.errors.LockNotAvailable, TransientError),
        (psycopg.errors.IoError, TransientError),
        (psycopg.OperationalError, TransientError),
        (psycopg.errors.DeadlockDetected, ContendedError),
        (psycopg.errors.SerializationFailure, ContendedError),
        (psycopg.errors.UniqueViolation, PermanentError),
        (psycopg.errors.UntranslatableCharacter, PermanentError),
        (psycopg.errors.InsufficientPrivilege, ConfigError),
        (psycopg.errors.UndefinedTable, ConfigError),
        (psycopg.errors.DataCorrupted, ConfigError),
    ],
)
async def test_what_the_server_says_is_tried_again_decided_upon_or_left_to_a_person(
    url: str, error: type[Exception], kind: type[Exception]
) -> None:
    async with opened(url) as (ledger,):

        def fails(_: Connection) -> None:
            raise DBAPIError("SELECT 1", {}, error("as the server words it"))

        with pytest.raises(kind, match="as the server words it") as said:
            await ledger._write(fails)
        assert type(said.value) is kind


async def test_a_query_that_takes_too_long_or_waits_for_a_lock_gives_up_for_now(
    server: PostgresServer, url: str
) -> None:
    async with opened(url) as (ledger,):
        entry = await Story(ledger).entry(arrived("recommender", 1))
        before = await _backend(ledger)
        with psycopg.connect(url) as stranger:
            stranger.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            waiting = asyncio.create_task(ledger.commit([entry]))
            blocked = sql.SQL("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            while not (found := await asyncio.to_thread(server.execute, blocked)):
                pass
            server.execute(sql.SQL("SELECT pg_cancel_backend({})").format(found[0][0]))
            with pytest.raises(TransientError, match="canceling statement"):
                await waiting
        assert await ledger.commit([entry]) == [Committed.NEW]
        # Whatever was the matter with the connection, the next try had another.
        assert await _backend(ledger) != before


# --- opening ---


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"password": "guessed"}, "password authentication failed for user .retrainer.; mend RETRAINER_LEDGER"),
        ({"username": "stranger"}, "authentication failed for user .stranger.; mend RETRAINER_LEDGER"),
        ({"database": "nowhere"}, "database .nowhere. does not exist; mend RETRAINER_LEDGER"),
        ({"drivername": "postgresql+asyncpg"}, "speaks to PostgreSQL with psycopg; write postgresql://"),
    ],
)
async def test_a_wrong_url_is_answered_with_what_to_mend_and_no_password(
    url: str, changed: dict[str, str], wanted: str
) -> None:
    wrong = make_url(url).set(**changed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=wanted) as refused:
        await SqlLedger.open(wrong.render_as_string(hide_password=False))
    assert PASSWORD not in str(refused.value)
    assert "guessed" not in str(refused.value)


async def test_a_missing_driver_is_named_with_what_to_install(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"the PostgreSQL driver is missing; install retrainer\[postgres\]"):
        await SqlLedger.open(url)


async def test_a_user_who_may_not_is_said_to_lack_the_right(server: PostgresServer) -> None:
    server.execute(sql.SQL("CREATE ROLE guest LOGIN PASSWORD 'guest'"))
    guest = make_url(server.database()).set(username="guest", password="guest").render_as_string(hide_password=False)
    with pytest.raises(ConfigError, match=r"permission denied.*give its user this right"):
        await SqlLedger.open(guest)


async def test_a_reader_sees_what_replicas_commit_and_cannot_write(url: str) -> None:
    with pytest.raises(ConfigError, match="there is no ledger here"):
        await SqlLedger.open(url, read_only=True)
    async with opened(url) as (ledger,):
        reader = await SqlLedger.open(url.replace("postgresql:", "postgresql+psycopg:"), read_only=True)
        name = await Story(ledger).planned()
        assert await reader.decision(name) == await ledger.decision(name)
        assert await reader.size_bytes() > 100_000
        with pytest.raises(TransientError, match="read only"):
            await reader.see("recommender", "nightly", START)
        database = reader._database
        assert isinstance(database, PostgresDatabase)
        with database.reader.connect() as connection, pytest.raises(Exception, match="read-only transaction"):
            connection.exec_driver_sql("DELETE FROM fires")
        await reader.close()


async def test_commits_are_on_the_disk_whatever_the_server_has_for_a_default(server: PostgresServer) -> None:
    url = server.database()
    named = sql.Identifier(str(make_url(url).database))
    for setting in ("synchronous_commit = off", "default_transaction_isolation = 'serializable'"):
        server.execute(sql.SQL("ALTER DATABASE {} SET " + setting).format(named))
    async with opened(url) as (ledger,):
        writer = ledger._database.writer
        assert writer
        with writer.connect() as connection:
            asked = ("synchronous_commit", "transaction_isolation", "statement_timeout")
            found = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in asked]
        assert found == ["on", "read committed", "30s"]
