"""A state machine's role may do what its definition does, and nothing else.

The needed permissions are derived from the definition, by AWS's own page on each integration:
https://docs.aws.amazon.com/step-functions/latest/dg/service-integration-iam-templates.html
https://docs.aws.amazon.com/step-functions/latest/dg/iam-policies-eg-dist-map.html
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.definition import MACHINES, Node, as_list, definition, expanded, resources, statements, states

Grant = tuple[str, str]
"""(action, resource); the resource is the template's own text for it."""

PROFILES = ("executions/*/profiles/", "profiles/")
"""Where profiles are: beside what the champion's execution left, and, without a champion, by the model's name."""

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
    "sagemaker:ListTrainingJobs": "a list has no resource",
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_actions_a_state_machine_implies_are_the_actions_its_role_grants(machine: str) -> None:
    assert _granted(f"{machine}Role") == _implied(machine)


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
    assert len({_text(f["Role"]) for f in functions.values()}) == len(functions) == 9


def test_the_gate_may_do_nothing_at_all() -> None:
    assert "Policies" not in resources("AWS::IAM::Role")["GateFunctionRole"]


def test_the_functions_that_profile_read_batches_and_write_nothing_but_profiles() -> None:
    profiles = {f"${{Bucket.Arn}}/{prefix}*" for prefix in PROFILES}
    for function in ("Grid", "Profile"):
        grants = _granted(f"{function}FunctionRole")
        assert {resource for action, resource in grants if action == "s3:PutObject"} == profiles
        assert {r for action, r in grants if action == "s3:GetObject"} == profiles | {"${Bucket.Arn}/data/*"}
        assert {action for action, _ in grants} == {"s3:GetObject", "s3:PutObject", "s3:ListBucket"}


def test_what_the_daemon_asks_a_state_machine_to_read_it_may_write_and_its_profiles_it_may_read() -> None:
    grants = set(_grants(resources("AWS::IAM::ManagedPolicy")["DaemonPolicy"]))
    for prefix in PROFILES:
        assert ("s3:PutObject", f"${{Bucket.Arn}}/{prefix}*") in grants
    assert {("s3:GetObject", f"${{Bucket.Arn}}/{prefix}*") for prefix in ("executions/", "profiles/")} <= grants
    assert ("states:StartExecution", "ProfileStateMachine") in grants
    assert ("states:DescribeExecution", "states:execution:${Prefix}-profile:*") in grants


def test_roles_are_assumed_by_aws_services_only() -> None:
    for role in resources("AWS::IAM::Role").values():
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            assert set(statement["Principal"]) == {"Service"}


def _implied(machine: str) -> set[Grant]:
    properties = resources("AWS::StepFunctions::StateMachine")[machine]
    substitutions = {key: _text(value) for key, value in properties["DefinitionSubstitutions"].items()}
    found: set[Grant] = set()
    for _, state in states(definition(MACHINES[machine])):
        if state["Type"] == "Task":
            found |= set(_implied_by(state, substitutions))
        if state["Type"] == "Map" and state["ItemProcessor"]["ProcessorConfig"]["Mode"] == "DISTRIBUTED":
            found |= set(_implied_by_items(state, _text(properties["StateMachineName"])))
    assert "LoggingConfiguration" in properties
    return found | {(action, "*") for action in LOGS | TRACES}


def _implied_by_items(state: Node, machine: str) -> Iterator[Grant]:
    """A Distributed Map reads its items and runs each as an execution of its own state machine."""
    assert state["ItemReader"]["Resource"] == "arn:aws:states:::s3:getObject"
    for prefix in PROFILES:
        yield "s3:GetObject", f"${{Bucket.Arn}}/{prefix}*"
    yield "states:StartExecution", f"states:stateMachine:{machine}"
    for action in ("DescribeExecution", "StopExecution"):
        yield f"states:{action}", f"states:execution:{machine}:*"


def _implied_by(task: Node, substitutions: dict[str, str]) -> Iterator[Grant]:
    integration, parameters = task["Resource"].removeprefix("arn:aws:states:::"), task["Parameters"]
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
    policies = resources("AWS::IAM::Role")[role]["Policies"]
    return {grant for policy in policies for grant in _grants(policy)}


def _grants(policy: Node) -> Iterator[Grant]:
    for statement in statements([policy]):
        for action in as_list(statement["Action"]):
            for resource in as_list(statement["Resource"]):
                yield action, _text(resource)


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
