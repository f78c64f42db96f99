"""A better policy searched for on the older part of a history, and told honestly by what it does on the rest.

The search sees the first part only: it runs every policy of a small declared space there and takes the cheapest. The
best few, the policy as it is and the default one then run over the whole history, which `decide` never looks ahead
in, and are judged by the batches of the rest alone. The cheapest of the search is the suggestion whatever the rest
says of it: to choose by the rest would be to search there.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median
from typing import Any, Final

from ruamel.yaml import YAML

from retrainer.backtest import statistics
from retrainer.backtest.history import History
from retrainer.backtest.report import Sheet, estimate_as_json, figure, interval
from retrainer.backtest.results import Result
from retrainer.backtest.statistics import BATCHES_MIN, Estimate
from retrainer.backtest.summary import costs
from retrainer.core.policy import (
    Column,
    DriftTrigger,
    Guards,
    PerformanceTrigger,
    Policy,
    RegretTrigger,
    Schedule,
    Triggers,
    VolumeTrigger,
)
from retrainer.explain import printable
from retrainer.ports import ConfigError

Runner = Callable[[Policy, History], Result]
"""Runs a policy over a history; what it keeps of one run for the next (models, losses) is its own affair."""

DEFAULT: Final = "the default"
DECLARED: Final = "the declared policy"

CRONS: Final[Mapping[str, tuple[str, timedelta]]] = {
    "daily": ("0 2 * * *", timedelta(days=1)),
    "weekly": ("0 2 * * 1", timedelta(days=7)),
    "monthly": ("0 2 1 * *", timedelta(days=30)),
    "quarterly": ("0 2 1 */3 *", timedelta(days=91)),
    "yearly": ("0 2 1 1 *", timedelta(days=365)),
}
SHARES: Final = (0.25, 0.5)
FACTORS: Final = (0.5, 2.0)
"""By which the thresholds of the columns' distances are multiplied."""
DROPS: Final = (0.05, 0.1, 0.2, 0.4)
BATCHES: Final = (2, 4, 8, 16, 32)
"""Of how many batches of the middle size a volume is."""
COOLDOWNS: Final = (4,)
"""In batches, beside the cooldown that is declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A policy of the space, or one of the two that it must beat."""

    name: str
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A candidate judged: its cost on the rest, and that less the default's; `searched` is the first part's."""

    candidate: Candidate
    searched: float
    cost: Estimate
    retrainings: int
    difference: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What came of the search. `pick` is the cheapest on the first part, `held` that and others judged on the rest.

    `default` names what the differences are from. `fragment` is YAML to be pasted over the policy's own sections.
    """

    history: str
    searched_batches: int
    held_batches: int
    tried: tuple[tuple[str, float], ...]
    pick: Held
    held: tuple[Held, ...]
    default: str
    verdict: str
    fragment: str


def suggest(
    policy: Policy,
    history: History,
    runner: Runner,
    *,
    share: float = 0.6,
    best: int = 3,
    tell: Callable[[str], object] = lambda text: None,
) -> Suggestion:
    """The cheapest policy of the space on the first `share` of the batches, judged on the others.

    Raises ConfigError where errors and retrainings cannot be weighed, or too little is left to judge by.
    """
    cut = int(len(history) * share)
    if not 0 < cut <= len(history) - BATCHES_MIN:
        raise ConfigError(
            f"{history.source} has {len(history)} batches, of which {len(history) - cut} are left to judge by; "
            f"--suggest needs {BATCHES_MIN} there: give a longer history or cut it into smaller batches"
        )
    known = [*_beside(policy)]
    space = [*known, *(c for c in space_of(policy, history.first(cut)) if not _is_among(c, known))]
    spent: dict[str, float] = {}
    price = None
    for n, candidate in enumerate(space, start=1):
        tell(f"searching: {n} of {len(space)}, {candidate.name}")
        result = runner(candidate.policy, history.first(cut))
        price = _price(result, policy) if price is None else price
        spent[candidate.name] = replace(result, price=price).cost
    ranked = sorted(space, key=lambda c: spent[c.name])
    finalists = _distinct(ranked, spent)[:best]
    judged = finalists + [c for c in known if c not in finalists]
    results = {}
    for n, candidate in enumerate(judged, start=1):
        tell(f"judging: {n} of {len(judged)}, {candidate.name}")
        results[candidate.name] = replace(runner(candidate.policy, history), price=price)
    default = known[0]
    held = tuple(_held(c, spent[c.name], results[c.name], results[default.name], cut) for c in judged)
    pick = held[0]
    return Suggestion(
        history=history.source,
        searched_batches=cut,
        held_batches=len(history) - cut,
        tried=tuple((c.name, spent[c.name]) for c in ranked),
        pick=pick,
        held=held,
        default=default.name,
        verdict=_verdict(pick, known, results, cut),
        fragment=fragment(policy, pick.candidate.policy, f"{pick.candidate.name}, found on {history.source}"),
    )


# --- the space ---


def space_of(policy: Policy, first: History) -> Iterator[Candidate]:
    """The policies that are tried, by what this one can read; volumes, periods and cooldowns fit the first part."""
    moments = [b.at for b in first.batches]
    spacing = (moments[-1] - moments[0]) / max(1, len(moments) - 1)
    waits = [("", policy.guards.cooldown)]
    longer = ((n, spacing * n) for n in COOLDOWNS)
    waits += [(f", cooldown {n} batches", _minutes(w)) for n, w in longer if w > policy.guards.cooldown]
    for name, changed in _levels(policy):
        for told, cooldown in waits:
            yield _candidate(name + told, changed, cooldown=cooldown)
    rows = int(median(b.rows for b in first.batches))
    for n in BATCHES:
        if rows and n <= len(first) / 4:
            yield _candidate(f"volume {n * rows}", _with(policy, volume=VolumeTrigger(rows=n * rows)))
    for name, (cron, period) in CRONS.items():
        if spacing <= period <= (moments[-1] - moments[0]) / 4:
            yield _candidate(name, _with(policy, schedules=(Schedule(name=name, cron=cron),)))


def _levels(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """Triggers that are read off a measurement, where the policy has what they measure."""
    if policy.data.predictions:
        if (regret := _regret(policy)) is not None:
            yield "regret", _with(policy, regret=regret)
        declared = policy.triggers.performance
        labels = PerformanceTrigger(drop=0.1).labels_min if declared is None else declared.labels_min
        for drop in DROPS:
            trigger = PerformanceTrigger(drop=drop, labels_min=labels)
            yield f"performance drop {drop:g}", _with(policy, performance=trigger)
    if policy.data.watched:
        rows = (policy.triggers.drift or DriftTrigger()).rows_min
        yield "drift of a column", _with(policy, drift=DriftTrigger(rows_min=rows))
        for share in SHARES:
            yield f"drift share {share:g}", _with(policy, drift=DriftTrigger(share=share, rows_min=rows))
        for factor in FACTORS:
            scaled = policy.data.model_copy(update={"columns": _scaled(policy.data.columns, factor)})
            changed = _with(policy, drift=DriftTrigger(rows_min=rows)).model_copy(update={"data": scaled})
            yield f"drift of a column, thresholds x {factor:g}", changed


def _beside(policy: Policy) -> Iterator[Candidate]:
    """First the default, which was never tuned, if the policy can have it; then the policy as it is, if it differs."""
    regret = _regret(policy)
    default = None
    if regret is not None and policy.data.predictions:
        update = {"triggers": Triggers(regret=regret, alarms=policy.triggers.alarms), "guards": _untuned(policy.guards)}
        default = policy.model_copy(update=update)
        yield Candidate(name=DEFAULT, policy=default)
    if default != policy:
        yield Candidate(name=DECLARED, policy=policy)


def _untuned(guards: Guards) -> Guards:
    """What somebody must not do stays; what is a matter of taste is as it comes."""
    kept = ("quiet_hours", "freezes", "budget", "fleet", "after")
    return Guards().model_copy(update={name: getattr(guards, name) for name in kept})


def _regret(policy: Policy) -> RegretTrigger | None:
    """The declared trigger, or one by the declared costs; None where there is no price."""
    if policy.triggers.regret:
        return policy.triggers.regret
    return RegretTrigger() if policy.costs and policy.costs.error else None


def _with(policy: Policy, **triggers: Any) -> Policy:
    """The policy with these triggers only. No history has alarms, so they stay."""
    return policy.model_copy(update={"triggers": Triggers(alarms=policy.triggers.alarms, **triggers)})


def _scaled(columns: Mapping[str, Column], factor: float) -> dict[str, Column]:
    """Distances must be `factor` times as large, p-values as small."""
    scaled = {}
    for name, column in columns.items():
        if column.test and column.threshold is not None:
            is_p_value = column.test in ("ks", "chisquare")
            threshold = float(f"{column.threshold / factor if is_p_value else column.threshold * factor:.6g}")
            column = column.model_copy(update={"threshold": threshold})
        scaled[name] = column
    return scaled


def _candidate(name: str, policy: Policy, cooldown: timedelta | None = None) -> Candidate:
    if cooldown is None:
        return Candidate(name=name, policy=policy)
    guards = policy.guards.model_copy(update={"cooldown": cooldown})
    return Candidate(name=name, policy=policy.model_copy(update={"guards": guards}))


def _is_among(candidate: Candidate, known: Sequence[Candidate]) -> bool:
    return any(candidate.policy == k.policy for k in known)


def _minutes(duration: timedelta) -> timedelta:
    return timedelta(minutes=max(1, round(duration.total_seconds() / 60)))


# --- the judgement ---


def _price(result: Result, policy: Policy) -> float:
    """What a retraining costs in errors, by the default or the declared policy: the same for all that are tried."""
    if result.price is None:
        raise ConfigError(
            f"{policy.model}: errors and retrainings cannot be weighed without costs; "
            "write what they cost, as in costs: {execution: 2.5, error: 0.01}"
        )
    return result.price


def _distinct(ranked: Sequence[Candidate], spent: Mapping[str, float]) -> list[Candidate]:
    """One of each cost, the first: what costs the same to the last digit did the same."""
    return list({spent[c.name]: c for c in reversed(ranked)}.values())[::-1]


def _held(candidate: Candidate, searched: float, result: Result, default: Result, cut: int) -> Held:
    own = _rest(result, cut)
    begin = next((s.at for s in result.served if s.index >= cut), None)
    return Held(
        candidate=candidate,
        searched=searched,
        cost=statistics.total([own[n] for n in sorted(own)], seed=result.seed),
        retrainings=sum(begin is not None and r.planned_at >= begin for r in result.counted),
        difference=None if result is default else _difference(result, default, cut),
    )


def _difference(result: Result, other: Result, cut: int) -> Estimate:
    own, theirs = _rest(result, cut), _rest(other, cut)
    both = sorted(own.keys() & theirs.keys())
    return statistics.difference([own[n] for n in both], [theirs[n] for n in both], seed=result.seed)


def _rest(result: Result, cut: int) -> dict[int, float]:
    """The costs of the batches from `cut` on, by their index."""
    return {s.index: cost for s, cost in zip(result.served, costs(result), strict=True) if s.index >= cut}


def _verdict(pick: Held, known: Sequence[Candidate], results: Mapping[str, Result], cut: int) -> str:
    """What the rest says of the pick, against the default and the policy as it is; never which to pick instead."""
    name = pick.candidate.name
    told, better, worse = [], True, []
    for other in known:
        if other.name == name:
            continue
        gap = _difference(results[name], results[other.name], cut)
        ends = gap.interval
        how = "too few batches to say how surely"
        if ends is not None:
            how = "better there, too" if ends.high < 0 else "worse" if ends.low > 0 else "the two cannot be told apart"
            how = f"{interval(gap, sign='+')}; {how}"
        better = better and ends is not None and ends.high < 0
        worse += [other.name] * (ends is not None and ends.low > 0)
        told.append(f"On the rest {name} cost {figure(gap.value, sign='+')} errors against {other.name} ({how}).")
    if any(c.name == name for c in known):
        told.insert(0, f"Nothing in the space was cheaper than {name} where it was searched.")
    elif better:
        told.append("It is worth a try.")
    else:
        told.append(f"Keep {worse[0]}." if worse else "There is no reason to change.")
    return " ".join(told)


# --- told ---


def fragment(declared: Policy, found: Policy, why: str) -> str:
    """The sections of `found` that differ, as YAML to be pasted over those of the policy's file."""
    sections: dict[str, Any] = {}
    if found.data != declared.data:
        sections["data"] = {"columns": _plain(found.data)["columns"]}
    for name in ("triggers", "guards"):
        if getattr(found, name) != getattr(declared, name):
            sections[name] = _plain(getattr(found, name))
    yaml, out = YAML(), io.StringIO()
    yaml.default_flow_style = False
    if sections:
        yaml.dump(sections, out)
    return f"# {printable(why)}\n{out.getvalue() or '# nothing differs'}"


def _plain(section: Any) -> Any:
    return section.model_dump(mode="json", exclude_defaults=True, by_alias=True)


def sheets(found: Suggestion) -> tuple[Sheet, ...]:
    """The candidates on the rest with their spread, and the search."""
    rows = tuple(
        (
            printable(h.candidate.name),
            figure(h.searched),
            figure(h.cost.value),
            interval(h.cost),
            figure(h.difference.value, sign="+") if h.difference else "-",
            interval(h.difference, sign="+"),
            str(h.retrainings),
        )
        for h in found.held
    )
    rest = Sheet(
        title=printable(f"The best of {len(found.tried)} policies on the last {found.held_batches} of {found.history}"),
        columns=("policy", "searched", "cost", "95 % interval", f"- {found.default}", "95 % interval", "retrainings"),
        rows=rows,
        right=frozenset(range(1, 7)),
        notes=(
            found.verdict,
            f"searched: the cost on the first {found.searched_batches} batches, by which the first row was chosen; "
            "everything else is of the rest, on which nothing was.",
        ),
    )
    tried = tuple((printable(name), figure(cost)) for name, cost in found.tried)
    search = Sheet(title="The search", columns=("policy", "cost"), rows=tried, right=frozenset({1}))
    return search, rest


def as_json(found: Suggestion) -> dict[str, Any]:
    """Plain values, fit for JSON."""
    same = "history searched_batches held_batches default verdict fragment"
    return {
        **{name: getattr(found, name) for name in same.split()},
        "pick": found.pick.candidate.name,
        "tried": [{"policy": name, "cost": cost} for name, cost in found.tried],
        "held": [
            {
                "policy": h.candidate.name,
                "searched_cost": h.searched,
                "cost": estimate_as_json(h.cost),
                "difference": estimate_as_json(h.difference),
                "retrainings": h.retrainings,
            }
            for h in found.held
        ],
    }
