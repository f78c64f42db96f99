"""MovieLens replayed a quarter at a time through the real policy: its quality and retrainings beside retrain-always.

    python -m bench.trainer.drift [FIRST_YEAR [YEAR_AFTER_THE_LAST]]

The decisions are the daemon's own `decide`, as `retrainer backtest` runs it, on the policy's own triggers, gate and
refit; the model is EASE. Everything before the first year is the first model's. What it is compared with is trained
after every quarter on all rows, with nothing held out, and never refused: it is better than any policy with a gate.

The settings of policies/recommender.yaml were chosen on the years before alone: the fewest retrainings that kept 98 %
in the mean of three replays (`python -m bench.trainer.drift 1998 2004`, from 1999 and from 2000).
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq

from bench.trainer.measured import WHEELS, Row, seconds_into
from retrainer import wiring
from retrainer.backtest import task as tasks
from retrainer.backtest.cache import Cache
from retrainer.backtest.families import family
from retrainer.backtest.history import History, open_history
from retrainer.backtest.models import Indexes, Models
from retrainer.backtest.run import Backtests, Settings
from retrainer.core.execution import Verdict
from retrainer.core.policy import Policy
from retrainer.demo import movielens

POLICY = Path("policies/recommender.yaml")
FIRST, AFTER = 2004, 2017
EXECUTION = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """nDCG@10 over all rows served: by the policy, retrained after every quarter, and by the first model for ever."""

    policy: float
    always: float
    never: float
    retrainings: int
    refused: int
    quarters: int

    @property
    def share_of_quality(self) -> float:
        return self.policy / self.always

    @property
    def share_of_retrainings(self) -> float:
        """Of those of `always`, which is not retrained after the last quarter: nobody would be served by that."""
        return self.retrainings / (self.quarters - 1)


def replay(policy: Policy, history: History) -> Replayed:
    """The first batch is what the first model learns from; every other one is a quarter."""
    settings = Settings(warmup=1, training_takes=EXECUTION, with_optimum=False)
    result = Backtests(history, settings, Cache(None)).run(policy, policy.model)
    learned: dict[int, Indexes] = {0: ()}
    learned |= {r.generation: tuple(range(r.through + 1)) for r in result.retrainings}
    quarters = range(1, len(history))
    champions = {score.index: learned[score.generation] for score in result.scores if score.index}
    made = [r for r in result.retrainings if not r.first and r.through < len(history) - 1]
    return Replayed(
        policy=_ndcg(policy, history, champions, refit=policy.action.refit),
        always=_ndcg(policy, history, {q: tuple(range(q)) for q in quarters}, refit=True),
        never=_ndcg(policy, history, dict.fromkeys(quarters, (0,)), refit=True),
        retrainings=len(made),
        refused=sum(r.verdict is Verdict.REFUSED for r in made),
        quarters=len(quarters),
    )


def _ndcg(policy: Policy, history: History, learned: Mapping[int, Indexes], *, refit: bool) -> float:
    """The mean over the rows of these batches, each answered by what was learned from those; 0 without a model."""
    task = tasks.task(policy, seed=0)
    share = policy.action.holdout_share
    models = Models(history, task, family(policy.backtest), Cache(None), holdout_share=share, refit=refit)
    gain, rows = 0.0, 0
    for index, batches in learned.items():
        table = history.table(index)
        rows += table.num_rows
        if batches:
            found = tasks.metrics(table, models.predicted(batches, index), task)
            gain += found["ndcg_at_10"] * table.num_rows
    return gain / rows


def history(wheels: Path, policy: Policy, folder: Path, first: int, after: int) -> History:
    """A file a quarter before the year `after`; the one before all others holds what came before the year `first`."""
    quarters = [q for q in movielens.read(wheels, start=first) if q.name == "before" or int(q.name[:4]) < after]
    for number, quarter in enumerate(quarters):
        pq.write_table(quarter.rows, folder / f"{number:03}-{quarter.name}.parquet")
    return open_history(str(folder), policy.data)


def rows() -> Iterator[Row]:
    """The policy beside retraining after every quarter, and beside never; EASE draws nothing, so there is one run."""
    cpu: list[float] = []
    with seconds_into(cpu):
        found = replayed(FIRST, AFTER)
    task = f"MovieLens latest-small {FIRST}-{AFTER - 1}, replayed a quarter at a time"
    note = f"{found.retrainings} retrainings in {found.quarters} quarters, {found.refused} of them refused"
    name = "policies/recommender.yaml"
    share, times = "share of retrain-always' nDCG@10", "share of its retrainings"
    yield Row(task=task, model=name, metric=share, values=[found.share_of_quality], note=note)
    yield Row(task=task, model=name, metric=times, values=[found.share_of_retrainings], cpu_seconds=cpu)
    yield Row(task=task, model="the first model for ever", metric=share, values=[found.never / found.always])


def replayed(first: int, after: int, policy_file: Path = POLICY) -> Replayed:
    """The replay of these years."""
    policy = wiring.load_policy(policy_file, "bucket")
    with tempfile.TemporaryDirectory() as folder:
        return replay(policy, history(WHEELS, policy, Path(folder), first, after))


def main(first: int = FIRST, after: int = AFTER) -> None:
    found = replayed(first, after)
    print(found)
    print(f"quality {found.share_of_quality:.3f}, retrainings {found.share_of_retrainings:.3f} of retrain-always")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
