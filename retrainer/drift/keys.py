"""The keys that grids and profiles are stored at in S3, for whoever does not load numpy, too."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Named = tuple[str, str, str]
"""Bucket, key and version of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a batch is checked for before it is counted; under another one it may be refused, or have another span.

    `written_as` is the format, None for that of each key's ending.
    """

    required: tuple[str, ...] = ()
    timestamp: str | None = None
    written_as: str | None = None


def grid_key(prefix: str, batches: Sequence[Named], spec: Mapping[str, str], demand: Demand) -> str:
    """Where the grid chosen from these batches is."""
    return f"{prefix}grid-{_hash([sorted(batches), sorted(spec.items()), *_told(demand)])}"


def profile_key(prefix: str, grid_id: str, batch: Named, demand: Demand) -> str:
    """Where one batch's profile is; what follows the last slash does not depend on the grid."""
    return f"{prefix}{grid_id}/batch-{_hash([*batch, *_told(demand)])}"


def reference_key(prefix: str, grid_id: str, batches: Sequence[Named], demand: Demand) -> str:
    """Where the profile of these batches together is, with its inflation: their order counts."""
    return f"{prefix}{grid_id}/reference-{_hash([list(batches), *_told(demand)])}"


def _told(demand: Demand) -> list[Any]:
    return [sorted(set(demand.required)), demand.timestamp, demand.written_as]


def _hash(named: list[Any]) -> str:
    written = json.dumps(["RTP1", named], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()
