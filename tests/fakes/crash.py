"""A process that dies at a chosen port call: before it takes effect, or after it did and before its reply is seen."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class CrashPoints:
    """Counts the calls of every port it is put around; dies at call number `at`, counted from 1.

    From then on no call ever returns, so that no line of the process runs any more; `dead` says that it can be buried.
    """

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.calls: list[str] = []
        self.dead = asyncio.Event()
        self._at = at
        self._after = after

    def around(self, port: T) -> T:
        """The port, as this process sees it."""
        return cast(T, _Around(port, self))

    async def call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.dead.is_set():
            await self._die()
        self.calls.append(name)
        dies = len(self.calls) == self._at
        if dies and not self._after:
            await self._die()
        answer = await method(*args, **kwargs)
        if dies or self.dead.is_set():
            await self._die()
        return answer

    async def _die(self) -> None:
        self.dead.set()
        await asyncio.Event().wait()


class _Around:
    def __init__(self, port: object, points: CrashPoints) -> None:
        self._port = port
        self._points = points

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not inspect.iscoroutinefunction(method):
            return method
        said = f"{type(self._port).__name__}.{name}"
        return lambda *args, **kwargs: self._points.call(said, method, *args, **kwargs)
