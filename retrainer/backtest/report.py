"""A backtest for a terminal and for machines: sheets of text, and plain values with keys that stay."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from retrainer.backtest.results import BatchScore, Fired, Result, Retraining, Step
from retrainer.backtest.statistics import Estimate, Interval
from retrainer.backtest.summary import Summary, alike, is_fruitless, summarise, unpaid
from retrainer.explain import MEANING, printable

LISTED = 40
"""Retrainings listed on a terminal; the page and the JSON have all."""


MIXED = "The policies say different prices, or none; all are counted at the first that is said."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table of texts with a sentence above and some below; columns numbered in `right` are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def sheets(results: Sequence[Result]) -> tuple[Sheet, ...]:
    """One policy: what it would have done. Several: one row a policy, the cheapest first, then the first in full."""
    prices = {r.price for r in results}
    results = alike(results)
    found = summarise(results)
    told = [figures(results[0], found[0]), retrainings(results[0]), why_not(results[0])]
    if len(results) > 1:
        told.insert(0, comparison(results, found))
    notes = (said(results, found), *told[0].notes, *([MIXED] if len(prices) > 1 else []))
    return (replace(told[0], notes=notes), *told[1:])


# --- one policy ---


def headline(result: Result) -> str:
    """What was replayed, in one line."""
    if not result.scores:
        return printable(f"{result.name} on {result.history}: no batches")
    begin, end = result.scores[0].at, result.scores[-1].at
    return printable(
        f"{result.name} on {result.history}: {result.batches} batches, {begin:%Y-%m-%d} to {end:%Y-%m-%d}, "
        f"labels {span(result.label_delay)} late, a training takes {span(result.training_takes)}, "
        f"{result.family}, {result.metric}, seed {result.seed}"
    )


def said(results: Sequence[Result], summaries: Sequence[Summary]) -> str:
    """What came out, in two or three sentences."""
    own, result = summaries[0], results[0]
    if not result.served:
        return f"Under {printable(own.name)} no model was ever promoted, so there is nothing to compare."
    bad = [f"{own.fruitless} not promoted"] * bool(own.fruitless) + [f"{own.unpaid} unpaid"] * bool(own.unpaid)
    wrong = f" ({', '.join(bad)})" if bad else ""
    name, times = printable(own.name), _times(own.retrainings)
    told = f"Under {name} the model would have been retrained {times}{wrong}, at a cost of {_sure(own.cost)} errors"
    if result.price:
        told += f", a retraining counted as {figure(result.price)}"
    told += f": {_sure(own.ratio, digits=2)} times the best possible in hindsight." if own.ratio else "."
    if len(summaries) == 1:
        return told
    best = min(summaries, key=lambda s: s.cost.value)
    if best is own:
        return f"{told} None of the {len(summaries) - 1} compared is cheaper."
    gap = best.difference
    clear = gap is not None and gap.interval is not None and gap.interval.high < 0
    end = "." if clear else ", which is not enough to tell the two apart."
    return f"{told} {printable(best.name)} is the cheapest, by {_sure(_negated(gap))} errors{end}" if gap else told


def figures(result: Result, summary: Summary) -> Sheet:
    """Every figure of one policy with its interval."""
    rows = [
        ("errors", *_cells(summary.errors)),
        ("retrainings", str(summary.retrainings), ""),
        ("  fruitless: not promoted", str(summary.fruitless), ""),
        ("  unpaid: avoided less than the price", "-" if summary.unpaid is None else str(summary.unpaid), ""),
        ("price of a retraining, in errors", figure(result.price), ""),
        ("cost = errors + retrainings x price", *_cells(summary.cost)),
        ("cost of the hindsight optimum", figure(summary.optimum), ""),
        ("regret = cost - optimum", *_cells(summary.regret)),
        ("cost / optimum", *_cells(summary.ratio, digits=3)),
        (f"money, {result.currency}", *_cells(summary.money)),
        ("reaction: half within", _latency(summary, 0), ""),
        ("reaction: nine of ten within", _latency(summary, 1), ""),
    ]
    return Sheet(
        title=printable(f"Figures of {result.name}"),
        columns=("figure", "value", "95 % interval"),
        rows=tuple(rows),
        right=frozenset({1, 2}),
        notes=_notes(result, summary),
    )


def retrainings(result: Result, *, listed: int = LISTED) -> Sheet:
    """Each retraining: when, why, what came of it, what it cost."""
    shown = result.retrainings[:listed]
    rest = len(result.retrainings) - len(shown)
    return Sheet(
        title=printable(f"Retrainings of {result.name}"),
        columns=("decided at", "asked for by", "verdict", "gate", "avoided", printable(f"cost, {result.currency}")),
        rows=tuple(
            (day(r.planned_at), asked(r), verdict(r), gate(r), figure(r.avoided), figure(r.cost)) for r in shown
        ),
        right=frozenset({4, 5}),
        notes=(f"and {rest} more: --json or --html shows all",) if rest else (),
    )


def why_not(result: Result) -> Sheet:
    """How often each reason was given, the commonest first."""
    return Sheet(
        title=f"Why, and why not: {len(result.steps)} decisions",
        columns=("reason", "decisions", "which means"),
        rows=tuple((reason, f"{count:,}", MEANING.get(reason, "")) for reason, count in result.reasons.items()),
        right=frozenset({1}),
    )


# --- several ---


def comparison(results: Sequence[Result], summaries: Sequence[Summary]) -> Sheet:
    """One row a policy, the cheapest first; each but the first given is compared with that one."""
    ordered = sorted(summaries, key=lambda s: s.cost.value)
    first = printable(results[0].name)
    return Sheet(
        title=printable(f"{len(results)} policies on {results[0].history}, the cheapest first"),
        columns=(
            "policy",
            "cost",
            "95 % interval",
            f"cost - {first}",
            "95 % interval",
            "/ optimum",
            "retrainings",
            "false",
            "errors",
        ),
        rows=tuple(_row(s, summaries[0]) for s in ordered),
        right=frozenset(range(1, 9)),
        notes=(
            f"An interval of cost - {first} that holds 0: on this history the two cannot be told apart.",
            "false: retrainings that were not promoted, or avoided less than they cost.",
        ),
    )


def _row(summary: Summary, first: Summary) -> tuple[str, ...]:
    difference = ("-", "") if summary is first else _cells(summary.difference, sign="+")
    ratio = figure(summary.ratio.value, digits=3) if summary.ratio else "-"
    false = summary.fruitless + (summary.unpaid or 0)
    counts = (str(summary.retrainings), str(false), figure(summary.errors.value))
    return (summary.name, *_cells(summary.cost), *difference, ratio, *counts)


# --- words of a retraining ---


def asked(retraining: Retraining) -> str:
    """What asked for it, each trigger with its figures."""
    if retraining.first:
        return "the end of the warm-up"
    return "; ".join(f"{_named(t)}: {t.why}" for t in retraining.triggers)


def _named(fired: Fired) -> str:
    kind = fired.kind.value
    return kind if fired.name in ("", kind) else f"{kind} {fired.name}"


def verdict(retraining: Retraining) -> str:
    """What became of it; the history may have ended first."""
    if retraining.verdict is not None:
        return retraining.verdict.value
    return "failed" if is_fruitless(retraining) else "under way at the end"


def gate(retraining: Retraining) -> str:
    """The figures that the gate compared."""
    if retraining.challenger is None:
        return "-"
    champion = "no champion" if retraining.champion is None else f"{retraining.champion:.4f}"
    return f"{retraining.challenger:.4f} against {champion}"


# --- figures as text ---


def figure(value: float | None, *, digits: int | None = None, sign: str = "") -> str:
    """A number with as many digits as can matter; - where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if digits is None:
        digits = _digits(value)
    return f"{value:{sign},.{digits}f}"


def _digits(value: float) -> int:
    return 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 3


def interval(estimate: Estimate | None, *, digits: int | None = None, sign: str = "") -> str:
    """Its two ends; empty where there are too few batches."""
    if estimate is None or estimate.interval is None:
        return ""
    ends = (estimate.interval.low, estimate.interval.high)
    if digits is None:
        digits = _digits(max(map(abs, (estimate.value, *ends))))
    return " to ".join(figure(end, digits=digits, sign=sign) for end in ends)


def span(duration: timedelta) -> str:
    """A duration in its two largest units, as in 3 d 4 h."""
    left, parts = int(duration.total_seconds()), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def day(moment: datetime) -> str:
    """A moment to the minute, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _sure(estimate: Estimate | None, *, digits: int | None = None) -> str:
    value = figure(estimate.value if estimate else None, digits=digits)
    ends = interval(estimate, digits=digits)
    return f"{value} ({ends})" if ends else value


def _negated(estimate: Estimate | None) -> Estimate | None:
    if estimate is None or estimate.interval is None:
        return estimate and Estimate(value=-estimate.value, interval=None)
    ends = estimate.interval
    return Estimate(value=-estimate.value, interval=Interval(low=-ends.high, high=-ends.low))


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _cells(estimate: Estimate | None, *, digits: int | None = None, sign: str = "") -> tuple[str, str]:
    value = figure(estimate.value if estimate else None, digits=digits, sign=sign)
    return value, interval(estimate, digits=digits, sign=sign)


def _latency(summary: Summary, which: int) -> str:
    return span(summary.latencies[which]) if summary.latencies else "-"


def _notes(result: Result, summary: Summary) -> tuple[str, ...]:
    said = []
    if result.price is None:
        said.append(
            "The policy has no costs, so retrainings are free here: write costs: {execution: 2.5, error: 0.01}."
        )
    if summary.errors.interval is None and result.served:
        said.append(f"{len(result.served)} batches served are too few for intervals.")
    if not result.served:
        said.append("No model was ever promoted, so nothing was served.")
    return tuple(said)


# --- for machines ---


def as_json(result: Result, beside: Result | None = None) -> dict[str, Any]:
    """Plain values, fit for JSON; `beside` is the policy that this one's `difference` is from, at its price."""
    found = summarise((result,))[0] if beside is None else summarise(alike((beside, result)))[1]
    same = "name model policy_hash family metric seed history batches first_served price execution_cost error_cost"
    return {
        **{name: getattr(result, name) for name in same.split()},
        "currency": result.currency,
        "label_delay_seconds": result.label_delay.total_seconds(),
        "training_takes_seconds": result.training_takes.total_seconds(),
        "took_seconds": result.took_seconds,
        "summary": _summary(found),
        "reasons": result.reasons,
        "triggers": result.fired,
        "retrainings": [_retraining(r, unpaid(result)) for r in result.retrainings],
        "optimum": result.optimum
        and {
            "cost": result.optimum.cost,
            "errors": result.optimum.errors,
            "retrain_at": [moment.isoformat() for moment in result.optimum.retrain_at],
        },
        "batch_scores": [_score(s) for s in result.scores],
        "decisions": [_step(s) for s in result.steps],
    }


def _summary(found: Summary) -> dict[str, Any]:
    names = ("half", "nine_tenths", "all")
    return {
        "retrainings": found.retrainings,
        "fruitless": found.fruitless,
        "unpaid": found.unpaid,
        "optimum": found.optimum,
        **{
            n: estimate_as_json(getattr(found, n)) for n in ("errors", "cost", "ratio", "regret", "money", "difference")
        },
        "reaction_seconds": {
            name: found.latencies[n].total_seconds() if found.latencies else None for n, name in enumerate(names)
        },
    }


def estimate_as_json(estimate: Estimate | None) -> Mapping[str, float | None] | None:
    if estimate is None or not math.isfinite(estimate.value):
        return None
    ends = estimate.interval
    return {"value": estimate.value, "low": ends.low if ends else None, "high": ends.high if ends else None}


def _retraining(known: Retraining, poor: Sequence[Retraining] | None) -> dict[str, Any]:
    same = "name generation decision first why batches rows through challenger champion holdout_rows cost avoided"
    return {
        **{name: getattr(known, name) for name in same.split()},
        "verdict": verdict(known),
        "unpaid": None if poor is None else known in poor,
        **{name: _moment(getattr(known, name)) for name in ("planned_at", "started_at", "ended_at")},
        "triggers": [
            {"kind": t.kind.value, "name": t.name, "why": t.why, "since": t.since.isoformat()} for t in known.triggers
        ],
    }


def _score(score: BatchScore) -> dict[str, Any]:
    same = "index key rows loss_sum generation drift_share"
    moments = {name: _moment(getattr(score, name)) for name in ("at", "label_at")}
    return {**{name: getattr(score, name) for name in same.split()}, **moments}


def _step(step: Step) -> dict[str, Any]:
    same = "decision event_kind identity event reason detail state_hash_before state_hash_after"
    lists = {"triggers": list(step.triggers), "effects": list(step.effects)}
    return {"at": step.at.isoformat(), **{name: getattr(step, name) for name in same.split()}, **lists}


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
