"""State on disk: what ministack saves at its end, saved at any time."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from retrainer.local.ministack_seams import module

EVENTS_KEPT = 1000  # PutEvents keeps every event for ever otherwise


async def save(services: Iterable[str] | None = None) -> None:
    """Writes the state of these services (state file names; all when None) to disk.

    Snapshots are taken on the gateway's loop, so no request changes them meanwhile; threads of executions may, then
    the snapshot is taken again.
    """
    sources = module("ministack.app")._build_persistence_save_dict()
    wanted = set(sources) if services is None else set(services) & set(sources)
    snapshots = {name: _snapshot(sources[name]) for name in sorted(wanted)}
    if services is None:
        _trim_events()
    await asyncio.to_thread(_write, snapshots)


def _snapshot(get_state: Callable[[], Any]) -> Any:
    for _ in range(20):
        try:
            return get_state()
        except RuntimeError:  # a dictionary changed its size during the copy
            continue
    return get_state()


def _write(snapshots: Mapping[str, Any]) -> None:
    persistence = module("ministack.core.persistence")
    for name, state in snapshots.items():
        if state is not None:
            persistence.save_state(name, state)


def _trim_events() -> None:
    for entries in list(module("ministack.services.eventbridge")._events_log._data.values()):
        del entries[:-EVENTS_KEPT]
