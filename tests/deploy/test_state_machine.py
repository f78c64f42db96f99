"""The definitions keep their promises: bounded, retried, caught, reachable, and no name too long for SageMaker."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.definition import ASL, PROFILE_ASL, Node, all_tasks, definition, states, tasks
from trainer import classification, progress, ranking

FAILURE = "Notify of the failure"
# Where a failing task does not lead to the failure path, and why.
ELSEWHERE = {
    "Train on spot": "a candidate is tried on demand",
    "Train on demand": "a candidate that fails for good is one item of the map",
    "Refit": "the model that was measured and accepted goes on",
    "Notify": "an end that nobody hears of is the same end",
    FAILURE: "the failure path itself",
}
MAP = definition(PROFILE_ASL)["States"]["Profile each object"]
LONGEST = f"{'m' * 24}-g{'9' * 9}-{'f' * 8}"


def test_statelint_has_nothing_to_say() -> None:
    from statelint.cli import main

    assert main([str(ASL)]) in (0, None)


def test_statelint_has_nothing_to_say_of_profiling_but_of_a_field_it_does_not_know(tmp_path: Path) -> None:
    """AWS wants InputType of every s3:getObject; statelint 3.1 knows none of ReaderConfig but MaxItems."""
    from statelint.cli import main

    known = definition(PROFILE_ASL)
    read = {**MAP, "ItemReader": {name: value for name, value in MAP["ItemReader"].items() if name != "ReaderConfig"}}
    assert MAP["ItemReader"]["ReaderConfig"] == {"InputType": "JSON"}
    path = tmp_path / "profile.asl.json"
    path.write_text(json.dumps({**known, "States": {**known["States"], "Profile each object": read}}))
    assert main([str(path)]) in (0, None)


@pytest.mark.parametrize("name", sorted(all_tasks()))
def test_every_task_is_bounded_in_time(name: str) -> None:
    assert all_tasks()[name].keys() & {"TimeoutSeconds", "TimeoutSecondsPath"}


@pytest.mark.parametrize("name", [*sorted(all_tasks()), "Profile each object"])
def test_every_task_retries_named_errors_with_a_ceiling_and_full_jitter(name: str) -> None:
    retriers = {**all_tasks(), "Profile each object": MAP}[name]["Retry"]
    assert retriers
    for retrier in retriers:
        assert not {"States.ALL", "States.TaskFailed", "States.Timeout"} & set(retrier["ErrorEquals"])
        assert retrier["MaxDelaySeconds"] >= retrier["IntervalSeconds"]
        assert retrier["JitterStrategy"] == "FULL"


@pytest.mark.parametrize("name", sorted(tasks()))
def test_every_task_catches_everything_into_the_one_failure_path(name: str) -> None:
    catchers = tasks()[name]["Catch"]
    assert catchers[-1]["ErrorEquals"] == ["States.ALL"]
    assert (catchers[-1]["Next"] == FAILURE) != (name in ELSEWHERE)


def test_a_wait_for_a_person_ends_with_the_daemon_that_would_carry_the_answer() -> None:
    asked = tasks()["Ask a person"]
    assert 0 < asked["HeartbeatSeconds"] < asked["TimeoutSeconds"] < definition()["TimeoutSeconds"]


def test_the_failure_path_carries_error_and_cause() -> None:
    failing = {name: state for name, state in states() if state["Type"] == "Fail"}
    assert failing["Failed"]["ErrorPath"] == "$.failure.error"
    assert failing["Failed"]["CausePath"] == "$.failure.cause"
    assert all("ErrorPath" in state and "CausePath" in state for state in failing.values())


def test_whatever_leads_to_the_failure_path_says_what_was_caught() -> None:
    for name, state in states():
        for catcher in state.get("Catch", []):
            if catcher["Next"] == FAILURE:
                assert catcher["ResultPath"] == "$.caught", name
        if state["Type"] == "Pass" and state.get("Next") == FAILURE:
            assert state["ResultPath"] == "$.caught", name
            assert "Error" in state["Parameters"], name


def test_every_state_is_reachable_and_every_branch_leads_somewhere() -> None:
    trained = definition()["States"]["Train the candidates"]["ItemProcessor"]
    machines = [definition(), trained, definition(PROFILE_ASL), MAP["ItemProcessor"]]
    for machine in machines:
        seen, open_names = set(), [machine["StartAt"]]
        while open_names:
            name = open_names.pop()
            if name not in seen:
                seen.add(name)
                open_names += _next(machine["States"][name])
        assert seen == set(machine["States"])


def test_every_choice_has_a_default() -> None:
    for machine in (definition(), definition(PROFILE_ASL)):
        assert all("Default" in state for _, state in states(machine) if state["Type"] == "Choice")


def test_profiling_ends_long_before_anybody_stops_waiting_for_it_and_its_output_stays_small() -> None:
    """A Distributed Map collects what its items put out, and 256 KiB is all that a state may hold."""
    profiling = definition(PROFILE_ASL)
    assert profiling["TimeoutSeconds"] <= 2 * 3600
    assert MAP["ItemProcessor"]["States"]["Profile"]["OutputPath"] is None
    assert MAP["ResultPath"] is None


def test_the_longest_legal_names_make_job_names_of_at_most_63_characters() -> None:
    names = [p for p in _strings(definition()) if p.startswith("States.Format('{}-")]
    assert len(names) == 5
    for template in names:
        arguments = [{"$$.Execution.Name": LONGEST, "$.candidate.name": "c" * 12, "$$.State.RetryCount": "99"}[a]
                     for a in re.findall(r"\$+[\w.]+", template)]  # fmt: skip
        name = re.findall(r"'(.*)'", template)[0].format(*arguments)
        assert len(name) <= 63, name
        assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name)


def test_the_longest_execution_name_the_steps_accept_is_the_longest_that_fits() -> None:
    from steps.names import check_names

    check_names(LONGEST, "m" * 24, 999_999_999, ["c" * 12])


def test_on_demand_continues_from_the_checkpoint_of_spot() -> None:
    spot, on_demand = (tasks()[name]["Parameters"] for name in ("Train on spot", "Train on demand"))
    assert spot["CheckpointConfig"] == on_demand["CheckpointConfig"]
    assert spot["EnableManagedSpotTraining"]
    assert not on_demand["EnableManagedSpotTraining"]
    assert "MaxWaitTimeInSeconds.$" in spot["StoppingCondition"]
    assert spot["TrainingJobName.$"] != on_demand["TrainingJobName.$"]


def test_a_refit_is_the_training_on_demand_of_the_chosen_candidate_with_the_holdout_for_a_channel_too() -> None:
    before, refit = (dict(tasks()[name]["Parameters"]) for name in ("Train on demand", "Refit"))
    own = {
        "TrainingJobName.$": "States.Format('{}-refit-{}', $$.Execution.Name, $$.State.RetryCount)",
        "HyperParameters.$": "$.evaluation.recipe.hyperparameters",
        "CheckpointConfig": {
            "S3Uri.$": "States.Format('s3://{}/executions/{}/checkpoints/refit', $.bucket, $$.Execution.Name)"
        },
        "ResourceConfig": before["ResourceConfig"] | {"InstanceType.$": "$.evaluation.recipe.instance_type"},
    }
    holdout = "States.Format('s3://{}/executions/{}/holdout', $.bucket, $$.Execution.Name)"
    own["Environment"] = before["Environment"] | {"DATA_URI_HOLDOUT.$": holdout}
    train, champion = before["InputDataConfig"]
    place = train["DataSource"]["S3DataSource"] | {"S3Uri.$": holdout}
    second = train | {"ChannelName": "holdout", "DataSource": {"S3DataSource": place}}
    assert refit == before | own | {"InputDataConfig": [train, second, champion]}
    machine = definition()["States"]
    assert machine["Refit"]["TimeoutSecondsPath"] == tasks()["Train on demand"]["TimeoutSecondsPath"]
    assert machine["Count the refit"]["ResultSelector"] == machine["Evaluate"]["ResultSelector"]


def test_a_training_container_is_told_where_its_data_lies_since_it_sees_files_alone() -> None:
    for name in ("Train on spot", "Train on demand", "Refit"):
        request = tasks()[name]["Parameters"]
        channels = {c["ChannelName"]: c["DataSource"]["S3DataSource"]["S3Uri.$"] for c in request["InputDataConfig"]}
        told = request["Environment"]
        assert {channel: told[f"DATA_URI_{channel.upper()}.$"] for channel in channels} == channels
        assert (told["DATA_MANIFEST_URI.$"], told["DATA_MANIFEST_SHA256.$"]) == ("$.manifest.uri", "$.manifest.sha256")


def test_sagemaker_is_told_how_to_read_every_metric_off_the_log() -> None:
    problems = (*ranking.METRIC_NAMES, *classification.METRIC_NAMES)
    assert {definition["Name"] for definition in progress.METRIC_DEFINITIONS} == {*problems, "train_loss", "epoch"}
    for name in ("Train on spot", "Train on demand", "Refit"):
        algorithm = tasks()[name]["Parameters"]["AlgorithmSpecification"]
        assert algorithm["MetricDefinitions"] == list(progress.METRIC_DEFINITIONS)


def test_every_ending_has_the_output_the_observer_reads() -> None:
    wanted = "outcome reason decision_id model generation model_package_arn metric challenger champion gain candidate "
    wanted += "metrics rows comparison cost billing refit"
    assert [key.removesuffix(".$") for key in definition()["States"]["Conclude"]["Parameters"]] == wanted.split()
    endings = {s["Parameters"]["outcome"] for _, s in states() if s.get("ResultPath") == "$.conclusion"}
    assert endings == {"promoted", "refused", "rejected", "superseded"}


def _next(state: Node) -> Iterator[str]:
    yield from (state[key] for key in ("Next", "Default") if key in state)
    yield from (choice["Next"] for choice in state.get("Choices", []))
    yield from (catcher["Next"] for catcher in state.get("Catch", []))


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
