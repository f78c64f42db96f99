"""Step Functions: the interpreter is wrapped where it differs from AWS in what retraining relies on."""

import json
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from retrainer.local.ministack_seams import module


class AbortedError(Exception):
    """The execution is over; no Retry and no Catch of its own may see this."""


@dataclass(slots=True, eq=False)
class TaskScope:
    """The task that the current thread carries out; `cancelled` is set when the task alone is over."""

    execution: Any
    cancelled: threading.Event = field(default_factory=threading.Event)

    def is_over(self) -> bool:
        return self.cancelled.is_set() or self.execution["status"] != "RUNNING"


_scope: ContextVar[TaskScope | None] = ContextVar("_scope", default=None)
_waiting: dict[str, set[str]] = {}  # execution ARN -> task tokens it waits for


def task_is_wanted() -> bool:
    """Whether the execution and the task that this thread works for are still running."""
    scope = _scope.get()
    return scope is None or not scope.is_over()


def correct_step_functions() -> None:
    """Puts every wrapper of this file in place."""
    states = _states()
    wraps: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
        "_start_execution": _idempotent_start,
        "_stop_execution": _thorough_stop,
        "_fail_execution": _fail_once,
        "_execute_task": _scoped_task,
        "_invoke_resource": _wanted_resource,
        "_invoke_resource_with_timeout": _cancelling_timeout,
        "_invoke_with_callback": _watched_callback,
    }
    for name, wrap in wraps.items():
        setattr(states, name, wrap(getattr(states, name)))


def _idempotent_start(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """StartExecution with the name and input of a running execution returns that one (AWS API reference)."""

    def start(data: Any) -> Any:
        states, responses = _states(), module("ministack.core.responses")
        name, text = data.get("name"), data.get("input", "{}")
        if name is not None and not 1 <= len(name) <= 80:
            return responses.error_response_json("InvalidName", f"Invalid Name: '{name}'", 400)
        try:
            json.loads(text)
        except ValueError:
            return responses.error_response_json("InvalidExecutionInput", "Invalid State Machine Execution Input", 400)
        machine_arn = states._resolve_state_machine_arn(data.get("stateMachineArn", "").rsplit("#", 1)[0])
        if machine_arn is not None and name is not None:
            running = states._executions.get(_execution_arn(machine_arn, name))
            if running is not None and running["status"] == "RUNNING" and running["input"] == text:
                return responses.json_response(
                    {"executionArn": running["executionArn"], "startDate": running["startDate"]}
                )
        answer = original(data)
        if answer[0] == 200 and machine_arn is not None:
            _limit(states, machine_arn, json.loads(answer[2])["executionArn"])
        return answer

    return start


def _execution_arn(machine_arn: str, name: str) -> str:
    return f"{machine_arn.replace(':stateMachine:', ':execution:')}:{name}"


def _limit(states: ModuleType, machine_arn: str, execution_arn: str) -> None:
    """The state machine's own TimeoutSeconds, after which the execution is TIMED_OUT."""
    seconds = json.loads(states._state_machines[machine_arn]["definition"]).get("TimeoutSeconds")
    execution = states._executions.get(execution_arn)
    if seconds is None or execution is None:
        return

    def time_out() -> None:
        if execution["status"] == "RUNNING":
            execution.update(status="TIMED_OUT", stopDate=module("ministack.core.responses").now_iso())
            states._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
            states._emit_execution_status_event(execution)
            _release(execution_arn)

    timer = threading.Timer(float(seconds), time_out)
    timer.daemon = True
    timer.start()


def _thorough_stop(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """StopExecution also ends what the execution waits for; jobs look at `task_is_wanted` themselves."""

    def stop(data: Any) -> Any:
        answer = original(data)
        if answer[0] == 200:
            _release(data["executionArn"])
        return answer

    return stop


def _release(execution_arn: str) -> None:
    tokens = _states()._task_tokens
    for token in _waiting.pop(execution_arn, set()):
        if info := tokens.pop(token, None):
            info["error"] = {"Error": "States.Aborted", "Cause": "the execution is over"}
            info["event"].set()


def _fail_once(original: Callable[..., None]) -> Callable[..., None]:
    """An execution that was aborted or timed out does not fail afterwards."""

    def fail(execution: Any, error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            original(execution, error, cause)

    return fail


def _scoped_task(original: Callable[..., Any]) -> Callable[..., Any]:
    """Every task knows its execution; TimeoutSecondsPath and HeartbeatSecondsPath are resolved."""

    def execute(state: Any, raw_input: Any, execution: Any, ctx: Any) -> Any:
        for name in ("TimeoutSeconds", "HeartbeatSeconds"):
            if path := state.get(f"{name}Path"):
                state = {**state, name: _states()._resolve_path_or_ctx(path, raw_input, ctx)}
        before = _scope.set(TaskScope(execution))
        try:
            return original(state, raw_input, execution, ctx)
        finally:
            _scope.reset(before)

    return execute


def _wanted_resource(original: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    def invoke(resource: str, task_input: Any) -> Any:
        _raise_if_over()
        result = original(resource, task_input)
        _raise_if_over()
        return result

    return invoke


def _raise_if_over() -> None:
    if not task_is_wanted():
        raise AbortedError("the execution is over")


def _cancelling_timeout(original: Callable[..., Any]) -> Callable[..., Any]:
    """A task that ran out of time is told so: its job stops, as on AWS."""

    def invoke(resource: str, task_input: Any, seconds: float) -> Any:
        outer = _scope.get()
        if outer is None:
            return original(resource, task_input, seconds)
        scope = TaskScope(outer.execution)
        before = _scope.set(scope)
        try:
            return original(resource, task_input, seconds)
        finally:
            scope.cancelled.set()
            _scope.reset(before)

    return invoke


def _watched_callback(original: Callable[..., Any]) -> Callable[..., Any]:
    """A token is void when its execution is over, and times out when HeartbeatSeconds pass without a heartbeat."""

    def invoke(resource: str, task_input: Any, token: str, state: Any) -> Any:
        _raise_if_over()
        scope = _scope.get()
        arn = scope.execution["executionArn"] if scope is not None else ""
        _waiting.setdefault(arn, set()).add(token)
        done = threading.Event()
        if heartbeat := state.get("HeartbeatSeconds"):
            watch = threading.Thread(target=_watch_heartbeat, args=(token, float(heartbeat), done), daemon=True)
            watch.start()
        try:
            return original(resource, task_input, token, state)
        except _states()._ExecutionError:
            _raise_if_over()
            raise
        finally:
            done.set()
            _waiting.get(arn, set()).discard(token)

    return invoke


def _watch_heartbeat(token: str, seconds: float, done: threading.Event) -> None:
    tokens = _states()._task_tokens
    seen: object = None
    while not done.wait(seconds):
        info = tokens.get(token)
        if info is None:
            return
        if info["heartbeat"] == seen:
            info["error"] = {"Error": "States.HeartbeatTimeout", "Cause": f"no heartbeat for {seconds:g} seconds"}
            info["event"].set()
            return
        seen = info["heartbeat"]


def _states() -> Any:
    return module("ministack.services.stepfunctions")
