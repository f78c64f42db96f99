"""Gate: retrainer.core.gate over the wire. The same function judges here, in the daemon and in the backtest."""

from dataclasses import asdict
from typing import Any

from retrainer.core.gate import Rule, judge


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    evaluation, rule = event["evaluation"], event["rule"]
    verdict = judge(
        evaluation["metrics"],
        evaluation["champion_metrics"],
        evaluation["baselines"],
        Rule(metric=rule["metric"], min_gain=rule["min_gain"], baselines=tuple(rule["baselines"])),
    )
    return asdict(verdict)
