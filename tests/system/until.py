"""Waiting for the world to be as claimed, without ever sleeping for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | None], *, seconds: float = 60, told: Callable[[], object] = lambda: "") -> T:
    """The first true value of the condition; `told` says how things are when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds:g} s; how things are: {told()}")
        time.sleep(0.05)
    return value
