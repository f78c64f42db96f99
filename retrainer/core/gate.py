"""The gate: may the challenger replace the champion? Numbers in, a verdict with its reason out.

Higher is better for every metric here. The champion has to be matched by at least `min_gain`; each baseline has to be
beaten outright, because a model that a sorted list of popular items can equal is not worth serving.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

Metrics = Mapping[str, float]

ROUNDING = 1e-12
"""0.11 - 0.10 is less than 0.01 in binary; a gain short by no more than this is the gain that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a policy asks of a challenger. `min_gain` is absolute, in units of the metric; 0 accepts an equal."""

    metric: str
    min_gain: float = 0.0
    baselines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reason` is one sentence with the numbers; `gain` is challenger minus champion, None without a champion."""

    accepted: bool
    reason: str
    gain: float | None


def judge(challenger: Metrics, champion: Metrics | None, baselines: Mapping[str, Metrics], rule: Rule) -> Verdict:
    """Refuse on the first objection: no number to judge by, a baseline not beaten, too little gain."""
    value = _number(challenger, rule.metric)
    if value is None:
        return _refused(f"The challenger has no finite {rule.metric}.")
    gain = None
    if champion is not None:
        champion_value = _number(champion, rule.metric)
        if champion_value is None:
            return _refused(f"The champion has no finite {rule.metric} to compare with.")
        gain = value - champion_value
    objection = _unbeaten_baseline(value, baselines, rule)
    if objection is not None:
        return _refused(objection, gain)
    return _against_champion(value, gain, rule)


def _unbeaten_baseline(value: float, baselines: Mapping[str, Metrics], rule: Rule) -> str | None:
    for name in rule.baselines:
        floor = _number(baselines.get(name, {}), rule.metric)
        if floor is None:
            return f"The baseline {name} has no finite {rule.metric} to compare with."
        if value <= floor:
            return f"{rule.metric} {value:.4f} does not beat the baseline {name} at {floor:.4f}."
    return None


def _against_champion(value: float, gain: float | None, rule: Rule) -> Verdict:
    if gain is None:
        beaten = f" and beats {', '.join(rule.baselines)}" if rule.baselines else ""
        reason = f"{rule.metric} {value:.4f}{beaten}; there is no champion yet."
        return Verdict(accepted=True, reason=reason, gain=None)
    accepted = gain >= rule.min_gain - ROUNDING
    wanted = "meets" if accepted else "misses"
    reason = (
        f"{rule.metric} {value:.4f} against the champion's {value - gain:.4f}: "
        f"a gain of {gain:+.4f} {wanted} the least gain of {rule.min_gain:.4f}."
    )
    return Verdict(accepted=accepted, reason=reason, gain=gain)


def _refused(reason: str, gain: float | None = None) -> Verdict:
    return Verdict(accepted=False, reason=reason, gain=gain)


def _number(metrics: Metrics, name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if value is not None and math.isfinite(value) else None
