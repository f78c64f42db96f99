"""Models and endpoint configurations: what an endpoint is made of. They are records; nothing runs here."""

from retrainer.local.host import Host, invalid, not_found, now
from retrainer.local.registry import Registry
from retrainer.local.store import Record


class Models:
    def __init__(self, host: Host, registry: Registry) -> None:
        self._host = host
        self._registry = registry

    def create(self, request: Record) -> Record:
        self.container(request)
        return {"ModelArn": _create(self._host, "Model", request)}

    def describe(self, request: Record) -> Record:
        return _describe(self._host, "Model", request["ModelName"])

    def delete(self, request: Record) -> Record:
        return _delete(self._host, "Model", request["ModelName"])

    def container(self, model: Record) -> Record:
        """The one container of a model: Image, ModelDataUrl, Environment, taken from the registry when it names one."""
        containers = [model["PrimaryContainer"]] if "PrimaryContainer" in model else model.get("Containers", [])
        if len(containers) != 1:
            raise invalid("the local SageMaker serves models of exactly one container")
        container = dict(containers[0])
        if package_name := container.get("ModelPackageName"):
            package = self._registry.find(package_name)
            inside = package.get("InferenceSpecification", {}).get("Containers", [])
            if not inside:
                raise invalid(f"{package_name} has no InferenceSpecification with a container")
            if package["ModelApprovalStatus"] != "Approved":
                raise invalid(f"Model Package {package_name} has approval status {package['ModelApprovalStatus']}")
            container["Environment"] = inside[0].get("Environment", {}) | container.get("Environment", {})
            container |= {key: inside[0][key] for key in ("Image", "ModelDataUrl") if key in inside[0]}
        if "ModelDataUrl" not in container:
            url = container.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri")
            if url:
                container["ModelDataUrl"] = url
        return container


class EndpointConfigs:
    def __init__(self, host: Host) -> None:
        self._host = host

    def create(self, request: Record) -> Record:
        for variant in request["ProductionVariants"]:
            if "ModelName" not in variant:
                raise invalid(f"variant {variant['VariantName']} names no model")
            _describe(self._host, "Model", variant["ModelName"])
        return {"EndpointConfigArn": _create(self._host, "EndpointConfig", request)}

    def describe(self, request: Record) -> Record:
        return _describe(self._host, "EndpointConfig", request["EndpointConfigName"])

    def delete(self, request: Record) -> Record:
        return _delete(self._host, "EndpointConfig", request["EndpointConfigName"])


def _arn(host: Host, kind: str, name: str) -> str:
    return host.arn(f"{'model' if kind == 'Model' else 'endpoint-config'}/{name}")


def _create(host: Host, kind: str, request: Record) -> str:
    name = request[f"{kind}Name"]
    arn = _arn(host, kind, name)
    with host.store.change(kind) as records:
        if name in records:
            raise invalid(f'Cannot create already existing {_words(kind)} "{arn}".')
        records[name] = {**request, f"{kind}Arn": arn, "CreationTime": now()}
    return arn


def _describe(host: Host, kind: str, name: str) -> Record:
    record = host.store.get(kind, name)
    if record is None:
        raise not_found(_words(kind), _arn(host, kind, name))
    return record


def _delete(host: Host, kind: str, name: str) -> Record:
    _describe(host, kind, name)
    with host.store.change(kind) as records:
        del records[name]
    return {}


def _words(kind: str) -> str:
    return "model" if kind == "Model" else "endpoint configuration"
