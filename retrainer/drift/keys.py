"""The keys that grids and profiles are stored at in S3; apart from `stored`, for whoever does not load numpy."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

Named = tuple[str, str, str]
"""Bucket, key and version of a batch."""


def grid_key(prefix: str, batches: Sequence[Named], spec: Mapping[str, str]) -> str:
    """Where the grid chosen from these batches is."""
    return f"{prefix}grid-{_hash([sorted(batches), sorted(spec.items())])}"


def profile_key(prefix: str, grid_id: str, bucket: str, key: str, version: str) -> str:
    """Where one batch's profile is; what follows the last slash does not depend on the grid."""
    return f"{prefix}{grid_id}/batch-{_hash([bucket, key, version])}"


def reference_key(prefix: str, grid_id: str, batches: Sequence[Named]) -> str:
    """Where the profile of these batches together is, with its inflation: their order counts."""
    return f"{prefix}{grid_id}/reference-{_hash(list(batches))}"


def _hash(named: list[Any]) -> str:
    written = json.dumps(["RTP1", named], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()
