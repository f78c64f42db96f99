"""An evidence worker that knows the answer."""

import asyncio
from collections import Counter
from dataclasses import replace

from retrainer.core.effects import MeasureEvidence, PublishReport
from retrainer.core.evidence import ColumnDrift, Evidence
from retrainer.core.policy import Policy


class KnowingAnalyst:
    """Every batch has 1000 rows, `drift_share` of 10 columns drift, it takes `seconds`; `errors` are raised first."""

    def __init__(self) -> None:
        self.drift_share = 0.0
        self.seconds = 0.0
        self.errors: list[Exception] = []
        self.measured: Counter[str] = Counter()
        """How often the measuring of an effect was ended, well or not."""
        self.begun: Counter[str] = Counter()
        self.published: set[str] = set()

    async def measure(self, effect: MeasureEvidence, policy: Policy) -> Evidence:
        await self._work(effect.key)
        batches = tuple(replace(b, rows=1000) for b in effect.current)
        drift = tuple(
            ColumnDrift(column=f"c{i}", test="psi", score=0.3 if drifted else 0.01, threshold=0.1, drifted=drifted)
            for i in range(10)
            for drifted in (i < round(self.drift_share * 10),)
        )
        return Evidence(rows=1000 * len(batches), batches=batches, drift=drift)

    async def publish(self, effect: PublishReport, policy: Policy) -> None:
        await self._work(effect.key)
        self.published.add(effect.report_key)

    async def _work(self, key: str) -> None:
        self.begun[key] += 1
        if self.seconds:
            await asyncio.sleep(self.seconds)
        self.measured[key] += 1
        if self.errors:
            raise self.errors.pop(0)
