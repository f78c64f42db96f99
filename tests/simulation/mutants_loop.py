"""Planted bugs in the lanes: what is decided on which state, and what is believed of the commit."""

import asyncio
from collections.abc import Sequence
from typing import Any

from retrainer.core.decide import Decision
from retrainer.core.events import Event
from retrainer.core.state import ModelState
from retrainer.loop import Loop
from retrainer.ports import Committed, Entry, Ledger
from tests.simulation.planting import Patch, mutant


@mutant
def trust_the_lane_after_a_conflict(patch: Patch) -> None:
    """Another replica was first, and the lane goes on with the state it remembers."""
    commit = Loop._commit

    async def stubborn(self: Loop, lane: Any, chain: Sequence[Any]) -> Sequence[Any]:
        remembered = lane.state
        left = await commit(self, lane, chain)
        if left and remembered:
            lane.state = remembered
        return left

    patch.setattr(Loop, "_commit", stubborn)


@mutant
def answer_before_the_commit(patch: Patch) -> None:
    """An event counts as known as soon as it is taken, whatever becomes of its commit."""
    take = Loop.take

    async def hasty(self: Loop, model: str, event: Event, completes: str | None = None) -> Decision | None:
        taking = asyncio.ensure_future(take(self, model, event, completes))
        self._remember(model, event.identity)
        return await taking

    patch.setattr(Loop, "take", hasty)


@mutant
def a_conflict_counts_as_committed(patch: Patch) -> None:
    """The loser of a race tells its callers that all is well."""
    commit = Loop._commit

    async def careless(self: Loop, lane: Any, chain: Sequence[Any]) -> Sequence[Any]:
        for waiting in await commit(self, lane, chain):
            waiting.decided(None)
        return []

    patch.setattr(Loop, "_commit", careless)


@mutant
def policy_reload_forgets_the_lane(patch: Patch) -> None:
    """A changed policy begins with an empty state of the model."""
    decided = Loop._decided

    def forgetful(self: Loop, chain: Sequence[Any], state: ModelState, *rest: Any) -> tuple[list[Entry], ModelState]:
        seen = self.__dict__.setdefault("seen", {})
        _, policy_hash = self._policy(state.model)
        if seen.setdefault(state.model, policy_hash) != policy_hash:
            state = ModelState(model=state.model, version=state.version)
        seen[state.model] = policy_hash
        return decided(self, chain, state, *rest)

    patch.setattr(Loop, "_decided", forgetful)


class _Early:
    """A ledger whose decisions are handed to the outbox while they are being committed."""

    def __init__(self, ledger: Ledger, loop: Loop) -> None:
        self._ledger = ledger
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def commit(self, entries: Sequence[Entry]) -> Sequence[Committed]:
        for entry in entries:
            self._loop._hand_over(entry)
        await asyncio.sleep(0.01)
        return await self._ledger.commit(entries)


@mutant
def carry_out_before_commit(patch: Patch) -> None:
    """Effects are begun while the decision that asks for them is still being written."""
    init = Loop.__init__

    def early(self: Loop, *, ledger: Ledger, **rest: Any) -> None:
        init(self, ledger=_Early(ledger, self), **rest)

    patch.setattr(Loop, "__init__", early)
