"""Which seeds are lived through."""

from collections.abc import Sequence

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="live through this one history, and print its transcript")
    parser.addoption("--seeds", type=int, default=300, help="live through so many histories, from 0 on")


def chunks(seeds: int, parts: int) -> Sequence[range]:
    """The seeds from 0 on, in so many parts of nearly the same size."""
    return [range(part * seeds // parts, (part + 1) * seeds // parts) for part in range(parts)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed", default=None)
    parts = [range(one, one + 1)] if one is not None else chunks(metafunc.config.getoption("--seeds", default=300), 6)
    metafunc.parametrize("seeds", parts, ids=[f"{r.start}-{r.stop - 1}" for r in parts])
