"""The state machines' definitions and the template's expansion, as the tests of both read them."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from retrainer.local.provision import expand, load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ASL = DEPLOY / "statemachine" / "retraining.asl.json"
PROFILE_ASL = DEPLOY / "statemachine" / "profile.asl.json"
MACHINES = {"StateMachine": ASL, "ProfileStateMachine": PROFILE_ASL}
"""The definition of each state machine of the template."""
TEMPLATE = DEPLOY / "sam" / "template.yaml"
CODE = {"Bucket": "code", "Key": "steps.zip"}
Node = dict[str, Any]


@cache
def definition(path: Path = ASL) -> Node:
    return dict(json.loads(path.read_text()))


def states(machine: Node | None = None) -> Iterator[tuple[str, Node]]:
    """Every state by name, those inside a Map's iterations too."""
    for name, state in (machine or definition())["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states(state["ItemProcessor"])


def tasks(machine: Node | None = None) -> dict[str, Node]:
    return {name: state for name, state in states(machine) if state["Type"] == "Task"}


def all_tasks() -> dict[str, Node]:
    """Of all state machines; no two have a state of one name."""
    return {name: state for path in MACHINES.values() for name, state in tasks(definition(path)).items()}


def source() -> Node:
    return load(TEMPLATE)


@cache
def expanded() -> Node:
    """What CloudFormation is given: SAM's own translation, with code and definition as if they were uploaded."""
    template = source()
    template["Globals"]["Function"]["CodeUri"] = CODE
    for name, path in MACHINES.items():
        template["Resources"][name]["Properties"]["DefinitionUri"] = {"Bucket": "code", "Key": path.name}
    return expand(template, {})


def resources(kind: str) -> dict[str, Node]:
    return {name: r["Properties"] for name, r in expanded()["Resources"].items() if r["Type"] == kind}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(policies: list[Node]) -> Iterator[Node]:
    for policy in policies:
        yield from as_list(policy["PolicyDocument"]["Statement"])
