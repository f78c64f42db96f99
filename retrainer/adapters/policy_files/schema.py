"""The JSON schema of a policy file, for editors."""

import json
import re

from retrainer.core.policy import Policy


def schema() -> str:
    """The text of policies/schema.json."""
    made = Policy.model_json_schema()
    for owner, filled in (("Data", "bucket"), ("Action", "state_machine")):
        made["$defs"][owner]["required"].remove(filled)
    plain = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
    made["$defs"]["Candidate"]["properties"]["hyperparameters"]["additionalProperties"] = plain
    _write_durations(made)
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
