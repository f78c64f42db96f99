"""The way from one process to the outside: every port call passes here, and here it is late, fails, or is the last."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from retrainer.ports import Entry, Message, PermanentError, TransientError
from tests.simulation.history import Crash, calls_of

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")


class Gate:
    """One process's port calls. When it is dead no call of it ever returns, so that no line of it runs any more."""

    def __init__(self, world: "World", replica: str, crash: Crash | None) -> None:
        self._world = world
        self._replica = replica
        self._crash = crash
        self._counted: Counter[str] = Counter()
        self.dead = asyncio.Event()
        self.drains = False
        self.held: set[str] = set()
        """Messages received and not yet acknowledged, refused or released."""

    def around(self, protocol: type[Any], port: T) -> T:
        """The port, as this process sees it."""
        return cast(T, _Port(protocol, port, self))

    def kill(self, why: str) -> None:
        """What it held is the world's doing."""
        if not self.dead.is_set():
            self._world.say(self._replica, f"DIES {why}")
            self.dead.set()
            self._world.queue.excuse(sorted(self.held))

    async def call(self, name: str, method: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One call, with what the world does to it. Raises what the method raises, or TransientError."""
        world, random = self._world, self._world.random
        await self._while_alive()
        self._counted[name] += 1
        crash = self._crash
        dies = crash is not None and crash.call == name and crash.number == self._counted[name] and not world.is_quiet
        if dies and crash and not crash.after:
            world.crashed(crash)
            await self._die(f"before {name}")
        faults = world.history.faults
        await self._wait(faults.waits, faults.slow)
        if self.dead.is_set() and random.random() < 0.5:
            await self._while_alive()  # it never reached the other side
        self._fail(name, args)
        with self._in_hand(name, args):
            answer = await self._carried_out(name, method, args, kwargs)
        if dies and crash and crash.after:
            world.crashed(crash)
            self._trouble(name, args, answer)
            await self._die(f"after {name}")
        await self._wait(faults.waits / 2, faults.slow / 2)
        if self.dead.is_set():
            self._trouble(name, args, answer)
        await self._while_alive()
        if not world.is_quiet and random.random() < faults.replies_lost:
            self._trouble(name, args, answer)
            world.say(self._replica, f"{name} done, reply lost")
            raise TransientError(f"{name}: the connection was closed before the reply")
        if name == "Inbox.receive":
            self.held.update(m.id for m in answer)
        return answer

    async def _carried_out(
        self, name: str, method: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        world = self._world
        try:
            answer = await method(*args, **kwargs)
        except asyncio.CancelledError:
            if name == "Inbox.receive" and not self.dead.is_set() and not world.is_over:
                world.queue.orphan(self._replica)
                world.violate("polls end", f"{self._replica}: a poll in flight was cancelled")
            raise
        except Exception as error:
            world.say(self._replica, f"{name} -> {type(error).__name__}: {error}")
            if isinstance(error, PermanentError) and args:
                world.watch.refused(getattr(args[0], "key", ""))
            raise
        if name == "Inbox.release" and self.drains:
            world.queue.excuse(_ids(args))  # SQS counts what a deployment gives back, however well it does
        if name in ("Inbox.acknowledge", "Inbox.refuse", "Inbox.release"):
            self.held.difference_update(_ids(args))
        world.watch.called(self._replica, name, args, kwargs, answer)
        return answer

    @contextmanager
    def _in_hand(self, name: str, args: Sequence[Any]) -> Iterator[None]:
        """Known to all who ask whether somebody works on an effect."""
        if not name.startswith(("Analyst.", "Engine.start")):
            yield
            return
        workers = self._world.working.setdefault(args[0].key, [])
        workers.append(self._replica)
        try:
            yield
        finally:
            workers.remove(self._replica)

    def _fail(self, name: str, args: Sequence[Any]) -> None:
        """The world's errors, before the call takes effect. Raises TransientError."""
        world = self._world
        port, _, _ = name.partition(".")
        if world.is_quiet:
            return
        why = "is away" if world.is_away(port) else ""
        if not why and world.random.random() < world.history.faults.errors:
            why = "is throttled"
        if why:
            self._trouble(name, args, ())
            world.say(self._replica, f"{name} {why}")
            raise TransientError(f"{name}: {port} {why}")

    def _trouble(self, name: str, args: Sequence[Any], answer: Any) -> None:
        """What was to happen to these messages did not, and they will be received again."""
        if name == "Inbox.receive":
            self._world.queue.excuse([m.id for m in answer], are_orphans=True)
        elif name.startswith("Inbox."):
            self._world.queue.excuse(_ids(args))

    async def _wait(self, share: float, slow: float) -> None:
        world = self._world
        if world.is_quiet:
            return
        if world.random.random() < slow:
            await asyncio.sleep(world.random.uniform(0.5, 6.0))
        elif world.random.random() < share:
            await asyncio.sleep(world.random.uniform(0.001, 0.2))

    async def _while_alive(self) -> None:
        if self._world.is_over:
            raise asyncio.CancelledError
        if self.dead.is_set():
            await self._world.grave()

    async def _die(self, why: str) -> None:
        self.kill(why)
        await self._while_alive()


class _Port:
    """Looks like the port; what the protocol has for an async method goes through the gate."""

    def __init__(self, protocol: type[Any], port: object, gate: Gate) -> None:
        for call in calls_of(protocol):
            name = call.partition(".")[2]
            setattr(self, name, _through(gate, call, getattr(port, name)))


def _through(gate: Gate, call: str, method: Callable[..., Any]) -> Callable[..., Any]:
    async def through(*args: Any, **kwargs: Any) -> Any:
        return await gate.call(call, method, args, kwargs)

    return through


def _ids(args: Sequence[Any]) -> list[str]:
    """The messages that a call of the inbox is about."""
    first = args[0] if args else ()
    messages: Sequence[Message] = (first,) if isinstance(first, Message) else first
    return [m.id for m in messages]


def told(name: str, args: Sequence[Any], answer: Any) -> str:
    """A call in one short line."""
    if name == "Ledger.commit":
        entries: Sequence[Entry] = args[0]
        parts = (
            f"{e.decision.id} {e.decision.reason} {v} <- {type(e.event).__name__} {e.event.identity}"
            for e, v in zip(entries, answer, strict=True)
        )
        return f"{name} {'; '.join(parts)}"
    if name.startswith("Inbox."):
        return f"{name} {' '.join(m.id for m in answer) if name == 'Inbox.receive' else ' '.join(_ids(args))}"
    if name == "Ledger.owed":
        return f"{name} {' '.join(o.effect.key for o in answer)}"
    said = getattr(args[0], "key", args[0]) if args else ""
    if name == "Engine.running":
        said = f"{len(answer)} of {len(args[0])}"
    return f"{name} {said}"
