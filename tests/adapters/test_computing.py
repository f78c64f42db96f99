"""Step Functions as something that only computes, over its wire protocol: what scaled.Computer promises."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session

from retrainer.adapters.step_functions import StepFunctions
from retrainer.core.execution import Status
from retrainer.ports import PermanentError, UnknownExecutionError
from tests.adapters.emulator import running, use

pytestmark = pytest.mark.system


@pytest.fixture
async def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StepFunctions]:
    with running(tmp_path) as url:
        use(monkeypatch, url)
        async with StepFunctions.open() as opened:
            yield opened


async def machine(state: dict[str, Any]) -> str:
    """A state machine of one state."""
    async with get_session().create_client("stepfunctions") as states:
        made = await states.create_state_machine(
            name="computing",
            definition=json.dumps({"StartAt": "Done", "States": {"Done": state}}),
            roleArn="arn:aws:iam::000000000000:role/states",
        )
    return made["stateMachineArn"]


async def ended(computer: StepFunctions, arn: str) -> tuple[Status | None, str]:
    until = time.monotonic() + 15
    while (found := await computer.status(arn))[0] is None:
        assert time.monotonic() < until, f"{arn} still runs"
    return found


async def test_an_execution_is_begun_once_and_known_by_its_status_whatever_its_output(computer: StepFunctions) -> None:
    arn, adopted = await computer.begin(computing := await machine({"Type": "Succeed"}), "profile-1", "{}")
    assert not adopted
    assert await ended(computer, arn) == (Status.SUCCEEDED, "")
    assert await computer.begin(computing, "profile-1", "{}") == (arn, True)
    with pytest.raises(PermanentError, match="exists with another input"):
        await computer.begin(computing, "profile-1", '{"other":1}')


async def test_the_status_of_an_execution_that_failed_comes_with_its_cause(computer: StepFunctions) -> None:
    computing = await machine({"Type": "Fail", "Error": "Broken", "Cause": "as told"})
    arn, _ = await computer.begin(computing, "profile-1", "{}")
    assert await ended(computer, arn) == (Status.FAILED, "Broken: as told")
    with pytest.raises(UnknownExecutionError):
        await computer.status(f"{arn}0")


async def test_what_is_stored_is_listed_and_looked_up(computer: StepFunctions) -> None:
    async with get_session().create_client("s3") as s3:
        await s3.create_bucket(Bucket="kept", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        for name in ("a", "b"):
            await computer.store("kept", f"profiles/m/{name}.json", "{}")
        seen = await s3.head_object(Bucket="kept", Key="profiles/m/a.json")
    assert set(await computer.stored("kept", "profiles/m/")) == {"profiles/m/a.json", "profiles/m/b.json"}
    assert await computer.stored("kept", "profiles/none/") == set()
    assert await computer.version("kept", "profiles/m/a.json") == (seen["ETag"].strip('"'), 2)
    assert await computer.version("kept", "profiles/m/none") == ("", 0)
    with pytest.raises(PermanentError, match="listing s3://no-such-bucket/x: NoSuchBucket"):
        await computer.stored("no-such-bucket", "x")
