"""Endpoints: deployments that are switched only after the new containers are healthy, and rolled back otherwise."""

import itertools
import threading
from dataclasses import dataclass

from retrainer.local.host import Host, SageMakerError, invalid, not_found, now
from retrainer.local.models import EndpointConfigs, Models
from retrainer.local.serving import Answer, Serving
from retrainer.local.store import Record


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    weight: float
    serving: Serving


Deployment = tuple[Variant, ...]


class Endpoints:
    """`Endpoints.restore()` is called once, when S3 can be reached: it starts what was in service before a restart."""

    def __init__(self, host: Host, models: Models, configs: EndpointConfigs) -> None:
        self._host, self._models, self._configs = host, models, configs
        self._lock = threading.Lock()
        self._deployed: dict[str, Deployment] = {}
        self._served: dict[str, int] = {}
        self._numbers = itertools.count(1)

    def restore(self) -> None:
        for endpoint in self._host.store.all("Endpoint"):
            if endpoint["EndpointStatus"] == "Deleting":
                self._forget(endpoint["EndpointName"])
            elif endpoint["EndpointStatus"] != "Failed":
                # An update that was under way is rolled back: the record still names the old configuration.
                self._spawn(self._deploy, endpoint["EndpointName"], endpoint["EndpointConfigName"])

    def create(self, request: Record) -> Record:
        name, config = request["EndpointName"], request["EndpointConfigName"]
        variants = self._configs.describe({"EndpointConfigName": config})["ProductionVariants"]
        arn = self._arn(name)
        with self._host.store.change("Endpoint") as endpoints:
            if name in endpoints:
                raise invalid(f'Cannot create already existing endpoint "{arn}".')
            endpoints[name] = {
                "EndpointName": name,
                "EndpointArn": arn,
                "EndpointConfigName": config,
                "EndpointStatus": "Creating",
                "ProductionVariants": summary(variants),
                "CreationTime": now(),
                "LastModifiedTime": now(),
            }
        self._spawn(self._deploy, name, config)
        return {"EndpointArn": arn}

    def update(self, request: Record) -> Record:
        name, config = request["EndpointName"], request["EndpointConfigName"]
        self._configs.describe({"EndpointConfigName": config})
        status = self.describe(request)["EndpointStatus"]
        if status not in {"InService", "Failed"}:
            raise invalid(f'Cannot update in-progress endpoint "{self._arn(name)}".')
        extra = {"LastDeploymentConfig": request["DeploymentConfig"]} if "DeploymentConfig" in request else {}
        self._change(name, EndpointStatus="Updating", PendingConfigName=config, **extra)
        self._spawn(self._deploy, name, config)
        return {"EndpointArn": self._arn(name)}

    def delete(self, request: Record) -> Record:
        name = request["EndpointName"]
        status = self.describe(request)["EndpointStatus"]
        if status in {"Creating", "Updating"}:
            raise invalid(f'Cannot delete endpoint "{self._arn(name)}" while its status is {status}.')
        self._change(name, EndpointStatus="Deleting")
        self._spawn(self._remove, name)
        return {}

    def describe(self, request: Record) -> Record:
        endpoint = self._host.store.get("Endpoint", request["EndpointName"])
        if endpoint is None:
            raise not_found("endpoint", self._arn(request["EndpointName"]))
        return endpoint

    def invoke(self, name: str, body: bytes, headers: dict[str, str], target_variant: str | None) -> tuple[str, Answer]:
        """The variant that answered, and its answer; blocks."""
        with self._lock:
            variants = self._deployed.get(name, ())
            if target_variant is not None:
                variants = tuple(variant for variant in variants if variant.name == target_variant)
            if not variants:
                raise SageMakerError(
                    "ValidationError", f"Endpoint {name} of account {self._host.account} not found.", status=400
                )
            count = self._served[name] = self._served.get(name, -1) + 1
        variant = by_weight(variants, count)
        try:
            return variant.name, variant.serving.invoke(body, headers)
        except OSError as error:
            raise SageMakerError(
                "ServiceUnavailable", f"the container of {name}/{variant.name} does not answer: {error}", status=503
            ) from error

    def _deploy(self, name: str, config: str) -> None:
        """Starts the configuration's containers and switches to them, or keeps what is in service and says why."""
        variants = self._configs.describe({"EndpointConfigName": config})["ProductionVariants"]
        fresh = self._start(name, variants)
        reason = next(filter(None, (self._reason(variant) for variant in fresh)), None)
        if reason is not None:
            _stop(fresh)
            before = self._deployed.get(name)
            self._change(name, EndpointStatus="InService" if before else "Failed", FailureReason=reason)
            return
        with self._lock:
            replaced = self._deployed.get(name, ())
            self._deployed[name] = fresh
        self._change(
            name,
            EndpointStatus="InService",
            EndpointConfigName=config,
            ProductionVariants=summary(variants),
            FailureReason=None,
        )
        _stop(replaced)

    def _start(self, name: str, variants: list[Record]) -> Deployment:
        directory = self._host.root / "containers" / "endpoints" / name
        started = []
        for variant in variants:
            number = next(self._numbers)
            model = self._models.container(self._models.describe({"ModelName": variant["ModelName"]}))
            serving = Serving(self._host, model=model, log_name=f"{name}-{number}", directory=directory / str(number))
            started.append(Variant(variant["VariantName"], variant.get("InitialVariantWeight", 1.0), serving))
        return tuple(started)

    def _reason(self, variant: Variant) -> str | None:
        variant.serving.settled.wait(self._host.endpoint_start_seconds + 60)
        return variant.serving.failed

    def _remove(self, name: str) -> None:
        with self._lock:
            variants = self._deployed.pop(name, ())
        _stop(variants)
        self._forget(name)

    def _forget(self, name: str) -> None:
        with self._host.store.change("Endpoint") as endpoints:
            endpoints.pop(name, None)

    def _change(self, name: str, **fields: object) -> None:
        with self._host.store.change("Endpoint") as endpoints:
            endpoints[name].update(fields, LastModifiedTime=now())
            if fields["EndpointStatus"] != "Updating":
                endpoints[name].pop("PendingConfigName", None)
            record = {key: value for key, value in endpoints[name].items() if value is not None}
            endpoints[name] = record
        detail = {**record, "EndpointStatus": _event_status(record)}
        self._host.emit("SageMaker Endpoint State Change", detail, [record["EndpointArn"]])

    def _spawn(self, work: object, *arguments: str) -> None:
        threading.Thread(target=self._guarded, args=(work, arguments), daemon=True, name="endpoint").start()

    def _guarded(self, work: object, arguments: tuple[str, ...]) -> None:
        assert callable(work)
        try:
            work(*arguments)
        except Exception as error:  # whatever it was, the endpoint must not stay in Creating or Updating for ever
            status = "InService" if self._deployed.get(arguments[0]) else "Failed"
            self._change(arguments[0], EndpointStatus=status, FailureReason=str(error))
            if not isinstance(error, SageMakerError):
                raise

    def _arn(self, name: str) -> str:
        return self._host.arn(f"endpoint/{name}")


def by_weight(variants: Deployment, count: int) -> Variant:
    """The variant for the count-th invocation: shares follow the weights, without chance.

    The golden ratio's multiples are spread evenly over [0, 1).
    """
    point = (count * 0.6180339887498949) % 1.0 * sum(variant.weight for variant in variants)
    for variant in variants:
        if point < variant.weight:
            return variant
        point -= variant.weight
    return variants[-1]


def summary(variants: list[Record]) -> list[Record]:
    """ProductionVariants as DescribeEndpoint gives them."""
    return [
        {
            "VariantName": variant["VariantName"],
            "CurrentWeight": variant.get("InitialVariantWeight", 1.0),
            "DesiredWeight": variant.get("InitialVariantWeight", 1.0),
            "CurrentInstanceCount": variant.get("InitialInstanceCount", 1),
            "DesiredInstanceCount": variant.get("InitialInstanceCount", 1),
        }
        for variant in variants
    ]


def _event_status(record: Record) -> str:
    """Events spell the status IN_SERVICE where the API has InService."""
    status: str = record["EndpointStatus"]
    return {"InService": "IN_SERVICE"}.get(status, status.upper())


def _stop(variants: Deployment) -> None:
    for variant in variants:
        variant.serving.stop()
