"""What an execution costs, what has been spent, and when a budget has room again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from retrainer.core.policy import Budget, Policy
from retrainer.core.state import ModelState, Spent

ROUNDING = 1e-9
"""Sums of prices are compared up to this share of the budget."""

PRICES = (1e-9, 1e15)
"""In units of loss; beyond them a retraining is free or never worth it, and their squares are no numbers any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A budget as it stands: how much of it is used, and why not more, until when; `why` is empty while there is room.

    `until` is None where time alone brings no room.
    """

    used: str
    allowed: str
    why: str = ""
    until: datetime | None = None


def expected(policy: Policy, state: ModelState) -> float | None:
    """What one execution is expected to cost: as declared, else the mean of the last ones; None if nobody knows yet."""
    if policy.costs and policy.costs.execution is not None:
        return policy.costs.execution
    # Each is divided first: the sum of large ones may be no number.
    return sum(cost / len(state.costs) for cost in state.costs) if policy.costs and state.costs else None


def price(policy: Policy, state: ModelState) -> float | None:
    """The price of a retraining in units of loss; None if nobody knows yet."""
    wanted = policy.triggers.regret
    if wanted and wanted.price is not None:
        return min(max(wanted.price, PRICES[0]), PRICES[1])
    cost, error = expected(policy, state), policy.costs.error if policy.costs else None
    return min(max(cost / error, PRICES[0]), PRICES[1]) if cost is not None and error is not None else None


def standing(
    budget: Budget, starts: Sequence[datetime], spent: Iterable[Spent], cost: float | None, currency: str, now: datetime
) -> Standing:
    """How the budget stands at `now` for one more execution of that cost, in the period (now - period, now].

    A cost that nobody knows yet counts as nothing: the first execution has to be paid to be known.
    """
    found: list[Standing] = []
    oldest = now - budget.period
    if budget.executions is not None:
        found.append(_executions(budget, budget.executions, sorted(s for s in starts if s > oldest)))
    if budget.money is not None:
        paid = sorted((s for s in spent if s.at > oldest), key=lambda s: s.at)
        found.append(_money(budget, budget.money, paid, cost or 0.0, currency))
    over = [s for s in found if s.why]
    untils = [s.until for s in over]
    return Standing(
        used=", ".join(s.used for s in found),
        allowed=", ".join(s.allowed for s in found),
        why="; ".join(s.why for s in over),
        until=None if None in untils else max((u for u in untils if u), default=None),
    )


def _executions(budget: Budget, allowed: int, starts: Sequence[datetime]) -> Standing:
    used = f"{len(starts)} of {allowed} executions"
    if len(starts) < allowed:
        return Standing(used=used, allowed=f"{allowed} executions")
    until = starts[-allowed] + budget.period
    why = f"{used} used until {until:%Y-%m-%d %H:%M} UTC"
    return Standing(used=used, allowed=f"{allowed} executions", why=why, until=until)


def _money(budget: Budget, allowed: float, paid: Sequence[Spent], cost: float, currency: str) -> Standing:
    total = sum(s.money for s in paid)
    used = f"{total:.2f} of {allowed:.2f} {currency}"
    room = allowed * (1 + ROUNDING) - cost
    if total <= room:
        return Standing(used=used, allowed=f"{allowed:.2f} {currency}")
    left, until = total, None
    for one in paid:
        left -= one.money
        if left <= room:
            until = one.at + budget.period
            break
    said = f"until {until:%Y-%m-%d %H:%M} UTC" if until else "more than all of it"
    why = f"{used} spent, one execution costs {cost:.2f}, {said}"
    return Standing(used=used, allowed=f"{allowed:.2f} {currency}", why=why, until=until)
