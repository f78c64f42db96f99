"""policies/README.md is the reference: all YAML in it is right, its cases hold, and no field is forgotten."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from retrainer import cases, wiring
from retrainer.adapters import schedules
from retrainer.adapters.policy_files.strict_yaml import compose, plain

POLICIES = Path(__file__).parents[2] / "policies"
README = (POLICIES / "README.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CASES = re.findall(r"^```cases\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def merged(under: Any, over: Any) -> Any:
    """A fragment on a whole policy: sections go into one another, all else replaces."""
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{key: merged(under.get(key), value) for key, value in over.items()}}
    return over


def whole(directory: Path, block: str) -> Path:
    """The block as a policy; what it leaves out is the policy of the section "A whole policy"."""
    path = directory / "churn.yaml"
    path.write_text(block)
    given = plain(path, compose(path))
    if "model" not in given:
        path.write_text(BLOCKS[-1])
        base = plain(path, compose(path))
        for section in ("triggers", "windows"):
            if section in given:
                base.pop(section, None)  # `when` has to name just what is declared
        path.write_text(json.dumps(merged(base, given)))
    return path


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_yaml_in_the_reference_is_right(tmp_path: Path, block: str) -> None:
    assert wiring.load_policy(whole(tmp_path, block)).model == "churn"


def test_the_policy_in_the_projects_readme_is_right(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (POLICIES.parent / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert wiring.load_policy(whole(tmp_path, block)).model == "churn"


def test_cases_in_the_reference_hold(tmp_path: Path) -> None:
    policy = wiring.load_policy(whole(tmp_path, BLOCKS[-1]))
    (text,) = CASES
    given = cases.read(Path("README.md"), text)
    for result in cases.run(given, policy, schedules.due):
        assert result.is_met, cases.told("README.md", result, given.zone, policy)


def test_every_field_is_in_the_reference() -> None:
    schema = json.loads((POLICIES / "schema.json").read_text())
    fields = {name for d in (schema, *schema["$defs"].values()) for name in d["properties"]}
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    told = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`([^`]+)`", prose))))
    sections = set(re.findall(r"^## (\w+)|^## \w+ and (\w+)", README, re.MULTILINE))
    told |= {name for pair in sections for name in pair}
    assert sorted(fields - told) == []
