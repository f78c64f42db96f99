"""Which seeds are lived through."""

import gc
from collections.abc import Iterator, Sequence

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="live through this one history, and print its transcript")
    parser.addoption("--seeds", type=int, default=300, help="live through so many histories, from 0 on")


@pytest.fixture(autouse=True)
def bury() -> Iterator[None]:
    """What killed processes left is collected here: Python 3.11 may break off an import in whose middle it is."""
    yield
    gc.collect()


def chunks(seeds: int, parts: int) -> Sequence[range]:
    """The seeds from 0 on, in so many parts of nearly the same size."""
    return [range(part * seeds // parts, (part + 1) * seeds // parts) for part in range(parts)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed", default=None)
    parts = [range(one, one + 1)] if one is not None else chunks(metafunc.config.getoption("--seeds", default=300), 6)
    metafunc.parametrize("seeds", parts, ids=[f"{r.start}-{r.stop - 1}" for r in parts])
