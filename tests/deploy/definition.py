"""The state machine's definition and the template's expansion, as the tests of both read them."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from retrainer.local.provision import expand, load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ASL = DEPLOY / "statemachine" / "retraining.asl.json"
TEMPLATE = DEPLOY / "sam" / "template.yaml"
CODE, DEFINITION = {"Bucket": "code", "Key": "steps.zip"}, {"Bucket": "code", "Key": "retraining.asl.json"}
Node = dict[str, Any]


@cache
def definition() -> Node:
    return dict(json.loads(ASL.read_text()))


def states(machine: Node | None = None) -> Iterator[tuple[str, Node]]:
    """Every state by name, those inside a Map's iterations too."""
    for name, state in (machine or definition())["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states(state["ItemProcessor"])


def tasks() -> dict[str, Node]:
    return {name: state for name, state in states() if state["Type"] == "Task"}


def source() -> Node:
    return load(TEMPLATE)


@cache
def expanded() -> Node:
    """What CloudFormation is given: SAM's own translation, with code and definition as if they were uploaded."""
    template = source()
    template["Globals"]["Function"]["CodeUri"] = CODE
    template["Resources"]["StateMachine"]["Properties"]["DefinitionUri"] = DEFINITION
    return expand(template, {})


def resources(kind: str) -> dict[str, Node]:
    return {name: r["Properties"] for name, r in expanded()["Resources"].items() if r["Type"] == kind}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(policies: list[Node]) -> Iterator[Node]:
    for policy in policies:
        yield from as_list(policy["PolicyDocument"]["Statement"])
