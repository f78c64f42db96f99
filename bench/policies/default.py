"""The default rule, retrainer.core.regret, as a player of the game. Nothing of it is tuned here."""

from datetime import UTC, datetime

from bench.policies.peers import Contender, Setting
from retrainer.core.evidence import BatchLoss
from retrainer.core.execution import Cycle, Verdict
from retrainer.core.regret import judge

AT = datetime(2020, 1, 1, tzinfo=UTC)
CYCLES_MAX = 50
"""As many as a model's state keeps."""


class Default:
    """Tells `judge` what the daemon's state would hold: losses since the promotion, and how retrainings ended."""

    def __init__(self, price: float) -> None:
        self._price = price
        self._losses: list[BatchLoss] = []
        self._cycles: list[Cycle] = []

    def labelled(self, t: int, loss_sum: float, rows: int, variance: float) -> None:
        """One more batch of the champion's."""
        version = f"g{len(self._cycles)}"
        mean = loss_sum / rows
        self._losses.append(BatchLoss(key=f"{t}", version=version, labels=rows, mean=mean, variance=variance))

    def retrained(self, i: int, challenger: float, champion: float, rows: int, promoted: bool) -> None:
        """One more retraining; the losses start anew when it was promoted."""
        cycle = Cycle(
            generation=len(self._cycles) + 1,
            verdict=Verdict.PROMOTED if promoted else Verdict.REFUSED,
            at=AT,
            labels=sum(loss.labels for loss in self._losses),
            challenger=1 - challenger,
            champion=1 - champion,
            rows=rows,
        )
        self._cycles = [*self._cycles, cycle][-CYCLES_MAX:]
        if promoted:
            self._losses = []

    def wants(self) -> bool:
        """Whether the regret has reached the price."""
        return judge(self._losses, self._cycles, self._price).due


def _default(setting: Setting) -> Default:
    return Default(setting.price)


DEFAULT = Contender(name="retrainer's default", variants={"": _default}, priced=True, ours=True)
