"""The engine, against the embedded AWS over its wire protocol, and against a server that fails as AWS does."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiobotocore.session import get_session

from retrainer.adapters.step_functions import StepFunctions
from retrainer.core.effects import AnswerApproval, StartExecution
from retrainer.core.events import ExecutionEnded
from retrainer.core.execution import Billing, Outcome, Status, Verdict
from retrainer.core.gate import Comparison
from retrainer.ports import ConfigError, PermanentError, TransientError, UnknownExecutionError
from tests.adapters.emulator import Answers, answering, free_port, running, use

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_sqs.client import SQSClient
    from types_aiobotocore_stepfunctions.client import SFNClient

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

OUTPUT = {
    "outcome": "promoted",
    "reason": "ndcg_at_10 0.12 is 0.01 above 0.11",
    "decision_id": "recommender-17",
    "model": "recommender",
    "generation": 3,
    "model_package_arn": "arn:aws:sagemaker:eu-central-1:000000000000:model-package/recommender/3",
    "metric": "ndcg_at_10",
    "challenger": 0.12,
    "champion": 0.11,
    "gain": 0.01,
    "candidate": "sasrec",
    "metrics": {"ndcg_at_10": 0.12, "hit_rate_at_10": 0.2},
    "comparison": {"low": 0.002, "high": 0.02, "better": 0.99, "enough": 0.97, "resamplings": 1000},
    "billing": {"seconds": 90, "billable_seconds": 30, "interruptions": 2},
    "refit": True,
}
TOOK = " Trained 90 s, billed 30 s, interrupted 2 times."
TOKEN = "AAAAKgAAAAIAAAAAAAAAAb-secret"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("aws")) as url:
        yield url


@dataclass(frozen=True)
class World:
    engine: StepFunctions
    states: "SFNClient"
    s3: "S3Client"
    sqs: "SQSClient"

    async def machine(self, name: str, **states: dict[str, Any]) -> str:
        """A state machine of these states, begun with the first."""
        made = await self.states.create_state_machine(
            name=name,
            definition=json.dumps({"StartAt": next(iter(states)), "States": states}),
            roleArn="arn:aws:iam::000000000000:role/states",
        )
        return made["stateMachineArn"]

    async def run(self, effect: StartExecution) -> ExecutionEnded:
        arn, _ = await self.engine.start(effect)
        return await self.end(arn)

    async def end(self, arn: str) -> ExecutionEnded:
        until = time.monotonic() + 15
        while True:
            ended = await self.engine.ended(arn)
            if ended:
                return ended
            assert time.monotonic() < until, f"{arn} still runs"
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(endpoint: str) -> AsyncIterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        use(patch, endpoint)
        session = get_session()
        async with (
            StepFunctions.open() as engine,
            session.create_client("stepfunctions") as states,
            session.create_client("s3") as s3,
            session.create_client("sqs") as sqs,
        ):
            place: Any = {"LocationConstraint": "eu-central-1"}
            await s3.create_bucket(Bucket="artifacts", CreateBucketConfiguration=place)
            yield World(engine, states, s3, sqs)


def effect_of(machine: str, name: str, given: object = None) -> StartExecution:
    return StartExecution(
        key=name,
        state_machine_arn=machine,
        manifest_bucket="artifacts",
        manifest_key=f"executions/{name}/manifest.json",
        manifest='{"model":"récommender"}',
        input=json.dumps(given or {"decision_id": name}),
    )


def pass_with(output: object) -> dict[str, Any]:
    return {"Type": "Pass", "Result": output, "End": True}


async def test_a_start_stores_the_manifest_and_starts_with_the_exact_input(world: World) -> None:
    machine = await world.machine("start", Done=pass_with({}))
    effect = effect_of(machine, "recommender-g1-00000001")
    arn, adopted = await world.engine.start(effect)
    assert arn == machine.replace(":stateMachine:", ":execution:") + ":recommender-g1-00000001"
    assert not adopted
    seen = await world.states.describe_execution(executionArn=arn)
    assert seen["input"] == effect.input
    stored = await world.s3.get_object(Bucket="artifacts", Key=effect.manifest_key)
    assert (await stored["Body"].read()).decode() == effect.manifest


async def test_a_start_done_twice_is_adopted_even_when_the_execution_has_ended(world: World) -> None:
    machine = await world.machine("twice", Done=pass_with(OUTPUT))
    effect = effect_of(machine, "recommender-g2-00000002")
    await world.run(effect)
    assert await world.engine.start(effect) == (f"{machine.replace('stateMachine', 'execution')}:{effect.key}", True)
    listed = await world.states.list_executions(stateMachineArn=machine)
    assert len(listed["executions"]) == 1


async def test_those_that_run_are_listed_and_those_that_ended_or_never_were_are_not(world: World) -> None:
    slow = await world.machine("slow", Wait={"Type": "Wait", "Seconds": 600, "Next": "Done"}, Done=pass_with({}))
    quick = await world.machine("quick", Done=pass_with({}))
    runs = {(await world.engine.start(effect_of(slow, f"recommender-g{n}-0000000a")))[0] for n in range(1, 130)}
    ended, _ = await world.engine.start(effect_of(quick, "vision-g1-0000000b"))
    await world.end(ended)
    never = f"{slow.replace(':stateMachine:', ':execution:')}:never-g1-0000000c"
    assert await world.engine.running({*runs, ended, never}) == runs
    for arn in runs:
        await world.states.stop_execution(executionArn=arn)


async def test_what_an_earlier_try_started_is_known_by_its_name_and_input(world: World) -> None:
    machine = await world.machine("known", Done=pass_with({}))
    effect = effect_of(machine, "recommender-g7-00000007")
    assert await world.engine.known(effect) is None
    arn, _ = await world.engine.start(effect)
    assert await world.engine.known(effect) == arn
    with pytest.raises(PermanentError, match="another input"):
        await world.engine.known(replace(effect, input="{}"))


async def test_a_name_that_is_taken_by_another_input_is_a_conflict_and_never_renamed(world: World) -> None:
    machine = await world.machine("conflict", Done=pass_with({}))
    effect = effect_of(machine, "recommender-g3-00000003")
    await world.run(effect)
    with pytest.raises(PermanentError, match="conflict: an execution recommender-g3-00000003 exists"):
        await world.engine.start(replace(effect, input='{"decision_id":"another"}'))


async def test_a_manifest_of_megabytes_is_stored_whole(world: World) -> None:
    machine = await world.machine("large", Done=pass_with({}))
    effect = replace(effect_of(machine, "recommender-g4-00000004"), manifest="x" * 3_000_000)
    await world.engine.start(effect)
    seen = await world.s3.head_object(Bucket="artifacts", Key=effect.manifest_key)
    assert seen["ContentLength"] == 3_000_000


async def test_a_start_that_can_never_succeed_is_given_up(world: World) -> None:
    machine = await world.machine("given-up", Done=pass_with({}))
    with pytest.raises(PermanentError, match="starting recommender-g5-00000005: StateMachineDoesNotExist"):
        await world.engine.start(effect_of(machine + "-typo", "recommender-g5-00000005"))
    with pytest.raises(PermanentError, match=r"storing s3://nowhere/.*: NoSuchBucket"):
        await world.engine.start(replace(effect_of(machine, "recommender-g5-00000006"), manifest_bucket="nowhere"))


async def test_an_execution_runs_until_it_has_ended_with_its_outcome(world: World) -> None:
    machine = await world.machine("waits", Wait={"Type": "Wait", "Seconds": 1, "Next": "Done"}, Done=pass_with(OUTPUT))
    arn, _ = await world.engine.start(effect_of(machine, "recommender-g6-00000007"))
    assert await world.engine.ended(arn) is None
    assert await world.end(arn) == ExecutionEnded(
        execution="recommender-g6-00000007",
        status=Status.SUCCEEDED,
        outcome=Outcome(
            verdict=Verdict.PROMOTED,
            why="ndcg_at_10 0.12 is 0.01 above 0.11",
            model_package_arn="arn:aws:sagemaker:eu-central-1:000000000000:model-package/recommender/3",
            metric="ndcg_at_10",
            challenger=0.12,
            champion=0.11,
            metrics={"ndcg_at_10": 0.12, "hit_rate_at_10": 0.2},
            comparison=Comparison(low=0.002, high=0.02, better=0.99, enough=0.97, resamplings=1000),
            billing=Billing(seconds=90, billable_seconds=30, interruptions=2),
            refit=True,
        ),
    )


async def test_a_failed_execution_tells_what_its_training_took_and_its_error_and_cause_cut_short(world: World) -> None:
    fail = {"Type": "Fail", "Error": "NoRows", "Cause": "every batch was empty " + "x" * 5000 + TOOK}
    ended = await world.run(effect_of(await world.machine("fails", Stop=fail), "recommender-g7-00000008"))
    assert ended.status is Status.FAILED
    assert ended.cause.startswith("NoRows: every batch was empty x")
    assert len(ended.cause) == 1000
    assert ended.billing == Billing(seconds=90, billable_seconds=30, interruptions=2)


async def test_a_stopped_execution_is_aborted(world: World) -> None:
    machine = await world.machine("stopped", Wait={"Type": "Wait", "Seconds": 60, "End": True})
    arn, _ = await world.engine.start(effect_of(machine, "recommender-g8-00000009"))
    await world.states.stop_execution(executionArn=arn, error="Operator", cause="not tonight")
    ended = await world.end(arn)
    assert (ended.status, ended.cause) == (Status.ABORTED, "Operator: not tonight")


async def test_an_execution_that_step_functions_does_not_know_is_told_apart(world: World) -> None:
    arn = "arn:aws:states:eu-central-1:000000000000:execution:start:recommender-g9-0000000a"
    with pytest.raises(UnknownExecutionError, match="does not know recommender-g9-0000000a"):
        await world.engine.ended(arn)


@pytest.mark.parametrize("approved", [True, False])
async def test_an_answer_reaches_the_waiting_execution_and_only_once(world: World, approved: bool) -> None:
    queue = (await world.sqs.create_queue(QueueName=f"approvals-{approved}"))["QueueUrl"]
    ask = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": queue, "MessageBody": {"token.$": "$$.Task.Token"}},
        "End": True,
    }
    machine = await world.machine(f"asks-{approved}", Ask=ask)
    arn, _ = await world.engine.start(effect_of(machine, "recommender-g10-0000000b"))
    told = (await world.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10))["Messages"][0]
    effect = AnswerApproval(
        key="a",
        execution="recommender-g10-0000000b",
        approved=approved,
        by="ada",
        task_token=json.loads(told["Body"])["token"],
    )
    await world.engine.heartbeat(effect.task_token)
    await world.engine.answer(effect)
    await world.end(arn)
    seen = await world.states.describe_execution(executionArn=arn)
    assert json.loads(seen["output"]) == {"approved": approved, "by": "ada"}
    with pytest.raises(PermanentError, match="approval of recommender-g10-0000000b: the execution no longer waits"):
        await world.engine.answer(effect)
    with pytest.raises(PermanentError, match="keeping an approval open: the execution no longer waits"):
        await world.engine.heartbeat(effect.task_token)


# --- failing, or lying, as a server may ---

ARN = "arn:aws:states:eu-central-1:111122223333:execution:retraining:recommender-g3-0a1b2c3d"
START = effect_of("arn:aws:states:eu-central-1:111122223333:stateMachine:retraining", "recommender-g3-0a1b2c3d")
ANSWER = AnswerApproval(key="a", execution="recommender-g3-0a1b2c3d", approved=True, by="ada", task_token=TOKEN)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def failing() -> AsyncIterator[tuple[Answers, StepFunctions]]:
    """A server that answers as it is told, and an engine on it."""
    with pytest.MonkeyPatch.context() as patch:
        async with answering() as answers:
            use(patch, answers.url)
            async with StepFunctions.open() as engine:
                yield answers, engine


LIES = (
    (None, "there is none"),
    ("{", "it is not JSON"),
    ("[" * 100_000, "it is not JSON"),
    ("[]", "it is not an object"),
    ("{}", "outcome must be one of promoted, refused, rejected, superseded"),
    (json.dumps({"outcome": ["promoted"]}), "outcome must be one of"),
    (json.dumps({"outcome": "promoted", "reason": 5}), "reason must be a text"),
    (json.dumps({"outcome": "promoted", "challenger": "0.1"}), "challenger must be a number"),
    (json.dumps({"outcome": "promoted", "challenger": True}), "challenger must be a number"),
    (json.dumps({"outcome": "promoted", "champion": float("nan")}), "champion must be a finite number"),
    (json.dumps({"outcome": "promoted", "champion": 10**400}), "champion must be a finite number"),
    (json.dumps({"outcome": "promoted", "metrics": []}), "metrics must be an object of at most 64 numbers"),
    (json.dumps({"outcome": "promoted", "rows": -1}), "rows must not be negative"),
    (json.dumps({"outcome": "promoted", "cost": -0.5}), "cost must not be negative"),
    (json.dumps({"outcome": "promoted", "metrics": {"m": "x"}}), "m must be a number"),
    (json.dumps({"outcome": "promoted", "comparison": []}), "comparison must be an object"),
    (json.dumps({"outcome": "promoted", "comparison": {"low": 0.1}}), "high is missing"),
    (json.dumps({"outcome": "promoted", "billing": 7}), "billing must be an object"),
    (json.dumps({"outcome": "promoted", "refit": "yes"}), "refit must be true or false"),
    (json.dumps({"outcome": "promoted", "billing": {"seconds": -1}}), "seconds must not be negative"),
    (
        json.dumps({"outcome": "promoted", "metrics": {str(i): i for i in range(65)}}),
        "metrics must be an object of at most 64",
    ),
)


async def test_a_success_whose_output_is_not_as_agreed_is_a_failure_that_says_why(
    failing: tuple[Answers, StepFunctions],
) -> None:
    states, engine = failing
    states.given.clear()
    for output, cause in LIES:
        states.given.clear()
        states.then(200, status="SUCCEEDED", **({} if output is None else {"output": output}))
        ended = await engine.ended(ARN)
        assert ended
        assert (ended.status, ended.outcome) == (Status.FAILED, None)
        assert ended.cause.startswith(f"output is not as agreed: {cause}")


async def test_texts_and_numbers_that_an_output_leaves_out_are_not_made_up(
    failing: tuple[Answers, StepFunctions],
) -> None:
    states, engine = failing
    states.given.clear()
    states.then(200, status="SUCCEEDED", output='{"outcome": "refused", "reason": "\\ud800", "metrics": {"m": null}}')
    ended = await engine.ended(ARN)
    assert ended
    assert ended.outcome == Outcome(verdict=Verdict.REFUSED, why="?")


async def test_an_execution_that_may_be_redriven_has_not_ended(failing: tuple[Answers, StepFunctions]) -> None:
    states, engine = failing
    states.given.clear()
    states.then(200, status="PENDING_REDRIVE")
    assert await engine.ended(ARN) is None


async def test_what_may_pass_is_transient_and_what_will_not_is_permanent(
    failing: tuple[Answers, StepFunctions],
) -> None:
    states, engine = failing
    states.given.clear()
    for status, code, kind in (
        (400, "ThrottlingException", TransientError),
        (400, "ExecutionLimitExceeded", TransientError),
        (503, "ServiceUnavailable", TransientError),
        (400, "AccessDeniedException", PermanentError),
        (400, "InvalidArn", PermanentError),
    ):
        states.given = [(200, {}), (status, {"__type": code, "message": "said"})]  # S3, then Step Functions
        with pytest.raises(kind, match=f"starting recommender-g3-0a1b2c3d: {code}: said"):
            await engine.start(START)
        with pytest.raises(kind, match=f"describing recommender-g3-0a1b2c3d: {code}: said"):
            await engine.ended(ARN)


async def test_a_reply_that_is_lost_is_transient_and_the_next_try_adopts(
    failing: tuple[Answers, StepFunctions],
) -> None:
    states, engine = failing
    states.given.clear()
    states.then(200).hang_up()
    with pytest.raises(TransientError, match="starting recommender-g3-0a1b2c3d: "):
        await engine.start(START)
    states.given.clear()
    states.then(200).then(400, __type="ExecutionAlreadyExists", message="it does").then(200, input=START.input)
    assert await engine.start(START) == (ARN, True)


async def test_an_input_that_is_not_shown_to_us_cannot_be_adopted(failing: tuple[Answers, StepFunctions]) -> None:
    states, engine = failing
    states.given.clear()
    states.then(200).then(400, __type="ExecutionAlreadyExists").then(200, inputDetails={"included": False})
    with pytest.raises(PermanentError, match="conflict"):
        await engine.start(START)


async def test_no_message_and_no_cause_of_a_failed_answer_holds_the_token(
    failing: tuple[Answers, StepFunctions],
) -> None:
    states, engine = failing
    states.given.clear()
    for code in ("InvalidToken", "AccessDeniedException", "ThrottlingException"):
        states.given = [(400, {"__type": code, "message": f"token {TOKEN} is no good"})]
        with pytest.raises((PermanentError, TransientError)) as caught:
            await engine.answer(ANSWER)
        assert TOKEN not in str(caught.value)
        assert caught.value.__suppress_context__
        assert caught.value.__cause__ is None


async def test_an_endpoint_that_is_not_there_or_not_a_url_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"http://127.0.0.1:{free_port()}")
    async with StepFunctions.open() as engine:
        with pytest.raises(TransientError, match="storing s3://artifacts/"):
            await engine.start(START)
    use(monkeypatch, "not a url")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL"):
        async with StepFunctions.open():
            pass
