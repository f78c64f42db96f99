"""The three ledgers, for what every ledger promises."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.ports import Ledger
from tests.fakes.memory_ledger import MemoryLedger
from tests.fakes.story import Story
from tests.postgres import PostgresServer


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        # Asked for here, so that the other two need no server.
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.schema()
    opened = await SqlLedger.open(url)
    yield opened
    await opened.close()


@pytest.fixture
def story(ledger: Ledger) -> Story:
    return Story(ledger)
