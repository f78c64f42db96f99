"""The List* operations: filter, sort, page."""

from dataclasses import dataclass

from retrainer.local.host import invalid
from retrainer.local.registry import last_part
from retrainer.local.store import Record

PAGE_DEFAULT = 10  # SageMaker's MaxResults when none is given
# Fields of the summaries, by the end of their names; everything else is for Describe.
SUMMARY = ("Name", "Arn", "Status", "CreationTime", "EndTime", "LastModifiedTime", "Version", "Description")


@dataclass(frozen=True, slots=True)
class Listing:
    """A kind of record and the name of the list in the answer."""

    kind: str
    answer: str


def page(listing: Listing, records: list[Record], request: Record) -> Record:
    """One page of the records, newest first unless asked otherwise."""
    kept = [record for record in records if _matches(listing.kind, record, request)]
    by_name = request.get("SortBy") in {"Name", "ModelPackageGroupName"}
    name = "ModelPackageArn" if listing.kind == "ModelPackage" else f"{listing.kind}Name"
    kept.sort(key=lambda record: (record[name] if by_name else record["CreationTime"], record[name]))
    # Two packages of one group may share a millisecond: their versions tell them apart.
    if not by_name and listing.kind == "ModelPackage":
        kept.sort(key=lambda record: (record["CreationTime"], record.get("ModelPackageVersion", 0)))
    if request.get("SortOrder", "Ascending" if by_name else "Descending") == "Descending":
        kept.reverse()
    start = _offset(request.get("NextToken", "0"))
    end = start + request.get("MaxResults", PAGE_DEFAULT)
    answer: Record = {listing.answer: [_summary(record) for record in kept[start:end]]}
    if end < len(kept):
        answer["NextToken"] = str(end)
    return answer


def _matches(kind: str, record: Record, request: Record) -> bool:
    wanted = {
        f"{kind}Status": request.get("StatusEquals"),
        "ModelApprovalStatus": request.get("ModelApprovalStatus"),
        "ModelPackageGroupName": last_part(request.get("ModelPackageGroupName", "")) or None,
    }
    if any(value is not None and record.get(field) != value for field, value in wanted.items()):
        return False
    name = str(record.get(f"{kind}Name") or record[f"{kind}Arn"])
    created = record["CreationTime"]
    return str(request.get("NameContains", "")) in name and bool(
        created > _seconds(request.get("CreationTimeAfter"), float("-inf"))
        and created < _seconds(request.get("CreationTimeBefore"), float("inf"))
    )


def _seconds(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float | str) else default


def _offset(token: str) -> int:
    if not token.isdigit():
        raise invalid("NextToken is not one that this API gave")
    return int(token)


def _summary(record: Record) -> Record:
    return {key: value for key, value in record.items() if key.endswith(SUMMARY) and key != "RoleArn"}
