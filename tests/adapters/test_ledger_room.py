"""What the ledger takes of the disk: bounded if it is compacted, and a disk that is full loses nothing."""

import asyncio
import resource
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.core.events import RetrainingRequested
from retrainer.core.state import ModelState
from retrainer.ports import Committed, Entry, Quarantined, TransientError
from tests.fakes.story import START, Story, arrived, decided, requested

HOUR = timedelta(hours=1)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    opened = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}", busy_seconds=0.2)
    yield opened
    await opened.close()


async def asked(ledger: SqlLedger, statement: str) -> object:
    """What one statement answers on the writing connection."""
    return await ledger._write(lambda connection: connection.execute(text(statement)).scalar())


async def filled(ledger: SqlLedger, cycle: int) -> None:
    """Ten models are asked eighty times each, at three kilobytes a request."""
    for model in (f"model-{number}" for number in range(10)):
        state, chain = await ledger.state(model), list[Entry]()
        for number in range(80):
            event = RetrainingRequested(request=f"{model}-{cycle}-{number}", by="ana", why="w" * 3000)
            entry = decided(state, event, START + cycle * HOUR)
            # The request's words are in the decision's too, and those stay.
            chain.append(replace(entry, decision=replace(entry.decision, detail="asked")))
            state = chain[-1].decision.state
        assert set(await ledger.commit(chain)) == {Committed.NEW}


async def test_compacting_makes_the_file_small_again_however_often_it_was_filled(ledger: SqlLedger) -> None:
    compacted: list[int] = []
    for cycle in range(4):
        await filled(ledger, cycle)
        full = await ledger.size_bytes()
        await ledger.compact(START + (cycle + 1) * HOUR)
        compacted.append(await ledger.size_bytes())
        assert compacted[-1] < full / 2, (compacted, full)
    # What stays of an event and its decision: identities, hashes, reasons, and their places in the indexes.
    growth_bytes = (compacted[-1] - compacted[0]) / 3 / 800
    assert growth_bytes < 1200
    assert await asked(ledger, "PRAGMA integrity_check") == "ok"
    assert await asked(ledger, "PRAGMA foreign_key_check") is None
    assert await asked(ledger, "PRAGMA freelist_count") == 0


async def test_who_commits_while_the_ledger_is_compacted_does_not_wait_for_its_end(ledger: SqlLedger) -> None:
    for cycle in range(3):
        await filled(ledger, cycle)
    compacting = asyncio.create_task(ledger.compact(START + 9 * HOUR))
    story = Story(ledger, "other")
    for number in range(5):
        await story.tell(arrived("other", number))
    assert not compacting.done()
    assert await compacting >= 10 * (240 - 1)


async def test_a_ledger_that_may_not_grow_refuses_and_goes_on_once_it_may(ledger: SqlLedger) -> None:
    """SQLite's own limit: the same SQLITE_FULL as of a full disk."""
    story = Story(ledger)
    await story.planned()
    before, entry = await ledger.counts(), await story.entry(requested("x" * 500_000))
    pages = await asked(ledger, "PRAGMA page_count")
    await asked(ledger, f"PRAGMA max_page_count = {pages}")
    for _ in range(3):
        with pytest.raises(TransientError, match="full"):
            await ledger.commit([entry])
    assert await ledger.counts() == before
    await asked(ledger, "PRAGMA max_page_count = 1000000")
    assert await ledger.commit([entry]) == [Committed.NEW]
    assert await asked(ledger, "PRAGMA integrity_check") == "ok"


async def test_a_full_disk_refuses_and_the_ledger_goes_on_once_there_is_room(ledger: SqlLedger) -> None:
    story = Story(ledger)
    await story.planned()
    before, entry = await ledger.counts(), await story.entry(requested("x" * 500_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        for _ in range(3):
            with pytest.raises(TransientError):
                await ledger.commit([entry])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await ledger.counts() == before
    assert await ledger.commit([entry]) == [Committed.NEW]
    assert await asked(ledger, "PRAGMA integrity_check") == "ok"


async def test_of_a_refused_message_so_much_is_kept_as_tells_what_it_was(ledger: SqlLedger) -> None:
    hostile = "\0\ud800" + "x" * 1_000_000
    await ledger.quarantine(Quarantined(message_id="m", queue="q", received_at=START, why="no \0 JSON", body=hostile))
    assert await asked(ledger, "SELECT length(body) FROM quarantine") == 64 * 1024
    assert await asked(ledger, "SELECT why FROM quarantine") == "no \ufffd JSON"


async def test_leases_of_a_daemon_that_is_gone_are_over_when_the_next_one_opens_the_file(ledger: SqlLedger) -> None:
    entry = decided(ModelState(model="m"), arrived("m", 1), START, leased_until=START + HOUR)
    await ledger.commit([entry])
    assert await ledger.owed(START, limit=9, lease_seconds=60) == []
    path = ledger._database.name
    await ledger.close()
    again = await SqlLedger.open(f"sqlite:///{path}")
    assert [owed.tries for owed in await again.owed(START, limit=9, lease_seconds=60)] == [2]
    await again.close()
