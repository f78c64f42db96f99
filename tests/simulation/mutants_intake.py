"""Planted bugs on the way from the queue to the lane, and at the drain."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from retrainer import intake
from retrainer.intake import Fate, Intake
from retrainer.ports import Message, Parsed
from retrainer.routes import Routes
from retrainer.supervise import Stage, Supervisor
from tests.simulation.planting import Patch, mutant


@mutant
def acknowledge_before_commit(patch: Patch) -> None:
    """A message is acknowledged while its events are still on their way to the ledger."""
    offered = Intake._offered

    def early(self: Intake, parsed: Parsed) -> tuple[Parsed, Sequence[Awaitable[object]]]:
        told, answers = offered(self, parsed)
        for answer in answers:
            assert isinstance(answer, asyncio.Future)
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return told, ()

    patch.setattr(Intake, "_offered", early)


@mutant
def acknowledge_what_failed(patch: Patch) -> None:
    """What could not be committed is acknowledged with the rest of its batch."""
    handle = Intake.handle

    async def all_the_same(self: Intake, messages: Sequence[Message]) -> Sequence[Fate]:
        return [Fate.ACKNOWLEDGE if fate is Fate.HOLD else fate for fate in await handle(self, messages)]

    patch.setattr(Intake, "handle", all_the_same)


@mutant
def first_model_only(patch: Patch) -> None:
    """An event that concerns two models reaches only the first of them."""
    models = Routes.models
    patch.setattr(Routes, "models", lambda self, model, event: models(self, model, event)[:1])


@mutant
def no_patience(patch: Patch) -> None:
    """What cannot be committed now is left for the queue to bring again, and uses up its receives."""

    async def short(stopping: asyncio.Event, seconds: float) -> bool:
        await asyncio.sleep(1.0)
        return True

    patch.setattr(intake, "pause", short)


@mutant
def hold_without_keeping(patch: Patch) -> None:
    """What one poller holds is received by all the others in turn, until it has been received too often."""
    told = Intake._told

    async def forgets(self: Intake, call: Awaitable[None], what: str) -> bool:
        return _dropped(call) if what == "keep" else await told(self, call, what)

    patch.setattr(Intake, "_told", forgets)


@mutant
def cancel_the_poll_on_shutdown(patch: Patch) -> None:
    """The long polls in flight are cancelled when the daemon is to stop."""
    drain = Supervisor.drain

    async def impatient(self: Supervisor, timeout_seconds: float) -> Any:
        await self._cancel(self._tasks[Stage.INTAKE])
        return await drain(self, timeout_seconds)

    patch.setattr(Supervisor, "drain", impatient)


@mutant
def forget_to_release(patch: Patch) -> None:
    """What is held at a drain stays invisible."""
    told = Intake._told

    async def forgets(self: Intake, call: Awaitable[None], what: str) -> bool:
        return _dropped(call) if what == "release" else await told(self, call, what)

    patch.setattr(Intake, "_told", forgets)


@mutant
def refuse_without_quarantine(patch: Patch) -> None:
    """What makes no sense goes to the dead-letter queue and is kept nowhere."""

    async def careless(self: Intake, message: Message, parsed: Parsed) -> Fate:
        await self._inbox.refuse(message, parsed.why)
        return Fate.REFUSED

    patch.setattr(Intake, "_refuse", careless)


@mutant
def delete_what_makes_no_sense(patch: Patch) -> None:
    """What cannot be parsed is deleted silently, as Karpenter does."""

    async def silent(self: Intake, message: Message, parsed: Parsed) -> Fate:
        return Fate.ACKNOWLEDGE

    patch.setattr(Intake, "_refuse", silent)


@mutant
def a_failed_acknowledgement_is_forgotten(patch: Patch) -> None:
    """What could not be acknowledged at once stays invisible at a drain."""
    acknowledge = Intake._acknowledge

    async def once(self: Intake, messages: Sequence[Message]) -> None:
        await acknowledge(self, messages)
        self._done.clear()

    patch.setattr(Intake, "_acknowledge", once)


def _dropped(call: Awaitable[None]) -> bool:
    """The call is not made, and said to be."""
    assert asyncio.iscoroutine(call)
    call.close()
    return True
