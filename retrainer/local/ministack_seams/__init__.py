"""The only place that touches private names of ministack, the emulator the local AWS is made of.

What is added through them: SageMaker as a service and inside Step Functions; StartExecution that is idempotent by name
and input; executions that time out and abort for good; TimeoutSecondsPath and heartbeats; Lambda errors under their
class names; alarms on the event bus; state that is on disk before a change is acknowledged. `check()` names what is
missing in another version.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

REQUIRED = "ministack==1.5.33"
SEAMS: Mapping[str, tuple[str, ...]] = {
    "ministack.app": ("app", "SERVICE_HANDLERS", "_build_persistence_save_dict"),
    "ministack.core.router": ("SERVICE_PATTERNS",),
    "ministack.core.persistence": ("save_state", "STATE_DIR"),
    "ministack.core.responses": ("error_response_json", "json_response", "now_iso", "get_account_id", "get_region"),
    "ministack.core.lambda_runtime": ("_PYTHON_WORKER_SCRIPT", "Worker"),
    "ministack.services.lambda_svc": ("_execute_function_warm",),
    "ministack.services.eventbridge": ("_put_events", "_events_log"),
    "ministack.services.cloudwatch": ("_dispatch_alarm_actions",),
    "ministack.services.s3": (
        "_fire_s3_event_async",
        "_fire_s3_event",
        "_next_event_sequencer",
        "_bucket_notifications",
    ),
    "ministack.services.sqs": ("get_state",),
    "ministack.services.stepfunctions": (
        "_SERVICE_DISPATCH",
        "_AWS_SDK_SERVICE_MAP",
        "_AWS_SDK_ERROR_PREFIX",
        "_AWS_SDK_ERROR_CODE_OVERRIDES",
        "_ExecutionError",
        "_add_event",
        "_emit_execution_status_event",
        "_execute_task",
        "_executions",
        "_fail_execution",
        "_invoke_resource",
        "_invoke_resource_with_timeout",
        "_invoke_with_callback",
        "_resolve_path_or_ctx",
        "_resolve_state_machine_arn",
        "_start_execution",
        "_state_machines",
        "_stop_execution",
        "_task_tokens",
    ),
}


class SeamError(RuntimeError):
    """The installed ministack is not the one this file was written for."""


def check() -> None:
    """Raises SeamError, with the missing name and the version to install, unless every seam is there."""
    for module_name, names in SEAMS.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise SeamError(_advice(module_name)) from error
        for name in names:
            if not hasattr(module, name):
                raise SeamError(_advice(f"{module_name}.{name}"))


def module(name: str) -> Any:
    """A module of ministack; untyped, as ministack is."""
    return importlib.import_module(name)


def _advice(name: str) -> str:
    return f"{name} is missing in ministack {version('ministack')}: install {REQUIRED}"
