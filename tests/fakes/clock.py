"""Clocks: one that follows the event loop's time, so that virtual time moves it."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@dataclass
class LoopClock:
    """The event loop's time, beginning at `start`; `skew` is how far this replica's clock is ahead."""

    start: datetime = START
    skew: timedelta = timedelta(0)

    def now(self) -> datetime:
        return self.start + timedelta(seconds=asyncio.get_running_loop().time()) + self.skew
