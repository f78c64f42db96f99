"""Faults that a test or an operator injects into the local SageMaker."""

import threading
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True, kw_only=True)
class SpotInterruption:
    """Takes the instance from a managed spot training job while it trains.

    `job` is a name or a prefix of names. The interruption comes `after_seconds` of training and, with
    `after_checkpoint`, not before a checkpoint has reached S3; `times` is how many are left.
    """

    job: str
    after_seconds: float = 0.0
    after_checkpoint: bool = False
    times: int = 1


class Faults:
    """The faults in force; they live in memory and end with the emulator."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interruptions: list[SpotInterruption] = []

    def add(self, request: dict[str, Any]) -> None:
        """Takes `{"spot_interrupt": {"job": ..., "after_seconds": ...}}`; anything else is a ValueError."""
        if set(request) != {"spot_interrupt"}:
            raise ValueError(f"the one fault known is spot_interrupt, not {', '.join(sorted(request)) or 'nothing'}")
        try:
            fault = SpotInterruption(**request["spot_interrupt"])
        except TypeError as error:
            raise ValueError(f"spot_interrupt: {error}") from error
        with self._lock:
            self._interruptions.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._interruptions.clear()

    def describe(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{"spot_interrupt": asdict(fault)} for fault in self._interruptions]

    def interrupts(self, job: str, *, trained_seconds: float, checkpointed: bool) -> bool:
        """Whether the job loses its instance now; saying yes uses the fault up."""
        with self._lock:
            for fault in self._interruptions:
                due = trained_seconds >= fault.after_seconds and (checkpointed or not fault.after_checkpoint)
                if fault.times > 0 and due and job.startswith(fault.job):
                    fault.times -= 1
                    return True
        return False
