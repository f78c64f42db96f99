"""What asks for a retraining: each trigger, and the rule that puts them together."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from cronsim import CronSim, CronSimError
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from retrainer.core import concept
from retrainer.core.policy.duration import Declared, Duration, Period, TimeZone

WINDOWS_MAX: Final = 100
"""Of how many measurements the answers are remembered, at most."""

DEPTH_MAX: Final = 6
"""Rules inside rules; nobody reads more."""

LEVELS: Final = ("drift", "performance", "regret", "concept", "volume")
"""Names of the triggers that are read off a measurement; of each a policy has one at most."""


Correction = Literal["holm", "bh", "by"]
"""How the chance of a false alarm is shared by columns: see `core.triggers`."""


class DriftTrigger(Declared):
    """Met when enough of the watched columns have drifted, and it is no chance."""

    share: float | None = Field(
        default=None, gt=0, le=1, description="The share of drifted columns; left out: one is enough"
    )
    rows_min: int = Field(default=200, ge=1, description="Fewer rows in the current window are no evidence")
    clear: float | None = Field(
        default=None, gt=0, lt=1, description="Once met, it stays so until the share is below this one"
    )
    false_alarms_per_year: float | None = Field(
        default=0.05,
        gt=0,
        le=365,
        description="Retrainings without any change in the data that are put up with in a year; spent by the time "
        "between measurements, over all columns. null: the tests' own thresholds alone decide",
    )
    correction: Correction = Field(
        default="holm",
        description="How the budget is shared by the columns of a measurement. holm: it bounds the chance that any "
        "column is a false one; bh, by: the expected share of false ones among those found, for columns that are "
        "independent or move together (bh), or however they depend on one another (by)",
    )
    classifier: float | None = Field(
        default=None,
        gt=0.5,
        lt=1,
        description="All columns together have drifted when a classifier tells the windows apart with this AUC",
    )

    @model_validator(mode="after")
    def _fits(self) -> "DriftTrigger":
        if self.clear is not None and self.share is None:
            raise ValueError("clear is below share, which is not declared; write both, as in share: 0.5, clear: 0.3")
        if self.clear is not None and self.share is not None and self.clear > self.share:
            raise ValueError(f"clear {self.clear:g} is above share {self.share:g}; write a smaller clear")
        return self


class PerformanceTrigger(Declared):
    """Met when the metric falls by `drop` (a share) below the champion's first live measurement, or past `limit`."""

    drop: float | None = Field(
        default=None, gt=0, lt=1, description="Worse than the champion's first live measurement by this share"
    )
    limit: float | None = Field(default=None, description="Worse than this value of the metric")
    labels_min: int = Field(default=200, ge=1, description="Fewer joined labels are no evidence, nor a baseline")
    clear: float | None = Field(
        default=None, gt=0, lt=1, description="Once met by drop, it stays so until worse by less than this share"
    )
    estimated: bool = Field(
        default=False, description="While labels are too few, the estimate from the model's own probabilities counts"
    )

    @model_validator(mode="after")
    def _fits(self) -> "PerformanceTrigger":
        if self.drop is None and self.limit is None:
            raise ValueError("performance needs drop, limit or both, as in drop: 0.15")
        if self.clear is not None and self.drop is None:
            raise ValueError("clear is below drop, which is not declared; write both, as in drop: 0.15, clear: 0.05")
        if self.clear is not None and self.drop is not None and self.clear > self.drop:
            raise ValueError(f"clear {self.clear:g} is above drop {self.drop:g}; write a smaller clear")
        return self


class RegretTrigger(Declared):
    """Met when the loss that a retraining could have avoided has reached the price of one."""

    price: float | None = Field(
        default=None,
        gt=0,
        description="Of a retraining, in units of loss (errors); left out: costs.execution, declared or learned, "
        "divided by costs.error",
    )
    labels_min: int = Field(default=1, ge=1, description="Fewer labels since the promotion are no evidence")


class ConceptTrigger(Declared):
    """Met when the champion's losses have risen above those that followed its promotion, and it is no chance."""

    margin: float = Field(
        default=concept.MARGIN,
        ge=0.01,
        le=10,
        description="A rise that is put up with, as a share of the first labels' loss",
    )
    labels_min: int = Field(
        default=concept.LABELS_MIN,
        ge=2,
        description="So many labels, the first after the promotion, are enough to hold later ones to",
    )
    false_alarms: float = Field(
        default=concept.FALSE_ALARMS,
        gt=0,
        lt=1,
        description="The chance of a false alarm within 10,000 labels that is put up with",
    )


class VolumeTrigger(Declared):
    """Met when the champion has not learned from this many rows."""

    rows: int = Field(ge=1, description="New rows that are enough to learn from")


class Schedule(Declared):
    """Met at each time of a unix cron expression (0 and 7 are Sunday) in a time zone."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,24}$", description="Its name in rules, logs and decisions")
    cron: str = Field(description="minute hour day-of-month month day-of-week, as in 0 2 * * *")
    time_zone: TimeZone = Field(default="UTC", description="An IANA name, as in Europe/Berlin")
    misfire_grace: Duration = Field(default=timedelta(hours=1), description="A fire noticed later than this is skipped")
    unless_fresh: Period | None = Field(
        default=None, description="Skipped when the champion was promoted less than this ago"
    )

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError(f"{value!r} is not a cron expression of five fields; write one, as in 0 2 * * *")
        try:
            CronSim(value, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(
                f"{value!r} is not a cron expression ({error}); write five fields, as in 0 2 * * *"
            ) from error
        return value


class AllOf(Declared):
    """Met when all of these are."""

    all: tuple["Rule", ...] = Field(min_length=1, max_length=20, description="All of these")
    within: Period = Field(
        default=timedelta(days=1), description="How long a schedule or an alarm counts while the rest is waited for"
    )


class AnyOf(Declared):
    """Met when any of these is."""

    any: tuple["Rule", ...] = Field(min_length=1, max_length=20, description="Any one of these")


class Repeated(Declared):
    """Met when the rule held at enough of the last measurements: one bad window among good ones is no reason."""

    of: "Rule" = Field(description="What is counted; made of drift, performance, regret, concept and volume")
    at_least: int = Field(ge=1, le=WINDOWS_MAX, description="At how many of the measurements")
    windows: int = Field(ge=1, le=WINDOWS_MAX, description="How many measurements are looked back on")

    @model_validator(mode="after")
    def _fits(self) -> "Repeated":
        if self.at_least > self.windows:
            raise ValueError(f"at_least {self.at_least} of {self.windows} windows can never be; write fewer")
        inside = tuple(parts(self.of))
        if any(isinstance(part, Repeated) for part in inside):
            raise ValueError("of counts measurements and cannot count counts; write a rule without of in it")
        for name in (part for part in inside if isinstance(part, str) and ":" in part):
            raise ValueError(f"{name} is no measurement and cannot be counted; write {' or '.join(LEVELS)}")
        return self


def _form(value: Any) -> str:
    if isinstance(value, str):
        return "name"
    for form, cls in (("all", AllOf), ("any", AnyOf), ("of", Repeated)):
        if isinstance(value, cls) or (isinstance(value, dict) and form in value):
            return form
    return "name"


Rule = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Repeated, Tag("of")],
    Discriminator(_form),
]
"""A trigger's name, or rules put together: drift, {all: [volume, schedule:nightly]}, {of: drift, at_least: 2, ...}."""
for _made in (AllOf, AnyOf, Repeated):
    _made.model_rebuild()


class Triggers(Declared):
    """What asks for a retraining; any one is enough, unless `when` says otherwise. A request by hand always is."""

    drift: DriftTrigger | None = Field(default=None, description="The data has changed")
    performance: PerformanceTrigger | None = Field(default=None, description="The predictions have become worse")
    regret: RegretTrigger | None = Field(default=None, description="Not retraining has cost what a retraining costs")
    concept: ConceptTrigger | None = Field(
        default=None, description="The champion's losses have risen: what it has learned holds no more"
    )
    volume: VolumeTrigger | None = Field(default=None, description="There is enough new data")
    schedules: tuple[Schedule, ...] = Field(default=(), description="The time has come")
    alarms: tuple[str, ...] = Field(default=(), description="CloudWatch alarm names; met when one goes to ALARM")
    when: Rule | None = Field(
        default=None,
        description="How the triggers are put together, by name: drift performance regret concept volume schedule:NAME "
        "alarm:NAME, {all: [...], within: 1d}, {any: [...]}, {of: drift, at_least: 3, windows: 5}",
    )

    @field_validator("when", mode="before")
    @classmethod
    def _shallow(cls, value: object) -> object:
        if _depth(value) > DEPTH_MAX:
            raise ValueError(f"rules lie more than {DEPTH_MAX} deep in one another; write it flatter")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "Triggers":
        names = [s.name for s in self.schedules]
        if len(set(names)) < len(names):
            raise ValueError(f"schedule names must differ, and {', '.join(names)} do not")
        if self.when is None:
            return self
        declared = self.names
        used = {part for part in parts(self.when) if isinstance(part, str)}
        for name in sorted(used - set(declared)):
            raise ValueError(f"when names {name}, which is not declared; write one of {', '.join(declared) or '-'}")
        for name in declared:
            if name not in used:
                raise ValueError(f"{name} is declared, and when does not name it; add it there, or leave it out here")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The declared triggers as rules name them."""
        levels = (name for name in LEVELS if getattr(self, name))
        edges = (*(f"schedule:{s.name}" for s in self.schedules), *(f"alarm:{name}" for name in self.alarms))
        return (*levels, *edges)

    @property
    def windows(self) -> int:
        """How many measurements the rule looks back on, 0 if it counts none."""
        counted = (part.windows for part in parts(self.when) if isinstance(part, Repeated)) if self.when else ()
        return max(counted, default=0)

    @property
    def looks_back(self) -> bool:
        """Whether a measurement counts for more than the decision on it: in a rule, or by a hysteresis."""
        clears = (self.drift and self.drift.clear, self.performance and self.performance.clear)
        return self.when is not None or any(clears)


def parts(rule: Rule) -> "Iterator[Rule]":
    """The rule and all rules inside it."""
    yield rule
    inside = rule.all if isinstance(rule, AllOf) else rule.any if isinstance(rule, AnyOf) else ()
    for part in (rule.of,) if isinstance(rule, Repeated) else inside:
        yield from parts(part)


def _depth(value: object, seen: int = 0) -> int:
    """How deep a rule goes, as it is written; counts no further than is needed."""
    if seen > DEPTH_MAX or not isinstance(value, dict):
        return seen
    inside = [part for key in ("all", "any") for part in _items(value.get(key))]
    return max((_depth(part, seen + 1) for part in (*inside, value.get("of"))), default=seen)


def _items(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()
