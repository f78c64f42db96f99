"""What was computed once, on disk: small JSON files named by the hash of everything they follow from, never pickles."""

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrainer.core.record import canonical, digest


class Cache:
    """Answers by kind and name, in a folder. What cannot be read is as if it were not there; no write is half done."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder, what is computed is remembered as long as this is."""
        self._folder = folder
        self._known: dict[tuple[str, str], Any] = {}

    def get(self, kind: str, name: str) -> Any:
        """What was put there, or None."""
        if (kind, name) not in self._known and self._folder:
            try:
                found = json.loads(self._path(self._folder, kind, name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None
            self._known[kind, name] = found
        return self._known.get((kind, name))

    def put(self, kind: str, name: str, value: Any) -> None:
        """Remember a value that JSON can write, in the place of an older one."""
        self._known[kind, name] = value
        if self._folder is None:
            return
        path = self._path(self._folder, kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, written = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, separators=(",", ":"))
        Path(written).replace(path)

    @staticmethod
    def _path(folder: Path, kind: str, name: str) -> Path:
        return folder / kind / name[:2] / f"{name}.json"


def named(*parts: object) -> str:
    """The name of what follows from these plain values."""
    return digest(canonical(list(parts)))


@functools.cache
def code(paths: Sequence[Path]) -> str:
    """The hash of source files: what they computed is computed again once one of them has changed."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()
