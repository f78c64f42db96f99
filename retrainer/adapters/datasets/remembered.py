"""What was read or made before, for as long as there is room for it."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def _one(_: object) -> int:
    return 1


class Remembered(Generic[Key, Value]):
    """The newest, whatever its `size`, and of the others those used last while all together are no more than `room`."""

    def __init__(self, room: int, size: Callable[[Value], int] = _one) -> None:
        self._room = room
        self._size = size
        self._taken = 0
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Key) -> Value | None:
        """What was put there, if it is still known; it counts as used."""
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: Key, value: Value) -> Value:
        """In the place of what was there; returns it."""
        size = self._size(value)
        _, before = self._held.pop(key, (None, 0))
        self._held[key] = value, size
        self._taken += size - before
        while len(self._held) > 1 and self._taken > self._room:
            _, (_, gone) = self._held.popitem(last=False)
            self._taken -= gone
        return value
