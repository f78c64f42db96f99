"""The JSON schema of a policy file, for editors."""

import json
import re
from typing import Any, Final

from retrainer.core.policy import Policy
from retrainer.core.policy.data import CATEGORICAL, NUMERICAL
from retrainer.core.policy.triggers import LEVELS

_NAMES: Final = [
    {"enum": list(LEVELS)},
    {"type": "string", "pattern": "^schedule:[a-z0-9-]{1,24}$", "examples": ["schedule:nightly"]},
    {"type": "string", "pattern": "^alarm:.+$", "examples": ["alarm:high-latency"]},
]
"""What the name of a trigger in a rule may be; the schema cannot know which are declared."""
_MORE: Final[dict[str, dict[str, Any]]] = {
    "Budget": {"anyOf": [{"required": ["executions"]}, {"required": ["money"]}]},
    "Column": {
        "dependentRequired": {"threshold": ["test"]},
        "if": {"properties": {"kind": {"const": "categorical"}}, "required": ["kind"]},
        "then": {"properties": {"test": {"enum": [*CATEGORICAL, None]}}},
        "else": {"properties": {"test": {"enum": [*NUMERICAL, None]}}},
    },
    "Current": {"maxProperties": 1},
    "DriftTrigger": {"dependentRequired": {"clear": ["share"]}},
    "Fleet": {"anyOf": [{"required": ["concurrency"]}, {"required": ["budget"]}]},
    "Predictions": {
        "dependentRequired": {"threshold": ["test"]},
        "if": {"properties": {"metric": {"const": "hit_rate_at_10"}}, "required": ["metric"]},
        "then": {"properties": {"test": {"type": "null"}}},
    },
    "Reference": {
        "if": {"properties": {"of": {"enum": ["fixed", "monitor"]}}, "required": ["of"]},
        "then": {"required": ["keys"], "properties": {"season": {"type": "null"}}},
        "else": {"properties": {"keys": {"maxItems": 0}}},
        "dependentRequired": {"time_zone": ["season"]},
    },
    "PerformanceTrigger": {
        "anyOf": [{"required": ["drop"]}, {"required": ["limit"]}],
        "dependentRequired": {"clear": ["drop"]},
    },
}
"""What validators ask for that a schema can say, so that an editor marks it too."""
_MOMENT: Final = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d))?$"
_PATTERNS: Final = {
    ("Schedule", "cron"): r"^\s*\S+(\s+\S+){4}\s*$",
    ("Freeze", "from"): _MOMENT,
    ("Freeze", "to"): _MOMENT,
}


def schema() -> str:
    """The text of policies/schema.json."""
    made = Policy.model_json_schema()
    for owner, filled in (("Data", "bucket"), ("Action", "state_machine"), ("ScaleOut", "state_machine")):
        made["$defs"][owner]["required"].remove(filled)
    plain = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
    made["$defs"]["Candidate"]["properties"]["hyperparameters"]["additionalProperties"] = plain
    for owner, more in _MORE.items():
        made["$defs"][owner] |= more
    for (owner, name), pattern in _PATTERNS.items():
        made["$defs"][owner]["properties"][name]["pattern"] = pattern
    _write_durations(made)
    _name_triggers(made)
    return json.dumps(made, indent=2) + "\n"


def _write_durations(at: object) -> None:
    """Defaults of durations as they are written in a policy (6h), where pydantic writes ISO 8601 (PT6H)."""
    if isinstance(at, dict):
        default = at.get("default")
        if isinstance(default, str) and (found := re.fullmatch(r"P(?:T(\d+)([HMS])|(\d+)([DW]))", default)):
            at["default"] = (found[1] or found[3]) + (found[2] or found[4]).lower()
        for value in at.values():
            _write_durations(value)
    elif isinstance(at, list):
        for value in at:
            _write_durations(value)


def _name_triggers(at: object) -> None:
    """In rules, the names of triggers for any text."""
    if isinstance(at, dict):
        if {"$ref": "#/$defs/AllOf"} in at.get("oneOf", ()):
            at["oneOf"] = [*_NAMES, *(option for option in at["oneOf"] if "$ref" in option)]
        for value in at.values():
            _name_triggers(value)
    elif isinstance(at, list):
        for value in at:
            _name_triggers(value)
