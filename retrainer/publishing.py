"""A report in its three forms: our own page, the same facts as JSON, and Evidently's page."""

import importlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retrainer.adapters.datasets import Datasets
from retrainer.core.effects import PublishReport
from retrainer.core.evidence import Evidence
from retrainer.core.window import Batch
from retrainer.judging import EVIDENTLY
from retrainer.report import page, words
from retrainer.report.document import Document, Profiles, document, ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What was measured of both windows, and their profiles. `reference` are the batches of the reference window."""

    effect: PublishReport
    evidence: Evidence
    reference: tuple[Batch, ...]
    profiles: Profiles
    measured_at: datetime | None = None

    @property
    def decision(self) -> str:
        return self.effect.key.removesuffix(".report")

    @property
    def model(self) -> str:
        """As the name of every decision has it before its version."""
        return self.decision.rpartition("-")[0]

    def document(self) -> Document:
        """The facts, with the shapes of the columns."""
        return document(
            model=self.model,
            decision=self.decision,
            evidence=self.evidence,
            reference=self.reference,
            profiles=self.profiles,
            since=self.effect.since,
            measured_at=self.measured_at,
        )

    def evidently(self, told: Document) -> str:
        """Evidently's page, drawn from the rows that the profiles kept; `told` is the document. It is imported here."""
        engine: Any = importlib.import_module(EVIDENTLY)
        facts = [
            f"{words.rows(window)} in {words.batches(window)}, of which {len(profile.sample.priorities):,} are drawn, "
            f"in the {name} window"
            for name, window, profile in (
                ("reference", told["reference"], self.profiles.reference),
                ("current", told["current"], self.profiles.current),
            )
        ]
        samples = (self.profiles.reference.sample, self.profiles.current.sample)
        html: str = engine.page(self.decision, facts, ordered(self.evidence.drift), *samples)
        return html


def store(datasets: Datasets, report: Reported) -> str:
    """Put all three where the effect says; Evidently's last, as it may take long. Twice is once."""
    effect, told = report.effect, report.document()
    as_json = json.dumps(told, ensure_ascii=False, allow_nan=False)
    datasets.store_page(effect.bucket, effect.json_key, as_json, "application/json")
    datasets.store_page(effect.bucket, effect.page_key, page.page(told))
    datasets.store_page(effect.bucket, effect.report_key, report.evidently(told))
    return f"s3://{effect.bucket}/{effect.report_key}"
