"""Every SageMaker request of the state machine and of its steps, type-checked against AWS's own models of the API.

Twice: by the SageMaker SDK's pydantic shapes (which refuse unknown fields) and by botocore's service model (which knows
what is required). Neither calls AWS.
"""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from pydantic import ConfigDict, create_model

from steps import promote, register
from tests.deploy.definition import tasks
from tests.deploy.payloads import EXECUTION, INPUT, STATE, SUBSTITUTIONS, resolve

CALLS = {"createTrainingJob.sync": "CreateTrainingJob", "createProcessingJob.sync": "CreateProcessingJob"}
SDK = {
    "CreateTrainingJob": ("TrainingJob", "create"),
    "CreateProcessingJob": ("ProcessingJob", "create"),
    "UpdateModelPackage": ("ModelPackage", "update"),
    "DescribeEndpoint": ("Endpoint", "get"),
    "CreateModelPackage": ("ModelPackage", "create"),
    "UpdateEndpoint": ("Endpoint", "update"),
}
ALARMS = ["errors", "latency"]


def requests() -> dict[str, tuple[str, dict[str, Any]]]:
    """(operation, request) by the state or step that sends it."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, task in tasks().items():
        if "sagemaker:" in task["Resource"]:
            call = task["Resource"].rpartition(":")[2]
            operation = CALLS.get(call, call[0].upper() + call[1:])
            found[name] = (operation, resolve(task["Parameters"]))
    event = {"request": INPUT, "evaluation": STATE["evaluation"], "execution": EXECUTION}
    found["register"] = ("CreateModelPackage", register.package(event, SUBSTITUTIONS["TrainerImage"]))
    for count, alarms in ((1, []), (1, ALARMS), (2, []), (20, ALARMS)):
        request = {
            "EndpointName": "recommender",
            "EndpointConfigName": EXECUTION,
            "DeploymentConfig": promote.deployment(count, alarms, 10, 300),
        }
        found[f"promote {count} instances, {len(alarms)} alarms"] = ("UpdateEndpoint", request)
    return found


@pytest.fixture(scope="session")
def sdk() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sagemaker.core.resources", reason="the sagemaker extra is not installed")


@pytest.mark.parametrize("name", requests())
def test_the_sdk_accepts_every_field(name: str, sdk: Any) -> None:
    operation, request = requests()[name]
    resource, method = SDK[operation]
    parameters = {**sdk.__dict__[resource].__annotations__, **_annotations(getattr(sdk.__dict__[resource], method))}
    for key, value in request.items():
        field = _snake(key)
        assert field in parameters, f"{operation} has no field {key}"
        field_model = create_model(
            key, __config__=ConfigDict(arbitrary_types_allowed=True), given=(parameters[field], ...)
        )
        field_model(given=_snaked(value, free=key in FREE))


@pytest.mark.parametrize("name", requests())
def test_botocore_misses_nothing(name: str) -> None:
    operation, request = requests()[name]
    shape = botocore.session.get_session().get_service_model("sagemaker").operation_model(operation).input_shape
    assert shape is not None
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("operation", ["DescribeTrainingJob"])
def test_a_result_selector_takes_fields_that_are_always_there(operation: str) -> None:
    model = botocore.session.get_session().get_service_model("sagemaker").operation_model(operation)
    assert model.output_shape is not None
    selectors = [t["ResultSelector"] for t in tasks().values() if t["Resource"].endswith("createTrainingJob.sync")]
    assert len(selectors) == 3
    for selector in selectors:
        assert {path.split(".")[1] for path in selector.values()} <= set(model.output_shape.required_members)


def test_container_arguments_keep_to_256_characters() -> None:
    for _, request in requests().values():
        application = request.get("AppSpecification", {})
        assert all(len(argument) <= 256 for argument in application.get("ContainerArguments", []))


def test_metadata_of_a_package_keeps_to_sagemakers_alphabet() -> None:
    metadata = requests()["register"][1]["CustomerMetadataProperties"]
    assert all(len(value) <= 256 and value.isprintable() for value in metadata.values())


FREE = {"HyperParameters", "Environment", "CustomerMetadataProperties"}
"""Maps whose keys are ours, not the API's."""


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    return {p.name: p.annotation for p in parameters if p.annotation is not inspect.Parameter.empty}


def _snaked(value: Any, free: bool) -> Any:
    if isinstance(value, dict):
        return {k if free else _snake(k): _snaked(v, k in FREE) for k, v in value.items()}
    return [_snaked(v, free) for v in value] if isinstance(value, list) else value


def _snake(name: str) -> str:
    from sagemaker.core.utils.code_injection.codec import pascal_to_snake

    return str(pascal_to_snake(name))
