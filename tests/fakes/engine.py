"""A Step Functions in memory, with the faults that the real one has."""

from collections import Counter
from collections.abc import Collection

from retrainer.core.effects import AnswerApproval, StartExecution
from retrainer.core.events import ExecutionEnded
from retrainer.core.execution import Outcome, Status, Verdict
from retrainer.ports import PermanentError, TransientError

ARN = "arn:aws:states:eu-west-1:111111111111:execution:retraining:"


class MemoryEngine:
    """Executions by name. `asked` counts what was asked of it, by execution; `started` what it really began."""

    def __init__(self) -> None:
        self.started: dict[str, StartExecution] = {}
        self.ends: dict[str, ExecutionEnded] = {}
        self.answers: dict[str, bool] = {}
        self.asked: Counter[str] = Counter()
        self.heartbeats: Counter[str] = Counter()
        self.listed = 0
        """How often the running executions were listed."""
        self.throttled = False
        self.refuses = ""
        """Why every start is refused for good, if it is."""
        self.replies_lost = 0
        """So many next starts take effect without their reply arriving."""

    async def start(self, effect: StartExecution) -> tuple[str, bool]:
        self.asked[effect.key] += 1
        if self.throttled:
            raise TransientError("ThrottlingException: Rate exceeded")
        if self.refuses:
            raise PermanentError(self.refuses)
        known = self.started.get(effect.key)
        if known and known.input != effect.input:
            raise PermanentError(f"{effect.key} was started with another input")
        self.started[effect.key] = effect
        if self.replies_lost:
            self.replies_lost -= 1
            raise TransientError("the connection was closed before the reply")
        return ARN + effect.key, known is not None

    async def answer(self, effect: AnswerApproval) -> None:
        self.asked[effect.execution] += 1
        if self.throttled:
            raise TransientError("ThrottlingException: Rate exceeded")
        if effect.execution in self.answers:
            raise PermanentError(f"{effect.execution} no longer waits")
        self.answers[effect.execution] = effect.approved

    async def heartbeat(self, task_token: str) -> None:
        if self.throttled:
            raise TransientError("ThrottlingException: Rate exceeded")
        self.heartbeats[task_token] += 1

    async def running(self, arns: Collection[str]) -> Collection[str]:
        if self.throttled:
            raise TransientError("ThrottlingException: Rate exceeded")
        self.listed += 1
        return {a for a in arns if a.removeprefix(ARN) in self.started.keys() - self.ends.keys()}

    async def known(self, effect: StartExecution) -> str | None:
        if self.throttled:
            raise TransientError("ThrottlingException: Rate exceeded")
        found = self.started.get(effect.key)
        if found and found.input != effect.input:
            raise PermanentError(f"{effect.key} was started with another input")
        return ARN + effect.key if found else None

    async def ended(self, arn: str) -> ExecutionEnded | None:
        name = arn.removeprefix(ARN)
        self.asked[name] += 1
        if self.throttled:
            raise TransientError("ThrottlingException: Rate exceeded")
        return self.ends.get(name)

    def promote(self, name: str, hit_rate: float = 0.3) -> None:
        """The execution succeeds and its model serves."""
        outcome = Outcome(
            verdict=Verdict.PROMOTED,
            why="hit_rate_at_10 is better",
            model_package_arn=f"package/{name}",
            metrics={"hit_rate_at_10": hit_rate},
        )
        self.ends[name] = ExecutionEnded(execution=name, status=Status.SUCCEEDED, outcome=outcome)

    def break_down(self, name: str) -> None:
        """The execution fails."""
        self.ends[name] = ExecutionEnded(execution=name, status=Status.FAILED, cause="no spot capacity")
