"""The model registry: package groups, numbered model packages, their approval."""

import re

from retrainer.local.host import Host, SageMakerError, invalid, now
from retrainer.local.store import Record

STATES = {"Approved", "Rejected", "PendingManualApproval"}
CREATED_BY = {"CreatedBy": {"UserProfileName": "local"}}


class Registry:
    def __init__(self, host: Host) -> None:
        self._host = host

    def create_group(self, request: Record) -> Record:
        name = request["ModelPackageGroupName"]
        if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name):
            raise invalid(f"Value '{name}' at 'modelPackageGroupName' is not a valid name of at most 63 characters")
        arn = self._host.arn(f"model-package-group/{name}")
        with self._host.store.change("ModelPackageGroup") as groups:
            if name in groups:
                raise invalid(f"Model Package Group already exists: {arn}")
            groups[name] = {
                **request,
                "ModelPackageGroupArn": arn,
                "ModelPackageGroupStatus": "Completed",
                "CreationTime": now(),
                **CREATED_BY,
            }
        return {"ModelPackageGroupArn": arn}

    def describe_group(self, request: Record) -> Record:
        name = last_part(request["ModelPackageGroupName"])
        group = self._host.store.get("ModelPackageGroup", name)
        if group is None:
            raise invalid(f"ModelPackageGroup {self._host.arn(f'model-package-group/{name}')} does not exist.")
        return group

    def delete_group(self, request: Record) -> Record:
        name = self.describe_group(request)["ModelPackageGroupName"]
        if any(package.get("ModelPackageGroupName") == name for package in self._host.store.all("ModelPackage")):
            raise SageMakerError("ConflictException", f"Model Package Group {name} still has model packages.")
        with self._host.store.change("ModelPackageGroup") as groups:
            del groups[name]
        return {}

    def create(self, request: Record) -> Record:
        group, name = request.get("ModelPackageGroupName"), request.get("ModelPackageName")
        if bool(group) == bool(name):
            raise invalid("Exactly one of ModelPackageGroupName and ModelPackageName must be given")
        status = request.get("ModelApprovalStatus", "PendingManualApproval")
        _check_status(status)
        if group:
            group = self.describe_group({"ModelPackageGroupName": group})["ModelPackageGroupName"]
        with self._host.store.change("ModelPackage") as packages:
            version = 1 + max(
                (package["ModelPackageVersion"] for package in packages.values() if _is_in(package, group)), default=0
            )
            arn = self._host.arn(f"model-package/{group}/{version}" if group else f"model-package/{name}")
            if arn in packages:
                raise invalid(f"Model Package already exists: {arn}")
            record = {**request, "ModelPackageArn": arn, "CreationTime": now(), **CREATED_BY}
            record |= {"ModelPackageStatus": "Completed", "ModelApprovalStatus": status}
            record |= {"ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []}}
            if group:
                record |= {"ModelPackageGroupName": group, "ModelPackageVersion": version}
            packages[arn] = record
        self._announce(record)
        return {"ModelPackageArn": arn}

    def describe(self, request: Record) -> Record:
        return self.find(request["ModelPackageName"])

    def find(self, name_or_arn: str) -> Record:
        arn = name_or_arn if name_or_arn.startswith("arn:") else self._host.arn(f"model-package/{name_or_arn}")
        package = self._host.store.get("ModelPackage", arn)
        if package is None:
            raise invalid(f"ModelPackage {arn} does not exist.")
        return package

    def update(self, request: Record) -> Record:
        arn = self.find(request["ModelPackageArn"])["ModelPackageArn"]
        if "ModelApprovalStatus" in request:
            _check_status(request["ModelApprovalStatus"])
        with self._host.store.change("ModelPackage") as packages:
            package = packages[arn]
            before = package["ModelApprovalStatus"]
            for field in ("ModelApprovalStatus", "ApprovalDescription", "SourceUri", "ModelLifeCycle"):
                if field in request:
                    package[field] = request[field]
            properties = package.get("CustomerMetadataProperties", {}) | request.get("CustomerMetadataProperties", {})
            for key in request.get("CustomerMetadataPropertiesToRemove", []):
                properties.pop(key, None)
            if properties:
                package["CustomerMetadataProperties"] = properties
            package |= {"LastModifiedTime": now(), "LastModifiedBy": CREATED_BY["CreatedBy"]}
            record = dict(package)
        if record["ModelApprovalStatus"] != before:
            self._announce(record)
        return {"ModelPackageArn": arn}

    def delete(self, request: Record) -> Record:
        arn = self.find(request["ModelPackageName"])["ModelPackageArn"]
        with self._host.store.change("ModelPackage") as packages:
            del packages[arn]
        return {}

    def _announce(self, package: Record) -> None:
        self._host.emit("SageMaker Model Package State Change", package, [package["ModelPackageArn"]])


def last_part(name_or_arn: str) -> str:
    return name_or_arn.rsplit("/", 1)[-1]


def _is_in(package: Record, group: str | None) -> bool:
    return group is not None and package.get("ModelPackageGroupName") == group


def _check_status(status: str) -> None:
    if status not in STATES:
        raise invalid(f"ModelApprovalStatus {status!r} is not one of {', '.join(sorted(STATES))}")
