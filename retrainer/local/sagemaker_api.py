"""The SageMaker API on the wire: which operation a request names, whether it is well formed, what is answered."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.validate import ParamValidator

from retrainer.local.endpoints import Endpoints
from retrainer.local.host import Host, SageMakerError, invalid
from retrainer.local.listing import Listing, page
from retrainer.local.models import EndpointConfigs, Models
from retrainer.local.processing import ProcessingJobs
from retrainer.local.registry import Registry
from retrainer.local.store import Record
from retrainer.local.training import TrainingJobs

Response = tuple[int, dict[str, str], bytes]
Operation = Callable[[Record], Record]
JSON_1_1 = "application/x-amz-json-1.1"


class LocalSageMaker:
    """SageMaker's control plane and its runtime, as far as retraining needs them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.training = TrainingJobs(host)
        self.processing = ProcessingJobs(host)
        self.registry = Registry(host)
        self.models = Models(host, self.registry)
        self.configs = EndpointConfigs(host)
        self.endpoints = Endpoints(host, self.models, self.configs)
        self._operations = self._table()
        self._model = botocore.session.get_session().get_service_model("sagemaker")

    async def handle(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, _query: Mapping[str, Any]
    ) -> Response:
        """One request as the gateway hands it over; never blocks the loop for longer than a small file takes."""
        if path.startswith("/endpoints/") and path.endswith("/invocations"):
            return await self._invoke(unquote(path.split("/")[2]), headers, body)
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        try:
            return _json(200, self.call(action, json.loads(body or b"{}")))
        except json.JSONDecodeError:
            return _error(SageMakerError("SerializationException", "the body is not JSON"))
        except SageMakerError as error:
            return _error(error)

    def call(self, action: str, request: Record) -> Record:
        """One operation; a request that the API's own model does not know is refused with the field's name."""
        operation = self._operations.get(action)
        if operation is None:
            raise SageMakerError("UnknownOperationException", f"the local SageMaker does not know {action!r}")
        shape = self._model.operation_model(action).input_shape
        assert shape is not None, f"{action} takes no input"
        report = ParamValidator().validate(request, shape)
        if report.has_errors():
            raise invalid(f"{action}: {report.generate_report()}")
        answer = operation(request)
        arn = next((value for key, value in answer.items() if key.endswith("Arn")), None)
        if "Tags" in request and action.startswith("Create") and arn is not None:
            self._tag({"ResourceArn": arn, "Tags": request["Tags"]})
        return answer

    async def _invoke(self, name: str, headers: Mapping[str, str], body: bytes) -> Response:
        passed = {"Content-Type": headers.get("content-type", "application/octet-stream")}
        passed |= {key: headers[key] for key in ("accept", "x-amzn-sagemaker-custom-attributes") if key in headers}
        target = headers.get("x-amzn-sagemaker-target-variant")
        try:
            variant, answer = await asyncio.to_thread(self.endpoints.invoke, name, body, passed, target)
        except SageMakerError as error:
            return _error(error, content_type="application/json")
        if answer.status != 200:
            message = answer.body.decode(errors="replace")[:1024]
            failure = {
                "Message": f'Received server error ({answer.status}) from {variant} with message "{message}".',
                "OriginalStatusCode": answer.status,
                "OriginalMessage": message,
            }
            code = {"x-amzn-errortype": "ModelError", "Content-Type": "application/json"}
            return 424, code, json.dumps(failure).encode()
        found = {"Content-Type": answer.content_type, "x-amzn-invoked-production-variant": variant}
        return 200, found, answer.body

    def _table(self) -> dict[str, Operation]:
        training, processing, registry = self.training, self.processing, self.registry
        return {
            "CreateTrainingJob": training.create,
            "DescribeTrainingJob": lambda request: training.jobs.describe(request["TrainingJobName"]),
            "StopTrainingJob": lambda request: training.jobs.stop(request["TrainingJobName"]),
            "ListTrainingJobs": self._list(Listing("TrainingJob", "TrainingJobSummaries")),
            "CreateProcessingJob": processing.create,
            "DescribeProcessingJob": lambda request: processing.jobs.describe(request["ProcessingJobName"]),
            "StopProcessingJob": lambda request: processing.jobs.stop(request["ProcessingJobName"]),
            "ListProcessingJobs": self._list(Listing("ProcessingJob", "ProcessingJobSummaries")),
            "CreateModelPackageGroup": registry.create_group,
            "DescribeModelPackageGroup": registry.describe_group,
            "DeleteModelPackageGroup": registry.delete_group,
            "ListModelPackageGroups": self._list(Listing("ModelPackageGroup", "ModelPackageGroupSummaryList")),
            "CreateModelPackage": registry.create,
            "DescribeModelPackage": registry.describe,
            "UpdateModelPackage": registry.update,
            "DeleteModelPackage": registry.delete,
            "ListModelPackages": self._list(Listing("ModelPackage", "ModelPackageSummaryList")),
            "CreateModel": self.models.create,
            "DescribeModel": self.models.describe,
            "DeleteModel": self.models.delete,
            "ListModels": self._list(Listing("Model", "Models")),
            "CreateEndpointConfig": self.configs.create,
            "DescribeEndpointConfig": self.configs.describe,
            "DeleteEndpointConfig": self.configs.delete,
            "ListEndpointConfigs": self._list(Listing("EndpointConfig", "EndpointConfigs")),
            "CreateEndpoint": self.endpoints.create,
            "DescribeEndpoint": self.endpoints.describe,
            "UpdateEndpoint": self.endpoints.update,
            "DeleteEndpoint": self.endpoints.delete,
            "ListEndpoints": self._list(Listing("Endpoint", "Endpoints")),
            "AddTags": self._tag,
            "ListTags": self._tags,
        }

    def _list(self, listing: Listing) -> Operation:
        return lambda request: page(listing, self.host.store.all(listing.kind), request)

    def _tag(self, request: Record) -> Record:
        with self.host.store.change("Tags") as tables:
            tags = tables.setdefault(request["ResourceArn"], {})
            tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        return {"Tags": request["Tags"]}

    def _tags(self, request: Record) -> Record:
        tags = self.host.store.get("Tags", request["ResourceArn"]) or {}
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _json(status: int, answer: Record) -> Response:
    return status, {"Content-Type": JSON_1_1}, json.dumps(answer).encode()


def _error(error: SageMakerError, *, content_type: str = JSON_1_1) -> Response:
    body = {"__type": error.code, "message": error.message, "Message": error.message}
    return error.status, {"Content-Type": content_type, "x-amzn-errortype": error.code}, json.dumps(body).encode()
