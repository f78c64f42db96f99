"""How long to wait before the next try, and waits that can be cut short."""

import asyncio
from random import Random


def backoff_seconds(tries: int, *, cap_seconds: float, random: Random, base_seconds: float = 1.0) -> float:
    """Seconds to wait after the given number of tries in a row.

    Exponential with full jitter: uniform in [0, min(cap, base * 2 ** (tries - 1)]. The jitter is "Full Jitter" of
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    most = min(cap_seconds, base_seconds * 2.0 ** min(tries - 1, 20))
    return random.uniform(0.0, most)


async def pause(cut_short: asyncio.Event, seconds: float) -> bool:
    """Wait for `seconds`, or less when the event is set; returns whether it is."""
    try:
        async with asyncio.timeout(seconds):
            return await cut_short.wait()
    except TimeoutError:
        return cut_short.is_set()


async def any_set(*events: asyncio.Event, seconds: float | None = None) -> bool:
    """Wait until one of the events is set; False when the time was over before."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return bool(done)
