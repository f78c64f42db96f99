"""Services: SageMaker is added; Lambda and CloudWatch are corrected; the event bus takes events of AWS."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from retrainer.local.ministack_seams import module
from retrainer.local.sync_tasks import TaskError

Handler = Callable[..., Awaitable[tuple[int, dict[str, str], bytes]]]


def application() -> Callable[..., Awaitable[None]]:
    """The emulator as an ASGI application."""
    return module("ministack.app").app  # type: ignore[no-any-return]


def register_sagemaker(handle: Handler, tasks: Mapping[str, Callable[[str, Any], Any]]) -> None:
    """Makes SageMaker a service of the gateway, of `aws-sdk:sagemaker` tasks, and of the optimised ones given."""
    states = module("ministack.services.stepfunctions")
    module("ministack.app").SERVICE_HANDLERS["sagemaker"] = handle
    # Without a pattern the router loads every botocore model to learn whether the name is one of AWS's (390 MB).
    module("ministack.core.router").SERVICE_PATTERNS["sagemaker"] = {
        "target_prefixes": ["SageMaker."],
        "host_patterns": [r"api\.sagemaker\.", r"runtime\.sagemaker\."],
    }
    states._AWS_SDK_SERVICE_MAP["sagemaker"] = {"target_prefix": "SageMaker", "protocol": "json"}
    states._AWS_SDK_ERROR_PREFIX["sagemaker"] = "SageMaker"
    # Names of the AWS SDK for Java 2.x, which Step Functions uses for SDK integrations.
    states._AWS_SDK_ERROR_CODE_OVERRIDES["sagemaker"] = {
        "ResourceInUse": "ResourceInUseException",
        "ResourceNotFound": "ResourceNotFoundException",
        "ValidationException": "SageMakerException",
        "UnknownOperationException": "SageMakerException",
    }
    for resource, task in tasks.items():
        states._SERVICE_DISPATCH[resource] = _translating_errors(task)


def put_event(source: str, detail_type: str, detail: Any, resources: list[str]) -> None:
    """Puts an event of an AWS service on the default bus."""
    eventbridge = module("ministack.services.eventbridge")
    entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail), "Resources": resources}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


def _translating_errors(task: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    def invoke(resource: str, task_input: Any) -> Any:
        try:
            return task(resource, task_input)
        except TaskError as failure:
            raise module("ministack.services.stepfunctions")._ExecutionError(failure.error, failure.cause) from failure

    return invoke


def announce_alarms() -> None:
    """Every alarm's change of state goes to the event bus, as on AWS."""
    cloudwatch = module("ministack.services.cloudwatch")
    original = cloudwatch._dispatch_alarm_actions

    def dispatch(alarm: Any, old_state: str, new_state: str, reason: str) -> None:
        original(alarm, old_state, new_state, reason)
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        detail = {
            "alarmName": alarm.get("AlarmName", ""),
            "state": {"value": new_state, "reason": reason, "timestamp": moment},
            "previousState": {"value": old_state},
            "configuration": {"description": alarm.get("AlarmDescription") or ""},
        }
        put_event("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm.get("AlarmArn", "")])

    cloudwatch._dispatch_alarm_actions = dispatch


def deliver_s3_events_at_once() -> None:
    """An object's event is in its queue before the upload is acknowledged, so that no kill comes between them."""
    s3 = module("ministack.services.s3")
    later = s3._fire_s3_event_async

    def fire(bucket: str, key: str, event: str, *arguments: Any, **named: Any) -> None:
        configuration = s3._bucket_notifications.get(bucket, "")
        if "CloudFunction" in configuration or "LambdaFunction" in configuration:
            later(bucket, key, event, *arguments, **named)  # it runs a function, which may call back
        elif configuration:
            s3._fire_s3_event(bucket, key, event, *arguments, sequencer=s3._next_event_sequencer(event), **named)

    s3._fire_s3_event_async = fire


_error_type: ContextVar[str | None] = ContextVar("_error_type", default=None)


def name_lambda_errors() -> None:
    """A function's exception reaches its caller under its class name, as on AWS, not as Runtime.HandlerError."""
    runtime, functions = module("ministack.core.lambda_runtime"), module("ministack.services.lambda_svc")
    report = '"error": str(e), "trace": traceback.format_exc()'
    named = f'"type": type(e).__name__, {report}'
    runtime._PYTHON_WORKER_SCRIPT = runtime._PYTHON_WORKER_SCRIPT.replace(report, named)
    invoke_worker, execute = runtime.Worker.invoke, functions._execute_function_warm

    def invoke(worker: Any, *arguments: Any, **named_arguments: Any) -> Any:
        result = invoke_worker(worker, *arguments, **named_arguments)
        _error_type.set(result.get("type"))
        return result

    def execute_warm(*arguments: Any) -> Any:
        _error_type.set(None)
        result = execute(*arguments)
        name = _error_type.get()
        if result.get("error") and name is not None:
            result["body"]["errorType"] = name
        return result

    runtime.Worker.invoke = invoke
    functions._execute_function_warm = execute_warm
