"""Planted bugs in what is done outside: starting, answering, following, promoting."""

import asyncio
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from retrainer import follow, outbox
from retrainer.core.decide import Decision
from retrainer.core.effects import PublishReport, StartExecution
from retrainer.core.events import EffectDone, EffectFailed, Event, ExecutionEnded
from retrainer.core.execution import Status
from retrainer.follow import Observer
from retrainer.loop import Loop
from retrainer.outbox import Outbox
from retrainer.ports import Owed, PermanentError, TransientError
from steps import champion, names
from steps.objects import write_document
from tests.simulation.aws import SimEngine
from tests.simulation.planting import Patch, mutant


@mutant
def rename_on_retry(patch: Patch) -> None:
    """Another try of a start has another execution name."""
    start = Outbox._start

    async def renamed(self: Outbox, owed: Owed, effect: StartExecution) -> tuple[str, bool]:
        if owed.tries > 1:
            effect = replace(effect, key=f"{effect.key}-{owed.tries}")
        return await start(self, owed, effect)

    patch.setattr(Outbox, "_start", renamed)


@mutant
def throttling_counts_as_failure(patch: Patch) -> None:
    """What AWS is asked to do is given up after three tries."""
    patch.setattr(outbox, "_exhausted", lambda owed: owed.tries >= 3)


@mutant
def a_failed_effect_is_no_event(patch: Patch) -> None:
    """An effect that failed for good is dropped, and the model waits for ever."""
    _without(patch, EffectFailed)


@mutant
def a_refusal_is_tried_for_ever(patch: Patch) -> None:
    """AWS says that it never will, and is asked again and again."""
    attempt = Outbox._perform

    async def hopeful(self: Outbox, *told: Any) -> Event:
        try:
            return await attempt(self, *told)
        except PermanentError as error:
            raise TransientError(str(error)) from error

    patch.setattr(Outbox, "_perform", hopeful)
    patch.setattr(outbox, "_exhausted", lambda owed: False)


@mutant
def done_without_doing(patch: Patch) -> None:
    """A report is said to be published as soon as it is owed."""
    perform = Outbox._perform

    async def lazy(self: Outbox, owed: Owed, *rest: Any) -> Event:
        if isinstance(owed.effect, PublishReport):
            return EffectDone(effect=owed.effect.key, kind="PublishReport")
        return await perform(self, owed, *rest)

    patch.setattr(Outbox, "_perform", lazy)


@mutant
def an_execution_that_exists_is_a_refusal(patch: Patch) -> None:
    """ExecutionAlreadyExists is not looked into: the retraining is given up while it runs."""
    start = SimEngine.start

    async def strict(self: SimEngine, effect: StartExecution) -> tuple[str, bool]:
        if effect.key in self.walks:
            raise PermanentError(f"ExecutionAlreadyExists: {effect.key}")
        return await start(self, effect)

    patch.setattr(SimEngine, "start", strict)


@mutant
def no_lease_is_renewed(patch: Patch) -> None:
    """Work that takes longer than a lease is begun a second time."""

    async def idle(self: Outbox, owed: Owed) -> None:
        await asyncio.Event().wait()

    patch.setattr(Outbox, "_renew", idle)


@mutant
def start_however_old(patch: Patch) -> None:
    """A start that was planned before Step Functions forgot its name is carried out all the same."""
    patch.setattr(outbox, "START_WITHIN", timedelta(days=10_000))


@mutant
def expire_without_asking(patch: Patch) -> None:
    """An old start is given up though it took effect long ago."""
    patch.setattr(SimEngine, "known", _none)
    patch.setattr(outbox, "START_WITHIN", timedelta(seconds=20))


async def _none(self: SimEngine, effect: StartExecution) -> None:
    return None


@mutant
def the_dead_are_not_inherited(patch: Patch) -> None:
    """A replica carries out only what it decided itself."""
    claim = Outbox.claim

    async def own(self: Outbox) -> int:
        self._look = False
        return await claim(self)

    patch.setattr(Outbox, "claim", own)


@mutant
def what_is_put_off_is_forgotten(patch: Patch) -> None:
    """A transient error counts as done."""
    attempt = Outbox._try

    async def content(self: Outbox, owed: Owed) -> str | None:
        try:
            return await attempt(self, owed)
        except TransientError as error:
            await self._ledger.postpone(owed.effect.key, owed.created_at + timedelta(days=365), str(error))
            return str(error)

    patch.setattr(Outbox, "_try", content)


@mutant
def an_unknown_execution_runs_for_ever(patch: Patch) -> None:
    """The observer ignores an execution that AWS does not know."""
    take = Loop.take

    async def deaf(self: Loop, model: str, event: Event, completes: str | None = None) -> Decision | None:
        if isinstance(event, ExecutionEnded) and "does not know" in event.cause:
            return None
        return await take(self, model, event, completes)

    patch.setattr(Loop, "take", deaf)


@mutant
def edge_instead_of_level(patch: Patch) -> None:
    """The observer looks only when a status message wakes it."""

    async def wait(event: asyncio.Event, seconds: float) -> bool:
        return await event.wait()

    patch.setattr(follow, "pause", wait)


@mutant
def missing_from_the_list_means_ended(patch: Patch) -> None:
    """What ListExecutions does not show is taken for aborted, without asking about it."""

    async def rash(self: Observer, arn: str, model: str, execution: Any, *, listed: bool) -> None:
        if not listed:
            await self._loop.take(model, ExecutionEnded(execution=execution.name, status=Status.ABORTED))

    patch.setattr(Observer, "_follow", rash)


@mutant
def unknown_at_once_means_ended(patch: Patch) -> None:
    """An execution that DescribeExecution does not know yet is taken for aborted."""
    patch.setattr(follow, "KNOWN_WITHIN", timedelta(0))


@mutant
def no_heartbeat(patch: Patch) -> None:
    """Nobody keeps a question to a person open."""

    async def silent(self: SimEngine, task_token: str) -> None: ...

    patch.setattr(SimEngine, "heartbeat", silent)


@mutant
def no_promotion_fence(patch: Patch) -> None:
    """Whoever comes last serves, however old its generation."""

    def open_fence(s3: Any, bucket: str, challenger: champion.Champion, judged_against: int) -> None:
        return None

    def crown(s3: Any, bucket: str, challenger: champion.Champion) -> None:
        uri = names.champion(bucket, challenger.model)
        write_document(s3, uri, asdict(challenger))

    patch.setattr(champion, "close_fence", open_fence)
    patch.setattr(champion, "crown", crown)


def _without(patch: Patch, kind: type[Any]) -> None:
    """Such events never reach the ledger."""
    take = Loop.take

    async def deaf(self: Loop, model: str, event: Event, completes: str | None = None) -> Decision | None:
        return None if isinstance(event, kind) else await take(self, model, event, completes)

    patch.setattr(Loop, "take", deaf)
