"""What a file of cases says, once it is read: steps at moments, what happens at each, and what is expected of it."""

from dataclasses import dataclass, field
from datetime import date, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo


class MistakeError(Exception):
    """A place in a file of cases that cannot be understood, and what to write instead."""

    def __init__(self, line: int, column: int, said: str) -> None:
        super().__init__(said)
        self.line = line
        self.column = column
        self.said = said


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A time as it is written: a date and a time, a time (the next such one), a week day too, or so long after."""

    line: int
    column: int
    text: str
    day: date | None = None
    weekday: int | None = None
    clock: time | None = None
    after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnTold:
    """One column's drift as a case tells it; `p` is the test's p-value, None where it is not told."""

    column: str
    score: float
    p: float | None = None
    at: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableTold:
    """A column that cannot be used, and why."""

    column: str
    why: str
    at: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A batch arrives and the windows are measured; what is not told is as it was last told.

    rows: of the batch; None: as many as the policy asks for. share: the share of drifted columns.
    """

    column: int
    rows: int | None = None
    share: float | None = None
    columns: tuple[ColumnTold, ...] = ()
    performance: tuple[float, int | None] | None = None
    estimated: tuple[float, int | None] | None = None
    loss: tuple[float, int, float | None] | None = None
    refused: str | None = None
    unusable: tuple[UnusableTold, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringFails:
    """The measurement asked for is given up; it is asked for again later, by itself."""

    column: int
    why: str = "it cannot be done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A CloudWatch alarm goes to ALARM, or back to OK."""

    column: int
    name: str
    ok: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """A schedule fires out of turn; in turn it fires by itself."""

    column: int
    name: str


class Order(StrEnum):
    """What a person can tell the daemon."""

    MANUAL = "manual"
    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A person tells the daemon something."""

    column: int
    order: Order
    by: str = "ann"
    why: str = "asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAsked:
    """The execution waits for a person."""

    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The execution ends: a verdict of the gate, or how it failed. `is_given`: the champion was there before."""

    column: int
    how: str
    figures: dict[str, float] = field(default_factory=dict)
    why: str = ""
    is_given: bool = False


class FleetWord(StrEnum):
    """What the other models do."""

    BUSY = "busy"
    WAITING = "waiting"
    IDLE = "idle"
    STARTED = "started"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTold:
    """What the other models do from now on; `cost` is what an execution started now costs."""

    column: int
    word: FleetWord
    models: tuple[str, ...] = ()
    cost: float | None = None


Happening = Measured | MeasuringFails | Alarm | Fire | Ordered | ApprovalAsked | Ended | FleetTold


class Kind(StrEnum):
    """What can come of a step."""

    RETRAIN = "retrain"
    HOLD = "hold"
    NOTHING = "nothing"
    REASON = "reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a step is to bring. `words`: triggers, the reason of a hold, or the word of a decision's reason."""

    line: int
    column: int
    kind: Kind
    words: tuple[str, ...] = ()
    until: Moment | None = None
    end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a case: when, what happens (nothing: time passes), and what is expected, where anything is."""

    line: int
    moment: Moment
    happenings: tuple[Happening, ...] = ()
    expected: Expected | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A title and its steps, in the order of time."""

    line: int
    title: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """A file of cases; its times are those of `zone`."""

    zone: ZoneInfo
    cases: tuple[Case, ...]
