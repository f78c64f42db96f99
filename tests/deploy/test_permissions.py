"""The state machine's role may do what its definition does, and nothing else.

The needed permissions are derived from the definition, by AWS's own page on each integration:
https://docs.aws.amazon.com/step-functions/latest/dg/service-integration-iam-templates.html
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.deploy.definition import Node, as_list, expanded, resources, statements, tasks

Grant = tuple[str, str]
"""(action, resource); the resource is the template's own text for it."""

LOGS = {
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}
TRACES = {"xray:PutTraceSegments", "xray:PutTelemetryRecords", "xray:GetSamplingRules", "xray:GetSamplingTargets"}
# Actions whose resource can only be "*", by the Service Authorization Reference.
NEEDS_STAR = {
    **dict.fromkeys(LOGS, "log deliveries have no ARN"),
    **dict.fromkeys(TRACES, "X-Ray has no resources"),
    "ecr:GetAuthorizationToken": "a token is the registry's, not a repository's",
    "cloudwatch:PutMetricData": "metrics have no ARN; the namespace condition narrows it",
    "sagemaker:ListModelPackages": "a list has no resource",
}


def test_the_actions_the_state_machine_implies_are_the_actions_its_role_grants() -> None:
    assert _granted("StateMachineRole") == _implied()


def test_roles_are_only_passed_to_sagemaker() -> None:
    passing = [s for s in _all_statements() if "iam:PassRole" in as_list(s["Action"])]
    assert len(passing) == 2
    for statement in passing:
        assert statement["Condition"]["StringEquals"] == {"iam:PassedToService": "sagemaker.amazonaws.com"}
        assert _text(statement["Resource"]) == "SageMakerRole.Arn"


def test_a_star_stands_only_where_aws_has_nothing_finer() -> None:
    for statement in _all_statements():
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in as_list(statement["Action"]))
        if "*" in as_list(statement["Resource"]):
            assert set(as_list(statement["Action"])) <= NEEDS_STAR.keys()


def test_every_function_has_a_role_of_its_own() -> None:
    functions = resources("AWS::Lambda::Function")
    assert len({_text(f["Role"]) for f in functions.values()}) == len(functions) == 7


def test_the_gate_may_do_nothing_at_all() -> None:
    assert "Policies" not in resources("AWS::IAM::Role")["GateFunctionRole"]


def test_roles_are_assumed_by_aws_services_only() -> None:
    for role in resources("AWS::IAM::Role").values():
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            assert set(statement["Principal"]) == {"Service"}


def _implied() -> set[Grant]:
    found: set[Grant] = set()
    for task in tasks().values():
        found |= set(_implied_by(task))
    assert "LoggingConfiguration" in resources("AWS::StepFunctions::StateMachine")["StateMachine"]
    return found | {(action, "*") for action in LOGS | TRACES}


def _implied_by(task: Node) -> Iterator[Grant]:
    integration, parameters = task["Resource"].removeprefix("arn:aws:states:::"), task["Parameters"]
    substitutions = {
        key: _text(value)
        for key, value in resources("AWS::StepFunctions::StateMachine")["StateMachine"][
            "DefinitionSubstitutions"
        ].items()
    }
    match integration.split(":"):
        case ["lambda", "invoke"]:
            yield "lambda:InvokeFunction", substitutions[_name(parameters["FunctionName"])]
        case ["sqs", "sendMessage.waitForTaskToken"]:
            yield "sqs:SendMessage", f"{substitutions[_name(parameters['QueueUrl'])]}.Arn"
        case ["aws-sdk", "sagemaker", call]:
            kind = {"updateModelPackage": "model-package", "describeEndpoint": "endpoint"}[call]
            yield f"sagemaker:{call[0].upper()}{call[1:]}", f"sagemaker:{kind}/${{ModelPattern}}"
        case ["sagemaker", call] if call.endswith(".sync"):
            kind = call.removeprefix("create").removesuffix(".sync")
            resource = f"sagemaker:{re.sub('(?<!^)(?=[A-Z])', '-', kind).lower()}/${{ModelPattern}}"
            for action in (f"Create{kind}", f"Describe{kind}", f"Stop{kind}", "AddTags"):
                yield f"sagemaker:{action}", resource
            yield "iam:PassRole", substitutions[_name(parameters["RoleArn"])]
            for action in ("PutTargets", "PutRule", "DescribeRule"):
                yield f"events:{action}", f"events:rule/StepFunctionsGetEventsForSageMaker{kind}sRule"
        case _:
            raise AssertionError(f"no permissions are known for {task['Resource']}")


def _granted(role: str) -> set[Grant]:
    return {
        (action, _text(resource))
        for statement in statements(resources("AWS::IAM::Role")[role]["Policies"])
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def _all_statements() -> Iterator[Node]:
    for role in resources("AWS::IAM::Role").values():
        yield from statements(role.get("Policies", []))
    for policy in resources("AWS::IAM::ManagedPolicy").values():
        yield from statements([policy])


def _name(placeholder: str) -> str:
    return placeholder.removeprefix("${").removesuffix("}")


def _text(value: Any) -> str:
    """`A.Arn` for GetAtt, the name for Ref, `service:path` for an ARN of this account and region."""
    match value:
        case {"Fn::GetAtt": [name, attribute]}:
            return f"{name}.{attribute}"
        case {"Ref": name}:
            return str(name)
        case {"Fn::Sub": text}:
            return re.sub(r"^arn:\$\{AWS::Partition\}:(\w+):\$\{AWS::Region\}:\$\{AWS::AccountId\}:", r"\1:", text)
        case str():
            return value
    raise AssertionError(json.dumps(value))


def test_the_template_has_no_role_that_these_tests_do_not_see() -> None:
    assert not {
        name for name, r in expanded()["Resources"].items() if r["Type"] in ("AWS::IAM::Policy", "AWS::IAM::User")
    }
