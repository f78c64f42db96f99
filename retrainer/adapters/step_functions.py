"""Step Functions: starts executions once each, answers approvals, and tells how executions ended.

S3 is beside it for what executions are given: a state's payload is small.
"""

import asyncio
import io
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError, ParamValidationError, ProfileNotFound

from retrainer.core.effects import AnswerApproval, StartExecution
from retrainer.core.events import ExecutionEnded
from retrainer.core.execution import Billing, Outcome, Status, Verdict
from retrainer.core.gate import Comparison
from retrainer.core.record import canonical
from retrainer.ports import ConfigError, PermanentError, TransientError, UnknownExecutionError

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_stepfunctions.client import SFNClient
    from types_aiobotocore_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

TEXT_MAX: Final = 1000
"""Causes, reasons and names out of an execution are cut to so many characters."""
METRICS_MAX: Final = 64

_UNFINISHED = frozenset({"RUNNING", "PENDING_REDRIVE"})
_PASSING = frozenset(
    {
        "ExecutionLimitExceeded",
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalFailure",
        "KmsThrottlingException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_NO_LONGER_WAITS = frozenset({"InvalidToken", "TaskDoesNotExist", "TaskTimedOut"})

T = TypeVar("T")


class StepFunctions:
    """Implements ports.Engine and scaled.Computer. Made by `open`."""

    def __init__(self, states: "SFNClient", open_s3: Callable[[], Awaitable["S3Client"]]) -> None:
        self._states = states
        self._open_s3 = open_s3
        self._s3: S3Client | None = None
        self._opening = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, region: str | None = None, connections: int = 10, session: AioSession | None = None
    ) -> AsyncIterator["StepFunctions"]:
        """The engine, on botocore's default region, credentials and endpoint. Raises ConfigError.

        Clients of one session share what botocore knows of AWS, which is 8 MB.
        """
        config = AioConfig(
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": 2},  # the loop has a patience of its own
        )
        session = session or get_session()
        async with AsyncExitStack() as stack:
            try:
                made = session.create_client("stepfunctions", region_name=region, config=config)
                states = await stack.enter_async_context(made)
            except NoRegionError as error:
                raise ConfigError("no AWS region is set; set AWS_DEFAULT_REGION, as in eu-central-1") from error
            except (ValueError, ProfileNotFound) as error:
                raise ConfigError(f"no AWS client: {error}; look at AWS_ENDPOINT_URL and AWS_PROFILE") from error

            async def open_s3() -> "S3Client":
                return await stack.enter_async_context(session.create_client("s3", region_name=region, config=config))

            yield cls(states, open_s3)

    async def start(self, effect: StartExecution) -> tuple[str, bool]:
        """Store the manifest and start; the ARN, and whether an earlier start of the same was found (adopted).

        Step Functions keeps a name for 90 days: with the same input it is the execution of an earlier try, whatever has
        become of it since. While that still runs, StartExecution itself answers with it, and it is told as new.
        """
        await self.store(effect.manifest_bucket, effect.manifest_key, effect.manifest)
        return await self.begin(effect.state_machine_arn, effect.key, effect.input)

    async def begin(self, state_machine: str, name: str, given: str) -> tuple[str, bool]:
        """As `start`, with what the execution needs stored already."""
        try:
            answer = await self._states.start_execution(stateMachineArn=state_machine, name=name, input=given)
            return answer["executionArn"], False
        except self._states.exceptions.ExecutionAlreadyExists:
            return await _asked(f"describing {name}", self._adopted(state_machine, name, given)), True
        except _FAILURES as error:
            raise _translated(f"starting {name}", error) from error

    async def store(self, bucket: str, key: str, text: str) -> None:
        """Put a JSON document. Raises TransientError or PermanentError."""
        s3 = await self._storage()
        stored = s3.put_object(
            Bucket=bucket,
            Key=key,
            Body=io.BytesIO(text.encode()),  # aiohttp warns of large bodies given as bytes
            ContentType="application/json",
        )
        await _asked(f"storing s3://{bucket}/{key}", stored)

    async def stored(self, bucket: str, prefix: str) -> Collection[str]:
        """The keys there are under a prefix. Raises TransientError or PermanentError."""
        s3, keys = await self._storage(), set[str]()
        try:
            async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                keys.update(found["Key"] for found in page.get("Contents", ()))
        except _FAILURES as error:
            raise _translated(f"listing s3://{bucket}/{prefix}", error) from error
        return keys

    async def version(self, bucket: str, key: str) -> tuple[str, int]:
        """The ETag and the bytes of an object; an empty one and 0 where there is none, or none that may be seen."""
        s3 = await self._storage()
        try:
            seen = await s3.head_object(Bucket=bucket, Key=key)
        except _FAILURES as error:
            found = _translated(f"looking at s3://{bucket}/{key}", error)
            if isinstance(found, PermanentError):
                return "", 0
            raise found from error
        return seen["ETag"].strip('"'), seen["ContentLength"]

    async def _storage(self) -> "S3Client":
        async with self._opening:
            # Only now: a daemon that starts nothing does without S3's 6 MB.
            try:
                self._s3 = self._s3 or await self._open_s3()
            except ValueError as error:
                raise TransientError(f"no S3 client: {error}; look at AWS_ENDPOINT_URL_S3") from error
        return self._s3

    async def answer(self, effect: AnswerApproval) -> None:
        """Answer the task token; it is in no message, and neither is the cause, which may hold it."""
        output = canonical({"approved": effect.approved, "by": effect.by})
        sent = self._states.send_task_success(taskToken=effect.task_token, output=output)
        await _with_token(f"answering the approval of {effect.execution}", effect.task_token, sent)

    async def heartbeat(self, task_token: str) -> None:
        """Keep the question open; the token is in no message."""
        sent = self._states.send_task_heartbeat(taskToken=task_token)
        await _with_token("keeping an approval open", task_token, sent)

    async def running(self, arns: Collection[str]) -> Collection[str]:
        """Those of the executions that are listed as running: a call or two a state machine, however many they are."""
        machines = {arn.rpartition(":")[0].replace(":execution:", ":stateMachine:") for arn in arns}
        listed: set[str] = set()
        pages = self._states.get_paginator("list_executions")
        for machine in sorted(machines):
            try:
                async for page in pages.paginate(stateMachineArn=machine, statusFilter="RUNNING"):
                    listed.update(e["executionArn"] for e in page["executions"])
            except _FAILURES as error:
                raise _translated(f"listing the executions of {machine}", error) from error
        return listed & set(arns)

    async def known(self, effect: StartExecution) -> str | None:
        """The ARN of the execution that was started earlier under the effect's name; None when there is none.

        Raises PermanentError also when the name belongs to an execution with another input.
        """
        try:
            return await self._adopted(effect.state_machine_arn, effect.key, effect.input)
        except self._states.exceptions.ExecutionDoesNotExist:
            return None
        except _FAILURES as error:
            raise _translated(f"describing {effect.key}", error) from error

    async def ended(self, arn: str) -> ExecutionEnded | None:
        """How the execution ended, or None while it runs.

        Raises UnknownExecutionError, and PermanentError when it may not be described.
        """
        name = arn.rpartition(":")[2]
        seen = await self._described(arn)
        if seen["status"] in _UNFINISHED:
            return None
        if seen["status"] == "SUCCEEDED":
            return _succeeded(name, seen)
        billing = Billing.of_failed(seen.get("cause", ""))
        return ExecutionEnded(execution=name, status=Status(seen["status"]), cause=_cause(seen), billing=billing)

    async def status(self, arn: str) -> tuple[Status | None, str]:
        """What has become of an execution, None while it runs, and the cause; its output is not looked at.

        Raises as `ended`.
        """
        seen = await self._described(arn)
        return None if seen["status"] in _UNFINISHED else Status(seen["status"]), _cause(seen)

    async def _described(self, arn: str) -> "DescribeExecutionOutputTypeDef":
        name = arn.rpartition(":")[2]
        try:
            return await self._states.describe_execution(executionArn=arn)
        except self._states.exceptions.ExecutionDoesNotExist:
            raise UnknownExecutionError(f"Step Functions does not know {name}") from None
        except _FAILURES as error:
            raise _translated(f"describing {name}", error) from error

    async def _adopted(self, state_machine: str, name: str, given: str) -> str:
        """Raises botocore's exceptions, and PermanentError for another execution of the same name."""
        arn = f"{state_machine.replace(':stateMachine:', ':execution:')}:{name}"
        seen = await self._states.describe_execution(executionArn=arn)
        if seen.get("input") != given:
            raise PermanentError(f"conflict: an execution {name} exists with another input than ours")
        return arn


_FAILURES = (BotoCoreError, ClientError, aiohttp.ClientError, TimeoutError, OSError)


async def _asked(doing: str, call: Coroutine[Any, Any, T]) -> T:
    try:
        return await call
    except _FAILURES as error:
        raise _translated(doing, error) from error


async def _with_token(doing: str, token: str, call: Coroutine[Any, Any, object]) -> None:
    try:
        await call
    except ClientError as error:
        if _code(error) in _NO_LONGER_WAITS:
            raise PermanentError(f"{doing}: the execution no longer waits ({_code(error)})") from None
        raise _without(token, _translated(doing, error)) from None
    except _FAILURES as error:
        raise _without(token, _translated(doing, error)) from None


def _translated(doing: str, error: Exception) -> TransientError | PermanentError:
    """Ours for a failure of theirs. Missing credentials may come back, so the effect waits for them."""
    if isinstance(error, ParamValidationError):
        return PermanentError(f"{doing}: {error}")
    if not isinstance(error, ClientError):
        return TransientError(f"{doing}: {type(error).__name__}: {error}")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{doing}: {_code(error)}: {error.response.get('Error', {}).get('Message', '')}"
    if _code(error) in _PASSING or status >= 500 or status == 429:
        return TransientError(said)
    return PermanentError(said)


def _cause(seen: "DescribeExecutionOutputTypeDef") -> str:
    return _bounded(": ".join(part for part in (seen.get("error"), seen.get("cause")) if part))


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _without(token: str, error: TransientError | PermanentError) -> TransientError | PermanentError:
    return type(error)(str(error).replace(token, "***"))


def _bounded(text: str) -> str:
    """One line, cut, and without the lone surrogates that JSON can write and UTF-8 cannot."""
    text = " ".join(text.encode(errors="replace").decode().split())
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 3] + "..."


# --- the execution's output ---


def _succeeded(name: str, seen: "DescribeExecutionOutputTypeDef") -> ExecutionEnded:
    try:
        outcome = _outcome(seen.get("output"))
    except ValueError as error:
        return ExecutionEnded(execution=name, status=Status.FAILED, cause=_bounded(f"output is not as agreed: {error}"))
    return ExecutionEnded(execution=name, status=Status.SUCCEEDED, outcome=outcome)


def _outcome(output: str | None) -> Outcome:
    """The output of the last state, which may be anything. Raises ValueError with what is wrong of it."""
    if output is None:
        raise ValueError("there is none")
    try:
        given = json.loads(output)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(given, dict):
        raise ValueError("it is not an object")  # noqa: TRY004
    if given.get("outcome") not in list(Verdict):
        raise ValueError(f"outcome must be one of {', '.join(Verdict)}")
    rows = _amount(given, "rows")
    return Outcome(
        verdict=Verdict(given["outcome"]),
        why=_text(given, "reason") or "",
        model_package_arn=_text(given, "model_package_arn"),
        metric=_text(given, "metric"),
        challenger=_number(given, "challenger"),
        champion=_number(given, "champion"),
        metrics=_metrics(given.get("metrics")),
        cost=_amount(given, "cost"),
        rows=None if rows is None else int(rows),
        comparison=_comparison(given.get("comparison")),
        billing=_billing(given.get("billing")),
        refit=_truth(given, "refit"),
    )


def _comparison(given: object) -> Comparison | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ValueError("comparison must be an object")  # noqa: TRY004
    return Comparison(
        low=_needed(_number, given, "low"),
        high=_needed(_number, given, "high"),
        better=_needed(_amount, given, "better"),
        enough=_needed(_amount, given, "enough"),
        resamplings=int(_needed(_amount, given, "resamplings")),
    )


def _billing(given: object) -> Billing | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ValueError("billing must be an object")  # noqa: TRY004
    return Billing(
        seconds=_needed(_amount, given, "seconds"),
        billable_seconds=_needed(_amount, given, "billable_seconds"),
        interruptions=int(_needed(_amount, given, "interruptions")),
    )


def _needed(read: Callable[[dict[str, Any], str], float | None], given: dict[str, Any], name: str) -> float:
    value = read(given, name)
    if value is None:
        raise ValueError(f"{name} is missing")
    return value


def _truth(given: dict[str, Any], name: str) -> bool | None:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false")
    return value


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a text")
    return value and _bounded(value)


def _number(given: dict[str, Any], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number")  # noqa: TRY004
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number")
    return number


def _amount(given: dict[str, Any], name: str) -> float | None:
    value = _number(given, name)
    if value is not None and value < 0:
        raise ValueError(f"{name} must not be negative")
    return value


def _metrics(value: object) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > METRICS_MAX:
        raise ValueError(f"metrics must be an object of at most {METRICS_MAX} numbers")
    return {_bounded(name): number for name in value if (number := _number(value, name)) is not None}
