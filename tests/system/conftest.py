"""One installation for each module of system tests, which says in POLICIES what models it has."""

from collections.abc import Iterator

import pytest

from tests.system.house import House


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    seconds = getattr(request.module, "VISIBILITY_SECONDS", None)
    house = House(tmp_path_factory.mktemp("house"), request.module.POLICIES, visibility_seconds=seconds)
    try:
        house.open()
        yield house
    finally:
        house.close()
