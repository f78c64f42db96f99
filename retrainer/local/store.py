"""What the local SageMaker remembers, in one JSON file that survives SIGKILL."""

import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Store:
    """Named tables of JSON records, written as a whole after every change.

    A change is on disk (in the page cache: it outlives the process, not the machine) when the `with` block ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._frozen = False
        self._tables: dict[str, dict[str, Record]] = {}
        if path.exists():
            self._tables = json.loads(path.read_text())

    @contextlib.contextmanager
    def change(self, table: str) -> Iterator[dict[str, Record]]:
        """The table itself, to be changed in place; an exception leaves it as it was."""
        with self._lock:
            records = self._tables.setdefault(table, {})
            before = copy.deepcopy(records)
            try:
                yield records
            except BaseException:
                self._tables[table] = before
                raise
            self._write()

    def get(self, table: str, key: str) -> Record | None:
        """A copy of one record."""
        with self._lock:
            return copy.deepcopy(self._tables.get(table, {}).get(key))

    def all(self, table: str) -> list[Record]:
        """Copies of a table's records, in the order in which they were created."""
        with self._lock:
            return [copy.deepcopy(record) for record in self._tables.get(table, {}).values()]

    def freeze(self) -> None:
        """Nothing is written from here on: what threads in their last moments think is not what happened."""
        with self._lock:
            self._frozen = True

    def _write(self) -> None:
        if self._frozen:
            return
        scratch = self._path.with_suffix(".tmp")
        scratch.write_text(json.dumps(self._tables))
        scratch.replace(self._path)
