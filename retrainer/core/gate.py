"""The gate: may the challenger replace the champion? Numbers in, a verdict with its reason out.

Higher is better for every metric here. The champion has to be matched by at least `min_gain`; each baseline has to be
beaten outright, because a model that a sorted list of popular items can equal is not worth serving.

How sure a gain is comes from a paired bootstrap of the evaluation: both models on the same resampled cases. With a
`confidence`, the gain has to be more than `min_gain` in that share of the resamplings, which is to say that the lower
end of its one-sided interval has to be (Efron and Tibshirani 1993, chapter 13). An equal challenger then no longer
passes a `min_gain` of 0; one below 0 asks for no more than being no worse by that much.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Metrics = Mapping[str, float]

ROUNDING = 1e-12
"""0.11 - 0.10 is less than 0.01 in binary; a gain short by no more than this is the gain that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a policy asks of a challenger. `min_gain` is absolute, in units of the metric; 0 accepts an equal.

    `confidence` is the share of the resamplings that must gain so much; None: the gain itself decides.
    """

    metric: str
    min_gain: float = 0.0
    baselines: tuple[str, ...] = ()
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How sure the gain over the champion is: the ends of its 95 % interval, and shares of the `resamplings`.

    `better`: where the challenger is better; `enough`: where it gains more than `min_gain`. A tie is half in both.
    """

    low: float
    high: float
    better: float
    enough: float
    resamplings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reason` is one sentence with the numbers; `gain` is challenger minus champion, None without a champion."""

    accepted: bool
    reason: str
    gain: float | None


def compare(low: float, high: float, better: float, resampled: Sequence[float], min_gain: float) -> Comparison:
    """`resampled` is the gain in each of the resamplings, at least one."""
    above = sum(gain > min_gain + ROUNDING for gain in resampled)
    equal = sum(abs(gain - min_gain) <= ROUNDING for gain in resampled)
    enough = (above + equal / 2) / len(resampled)
    return Comparison(low=low, high=high, better=better, enough=enough, resamplings=len(resampled))


def judge(
    challenger: Metrics,
    champion: Metrics | None,
    baselines: Mapping[str, Metrics],
    rule: Rule,
    comparison: Comparison | None = None,
) -> Verdict:
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
    return _against_champion(value, gain, rule, comparison)


def _unbeaten_baseline(value: float, baselines: Mapping[str, Metrics], rule: Rule) -> str | None:
    for name in rule.baselines:
        floor = _number(baselines.get(name, {}), rule.metric)
        if floor is None:
            return f"The baseline {name} has no finite {rule.metric} to compare with."
        if value <= floor:
            return f"{rule.metric} {value:.4f} does not beat the baseline {name} at {floor:.4f}."
    return None


def _against_champion(value: float, gain: float | None, rule: Rule, comparison: Comparison | None) -> Verdict:
    if gain is None:
        beaten = f" and beats {', '.join(rule.baselines)}" if rule.baselines else ""
        reason = f"{rule.metric} {value:.4f}{beaten}; there is no champion yet."
        return Verdict(accepted=True, reason=reason, gain=None)
    seen = f"{rule.metric} {value:.4f} against the champion's {value - gain:.4f}: a gain of {gain:+.4f}"
    if rule.confidence is None:
        accepted = gain >= rule.min_gain - ROUNDING
        wanted = f"{'meets' if accepted else 'misses'} the least gain of {rule.min_gain:.4f}"
        return Verdict(accepted=accepted, reason=f"{seen}{_how_sure(comparison)} {wanted}.", gain=gain)
    if comparison is None:
        return _refused(
            f"{seen}, and the evaluation does not say how sure it is: against_champion of evaluation.json is needed "
            f"for a confidence of {_share(rule.confidence)}.",
            gain,
        )
    accepted = comparison.enough >= rule.confidence - ROUNDING
    wanted = (
        f"{'meets' if accepted else 'misses'} the least gain of {rule.min_gain:.4f} in {_share(rule.confidence)}: "
        f"it is exceeded in {_share(comparison.enough)} of them"
    )
    return Verdict(accepted=accepted, reason=f"{seen}{_how_sure(comparison)} {wanted}.", gain=gain)


def _how_sure(found: Comparison | None) -> str:
    if found is None:
        return ""
    return (
        f" (95 % interval {found.low:+.4f} to {found.high:+.4f}, "
        f"better in {_share(found.better)} of {found.resamplings:,} resamplings)"
    )


def _share(share: float) -> str:
    """With a space before the sign and no zeros after the point that say nothing: 95 %, 99.8 %."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _refused(reason: str, gain: float | None = None) -> Verdict:
    return Verdict(accepted=False, reason=reason, gain=gain)


def _number(metrics: Metrics, name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if value is not None and math.isfinite(value) else None
