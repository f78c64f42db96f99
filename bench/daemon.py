"""`retrainer run` as it is, but for its evidence: an analyst that never answers, so that only intake is measured.

python -m bench.daemon
"""

import asyncio
import sys
from typing import NoReturn

from retrainer import wiring
from retrainer.cli import main


class Silent:
    """Implements ports.Analyst, and is at it for ever."""

    def __init__(self, **_: object) -> None:
        pass

    async def measure(self, *_: object) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    publish = measure

    async def close(self) -> None:
        pass


if __name__ == "__main__":
    setattr(wiring, "WorkerAnalyst", Silent)  # noqa: B010 - mypy must not see what it rightly forbids
    sys.exit(main(["run"]))
