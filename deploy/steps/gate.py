"""Gate: retrainer.core.gate over the wire. The same function judges here, in the daemon and in the backtest."""

from dataclasses import asdict
from typing import Any

from retrainer.core.gate import Comparison, Rule, judge


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    evaluation, rule = event["evaluation"], event["rule"]
    seen = evaluation.get("comparison")
    verdict = judge(
        evaluation["metrics"],
        evaluation["champion_metrics"],
        evaluation["baselines"],
        Rule(
            metric=rule["metric"],
            min_gain=rule["min_gain"],
            baselines=tuple(rule["baselines"]),
            confidence=rule.get("confidence"),
        ),
        None if seen is None else Comparison(**seen),
    )
    return asdict(verdict)
