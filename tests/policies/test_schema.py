"""policies/schema.json, which editors complete and check with, agrees with what the daemon takes."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrainer.adapters.policy_files.strict_yaml import compose, plain
from retrainer.ports import ConfigError

HERE = Path(__file__).parent
POLICIES = HERE.parents[1] / "policies"
SCHEMA = json.loads((POLICIES / "schema.json").read_text())
MISTAKES = sorted((HERE / "mistakes").glob("*.yaml"))

ONLY_THE_DAEMON_KNOWS = frozenset(
    {
        "after-itself",
        "candidate-named-refit",
        "budget-money-below-a-price",
        "budget-money-without-costs",
        "column-derived-twice",
        "column-embedding-target",
        "column-missing-percent",
        "column-two-targets",
        "concept-without-predictions",
        "cron-hour-25",
        "cron-never",
        "drift-classifier-monitor",
        "drift-classifier-without-columns",
        "drift-clear-above-share",
        "drift-without-columns",
        "duration-zero-period",
        "freeze-backwards",
        "freeze-no-such-day",
        "performance-estimated-blindly",
        "performance-without-predictions",
        "predictions-test-of-the-other-kind",
        "quiet-hours-all-day",
        "quiet-zone",
        "reference-monitor-images",
        "reference-monitor-two-keys",
        "reference-monitor-uri",
        "reference-season-zone",
        "regret-of-auc",
        "regret-without-predictions",
        "regret-without-price",
        "schedule-quartz",
        "schedule-time-zone-offset",
        "schedule-time-zone-short",
        "timeouts-shorter-wait",
        "when-forgets-one",
        "when-names-undeclared",
        "when-repeated-schedule",
        "when-repeated-too-often",
        "when-schedule-unknown",
    }
)
"""Mistakes between fields, or in what a text means: a schema cannot say them, and an editor does not mark them."""


def is_taken(path: Path) -> bool:
    validator: Any = importlib.import_module("jsonschema").Draft202012Validator
    return bool(validator(SCHEMA).is_valid(plain(path, compose(path))))


def properties(at: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(at, dict):
        for name, value in at.get("properties", {}).items():
            yield f"{where}.{name}", value
        for key, value in at.items():
            if key in ("if", "then", "else"):
                continue  # a condition on fields, not fields
            yield from properties(value, f"{where}.{key}" if key != "properties" else where)


def test_every_field_has_a_description() -> None:
    found = dict(properties(SCHEMA))
    assert len(found) > 90
    assert [name for name, value in found.items() if not value.get("description")] == []


def test_a_default_is_written_as_a_policy_writes_it() -> None:
    assert "PT" not in json.dumps(SCHEMA)


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_editor_takes_the_shipped_policies(path: Path) -> None:
    assert is_taken(path)


def test_an_editor_completes_rules_inside_rules() -> None:
    definitions = SCHEMA["$defs"]
    for at in (
        definitions["Triggers"]["properties"]["when"]["anyOf"][0],
        definitions["AllOf"]["properties"]["all"]["items"],
        definitions["AnyOf"]["properties"]["any"]["items"],
        definitions["Repeated"]["properties"]["of"],
    ):
        assert at["oneOf"][0] == {"enum": ["drift", "performance", "regret", "concept", "volume"]}
        assert {"$ref": "#/$defs/AllOf"} in at["oneOf"]


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_an_editor_marks_every_mistake_of_structure(path: Path) -> None:
    try:
        taken = is_taken(path)
    except ConfigError:
        return  # not even YAML
    assert taken == (path.stem in ONLY_THE_DAEMON_KNOWS)
