"""The models of a history: trained on batches as the daemon's executions are, scored on others, and remembered.

A model is named by everything it follows from (the batches' contents, the family, the task), so that policies which
retrain at the same moment share one. Losses and metrics are kept on disk, models in memory only: one that is asked
again for predictions is trained again. With `refit` what serves has learned from the holdout too; a challenger has not.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrainer.adapters.datasets.remembered import Remembered
from retrainer.backtest import paired
from retrainer.backtest import task as tasks
from retrainer.backtest.cache import Cache, code, named
from retrainer.backtest.families import Model, Named
from retrainer.backtest.history import History, microseconds
from retrainer.backtest.task import Predicted, Task
from retrainer.ports import PermanentError

MODELS_KEPT = 16
PREDICTIONS_KEPT = 128

Indexes = tuple[int, ...]

_HERE = Path(__file__).parent
_CODE = tuple(_HERE / name for name in ("families.py", "models.py", "paired.py", "tabular.py", "task.py"))


class Models:
    """Trains and scores on one history for one task. `fitted` counts the trainings that were really done."""

    def __init__(
        self, history: History, task: Task, family: Named, cache: Cache, *, holdout_share: float, refit: bool = False
    ) -> None:
        self._history, self.task, self._family, self._cache = history, task, family, cache
        self._kept_back = 0.0 if refit else holdout_share
        """The share of the rows that what serves has not learned from."""
        self._about = named(code(_CODE), list(family.identity), list(task.identity))
        self._kept: Remembered[str, Model] = Remembered(MODELS_KEPT)
        self._predicted: Remembered[tuple[str, int], Predicted] = Remembered(PREDICTIONS_KEPT)
        self._names: dict[tuple[Indexes, float], str] = {}
        self.fitted = 0

    def name(self, learned: Indexes) -> str:
        """The name of the model that serves after learning from these batches."""
        return self._name(learned, self._kept_back)

    def _name(self, learned: Indexes, share: float) -> str:
        if (learned, share) not in self._names:
            versions = [self._history.batches[i].version for i in learned]
            self._names[learned, share] = named(self._about, share, versions)
        return self._names[learned, share]

    def losses(self, learned: Indexes, scored: Sequence[int]) -> list[tuple[float, int]]:
        """The sum of losses and the number of labels on each batch; (0, 0) where a batch has no label."""
        name = self.name(learned)
        known: dict[str, list[float]] = self._cache.get("losses", name) or {}
        versions = [self._history.batches[i].version for i in scored]
        lacking = [i for i, version in zip(scored, versions, strict=True) if version not in known]
        if lacking:
            known = dict(known)
            for index in lacking:
                found = tasks.losses(self._history.table(index), self.predicted(learned, index), self.task)
                known[self._history.batches[index].version] = [float(found.sum()), len(found)]
            self._cache.put("losses", name, known)
        return [(known[version][0], int(known[version][1])) for version in versions]

    def predicted(self, learned: Indexes, index: int) -> Predicted:
        """What the model that serves says of a batch. Raises PermanentError where it could not be trained."""
        key = (self.name(learned), index)
        if (known := self._predicted.get(key)) is not None:
            return known
        return self._predicted.put(key, self._model(learned, self._kept_back).predict(self._history.table(index)))

    def on_holdout(
        self, manifest: Indexes, share: float, champion: Indexes | None = None
    ) -> tuple[dict[str, float], int]:
        """The metrics of a challenger, or of the champion, on the holdout of a manifest, and the holdout's rows."""
        judged = (manifest, share) if champion is None else (champion, self._kept_back)
        name = named(self._name(*judged), self._name(manifest, share))
        if (known := self._cache.get("gate", name)) is None:
            _, holdout = self.split(manifest, share)
            metrics = tasks.metrics(holdout, self._model(*judged).predict(holdout), self.task)
            known = [metrics, holdout.num_rows]
            self._cache.put("gate", name, known)
        return known[0], known[1]

    def gains(self, manifest: Indexes, share: float, champion: Indexes, metric: str) -> tuple[float, ...]:
        """What a challenger gains over the champion on its holdout, in each of the resamplings, ascending."""
        name = named(self._name(manifest, share), self.name(champion), metric)
        if (known := self._cache.get("gains", name)) is None:
            _, holdout = self.split(manifest, share)
            models = self._model(manifest, share), self._model(champion, self._kept_back)
            made = models[0].predict(holdout), models[1].predict(holdout)
            known = list(paired.resampled(holdout, made, self.task, metric))
            self._cache.put("gains", name, known)
        return tuple(known)

    def baseline(self, which: str, manifest: Indexes, share: float) -> dict[str, float]:
        """The metrics of a rule without a model on the holdout of a manifest."""
        name = named(which, self._name(manifest, share))
        if (known := self._cache.get("baseline", name)) is None:
            train, holdout = self.split(manifest, share)
            made = tasks.baseline(which, train, holdout.num_rows, self.task)
            known = tasks.metrics(holdout, made, self.task)
            self._cache.put("baseline", name, known)
        return dict(known)

    def split(self, manifest: Indexes, share: float) -> tuple[pa.Table, pa.Table]:
        """Train and holdout, each by time: as deploy/steps/preprocess does, rows of one moment stay together."""
        table = self._rows(manifest)
        if self.task.timestamp not in table.column_names:
            return _cut(table, np.arange(table.num_rows), share)
        moments = microseconds("the manifest's batches", table.column(self.task.timestamp))
        order = np.argsort(moments, kind="stable")
        return _cut(table.take(pa.array(order)), moments[order], share)

    def _rows(self, manifest: Indexes) -> pa.Table:
        return pa.concat_tables([self._history.table(index) for index in manifest], promote_options="permissive")

    def _model(self, learned: Indexes, share: float) -> Model:
        name = self._name(learned, share)
        if (known := self._kept.get(name)) is not None:
            return known
        rows = self.split(learned, share)[0] if share else self._rows(learned)
        try:
            model = self._family.family.fit(rows, self.task)
        except (ValueError, ArithmeticError) as error:
            raise PermanentError(f"the training failed: {error!s:.300}") from error
        self.fitted += 1
        return self._kept.put(name, model)


def _cut(
    table: pa.Table, moments: np.ndarray[tuple[int], np.dtype[np.int64]], share: float
) -> tuple[pa.Table, pa.Table]:
    first = moments[min(len(moments) - 1, int(len(moments) * (1 - share)))]
    at = int(np.searchsorted(moments, first))
    if not at:
        raise PermanentError(
            f"the {len(moments)} rows cannot be split by time: none is older than the newest {share:.0%}"
        )
    return table.slice(0, at), table.slice(at)
