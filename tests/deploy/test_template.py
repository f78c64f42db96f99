"""The template: it expands, cfn-lint is clean on both sides, and nothing an event passes through can lose it."""

import json
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint_file

from tests.deploy.definition import MACHINES, TEMPLATE, all_tasks, as_list, expanded, resources, source

OUTPUTS = {
    "Account", "Region", "BucketName", "QueueUrl", "QueueArn", "DlqUrl", "DlqArn", "StateMachineArn",
    "ProfileStateMachineArn", "TopicArn", "SageMakerRoleArn", "DaemonPolicyArn",
}  # fmt: skip


def test_cfn_lint_has_nothing_to_say_of_the_template() -> None:
    assert lint_file(TEMPLATE) == []


def test_cfn_lint_has_nothing_to_say_of_the_expansion(tmp_path: Path) -> None:
    path = tmp_path / "expanded.json"
    path.write_text(json.dumps(expanded()))
    assert lint_file(path) == []


def test_the_outputs_are_what_the_daemons_settings_need() -> None:
    assert expanded()["Outputs"].keys() == OUTPUTS


def test_the_parameters_with_no_default_are_the_two_nobody_can_guess() -> None:
    asked = {name for name, parameter in source()["Parameters"].items() if "Default" not in parameter}
    assert asked == {"BucketName", "TrainerImage"}


@pytest.mark.parametrize("name", sorted(resources("AWS::Events::Rule")))
def test_what_a_rule_cannot_deliver_goes_to_the_dead_letter_queue(name: str) -> None:
    (target,) = resources("AWS::Events::Rule")[name]["Targets"]
    assert _att(target["Arn"]) == "Queue"
    assert _att(target["DeadLetterConfig"]["Arn"]) == "Dlq"
    assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}


def test_a_message_that_fails_ten_times_goes_to_the_dead_letter_queue() -> None:
    redrive = resources("AWS::SQS::Queue")["Queue"]["RedrivePolicy"]
    assert redrive["maxReceiveCount"] == 10
    assert _att(redrive["deadLetterTargetArn"]) == "Dlq"


@pytest.mark.parametrize("policy", ["QueuePolicy", "DlqPolicy"])
def test_only_the_rules_of_this_stack_may_send_to_its_queues(policy: str) -> None:
    rules, *others = resources("AWS::SQS::QueuePolicy")[policy]["PolicyDocument"]["Statement"]
    assert rules["Principal"] == {"Service": "events.amazonaws.com"}
    allowed = {_att(arn) for arn in rules["Condition"]["ArnEquals"]["aws:SourceArn"]}
    assert allowed == set(resources("AWS::Events::Rule"))
    assert [_att(s["Principal"]["AWS"]) for s in others] == (["StateMachineRole"] if policy == "QueuePolicy" else [])


def test_the_bucket_speaks_to_eventbridge_and_to_nobody_without_tls() -> None:
    bucket = resources("AWS::S3::Bucket")["Bucket"]
    assert bucket["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    (tls,) = resources("AWS::S3::BucketPolicy")["BucketPolicy"]["PolicyDocument"]["Statement"]
    assert (tls["Effect"], tls["Principal"], tls["Action"]) == ("Deny", "*", "s3:*")
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_bucket_outlives_its_stack() -> None:
    assert expanded()["Resources"]["Bucket"]["DeletionPolicy"] == "Retain"


@pytest.mark.parametrize("machine", MACHINES)
def test_every_placeholder_of_a_definition_is_substituted_and_no_other(machine: str) -> None:
    given = resources("AWS::StepFunctions::StateMachine")[machine]["DefinitionSubstitutions"]
    text = MACHINES[machine].read_text()
    assert {part.split("}")[0] for part in text.split("${")[1:]} == given.keys()


def test_every_function_of_the_template_is_a_handler_that_exists() -> None:
    import importlib

    for name, function in resources("AWS::Lambda::Function").items():
        module, _, attribute = function["Handler"].rpartition(".")
        assert callable(getattr(importlib.import_module(module), attribute)), name


def test_a_function_has_as_much_time_as_the_state_that_calls_it() -> None:
    functions = resources("AWS::Lambda::Function")
    for name, task in all_tasks().items():
        function = task["Parameters"].get("FunctionName", "").removeprefix("${").removesuffix("Arn}")
        if function:
            assert functions[function]["Timeout"] <= task["TimeoutSeconds"], name


def _att(value: Any) -> str:
    assert as_list(value["Fn::GetAtt"])[1] == "Arn"
    return str(value["Fn::GetAtt"][0])
