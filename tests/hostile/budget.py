"""How much is tried: always the same cases in `make test`, new ones and more of them in `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

FUZZ = int(os.environ.get("FUZZ", "0"))
"""How many times as much as in `make test`; 0 is `make test` itself."""

FROM = int(os.environ.get("FUZZ_FROM", "0"))
"""The first seed of what hypothesis does not draw."""


def examples(count: int) -> settings:
    """The settings of one property."""
    return settings(
        max_examples=count * max(1, FUZZ),
        derandomize=not FUZZ,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


def seeds(count: int) -> range:
    """The seeds of histories that are not drawn by hypothesis."""
    return range(FROM, FROM + count * max(1, FUZZ))
