"""Planted bugs in what is decided."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from retrainer.core import decide as core
from retrainer.core import guards, plan, step, window
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState
from tests.simulation.planting import Patch, mutant


@mutant
def drop_instead_of_keep(patch: Patch) -> None:
    """A trigger met while a guard objects is dropped, as AWS's own sample does."""
    consider = core._consider

    def drops(policy: Any, taken: Any, *rest: Any) -> Any:
        considered = consider(policy, taken, *rest)
        kept = () if considered.reason is not Reason.RETRAINING else considered.state.kept
        return replace(considered, state=replace(considered.state, kept=kept))

    patch.setattr(core, "_consider", drops)


@mutant
def a_failure_forgets_what_was_asked(patch: Patch) -> None:
    """A failed execution takes the triggers that were kept meanwhile with it."""
    _after(patch, "_failed", lambda state: replace(state, kept=()))


@mutant
def a_generation_is_used_again(patch: Patch) -> None:
    """An execution that failed gives its number back."""
    _after(patch, "_failed", lambda state: replace(state, generation=state.generation - 1))


@mutant
def a_version_is_left_out(patch: Patch) -> None:
    """A resumed model's decisions are counted from one further on."""
    _after(patch, "_woken", lambda state: replace(state, version=state.version + 1))


@mutant
def an_approval_is_answered_twice(patch: Patch) -> None:
    """A second person's answer is given too."""
    answered = step._approval_answered

    def again(state: ModelState, event: Any) -> Any:
        taken = answered(state, event)
        return replace(taken, state=replace(taken.state, execution=state.execution))

    patch.setattr(step, "_approval_answered", again)


@mutant
def a_success_forgets_what_was_asked(patch: Patch) -> None:
    """What was asked for while an execution ran is taken for done with it, edges too."""
    ended = step._execution_ended

    def content(policy: Any, state: ModelState, event: Any, now: datetime) -> Any:
        taken = ended(policy, state, event, now)
        return replace(taken, state=replace(taken.state, kept=()))

    patch.setattr(step, "_execution_ended", content)


@mutant
def a_pause_is_ignored(patch: Patch) -> None:
    """A paused model is retrained."""
    _without_guard(patch, guards.paused)


@mutant
def the_cooldown_is_ignored(patch: Patch) -> None:
    """A retraining follows upon the one before at once."""
    _without_guard(patch, guards.cooldown)


@mutant
def the_budget_is_ignored(patch: Patch) -> None:
    """More is spent than was allowed."""
    _without_guard(patch, guards.budget)


@mutant
def a_running_execution_is_ignored(patch: Patch) -> None:
    """A retraining is planned while another runs; only the ledger's index is left."""
    _without_guard(patch, guards.running)


@mutant
def data_gets_lost(patch: Patch) -> None:
    """Only the newest ten batches are remembered."""
    patch.setattr(window, "add", lambda known, batch, *, newest: (*known, batch)[-10:])


@mutant
def attempts_without_end(patch: Patch) -> None:
    """A retraining that fails is tried again for ever."""
    failed = step._failed

    def stubborn(policy: Any, state: ModelState, known: Any, *rest: Any) -> Any:
        action = policy.action.model_copy(update={"attempts": 99})
        return failed(policy.model_copy(update={"action": action}), state, known, *rest)

    patch.setattr(step, "_failed", stubborn)


@mutant
def a_resumed_model_waits(patch: Patch) -> None:
    """What was kept in a pause is not looked at when the pause is over."""
    take = step._take

    def deaf(policy: Any, state: ModelState, event: Any, now: datetime) -> Any:
        taken = take(policy, state, event, now)
        return replace(taken, look=taken.look and taken.reason is not Reason.RESUMED)

    patch.setattr(step, "_take", deaf)


@mutant
def spent_money_is_forgotten(patch: Patch) -> None:
    """A retraining is not counted against the budget."""
    planned = plan.planned
    patch.setattr(plan, "planned", lambda state, *rest: replace(planned(state, *rest), starts=()))


@mutant
def a_lost_measurement_is_never_repeated(patch: Patch) -> None:
    """A failed measurement leaves the model waiting for it."""
    failed = step._effect_failed

    def waits(policy: Any, state: ModelState, event: Any, now: datetime) -> Any:
        taken = failed(policy, state, event, now)
        measuring = state.measuring if event.effect == state.measuring else taken.state.measuring
        return replace(taken, state=replace(taken.state, measuring=measuring))

    patch.setattr(step, "_effect_failed", waits)


def _after(patch: Patch, name: str, change: Callable[[ModelState], ModelState]) -> None:
    """A step of `decide` with its state changed."""
    original = getattr(step, name)

    def changed(*args: Any) -> Any:
        taken = original(*args)
        return replace(taken, state=change(taken.state))

    patch.setattr(step, name, changed)


def _without_guard(patch: Patch, gone: guards.Guard) -> None:
    patch.setattr(guards, "GUARDS", tuple(g for g in guards.GUARDS if g is not gone))
