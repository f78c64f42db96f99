"""What holds a retraining back, and what one costs."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from retrainer.core.policy.duration import Clock, Declared, Duration, Moment, Period, TimeZone

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_A_WEEK: Final = timedelta(days=8)
"""And the hours that a time zone may add."""


class QuietHours(Declared):
    """No retraining starts from one time of day to another; over midnight if `to` is not after `from`."""

    from_: Clock = Field(alias="from", description="When it begins, in quotes, as in '22:00'")
    to: Clock = Field(description="When it ends, in quotes; not after from: on the next day")
    days: tuple[Day, ...] = Field(default=DAYS, min_length=1, max_length=7, description="The days it begins on")
    time_zone: TimeZone = Field(default="UTC", description="An IANA name, as in Europe/Berlin")

    def ends_at(self, now: datetime) -> datetime | None:
        """The end of the quiet hours that `now` lies in, None outside of them.

        Of a time that the clocks show twice, the first begins and the last ends; one that they skip comes as much
        later as they are put forward.
        """
        zone = ZoneInfo(self.time_zone)
        today = now.astimezone(zone).date()
        for day in (today - timedelta(days=1), today):
            if DAYS[day.weekday()] not in self.days:
                continue
            last = day if self.to > self.from_ else day + timedelta(days=1)
            end = max(_utc(last, self.to, zone, fold) for fold in (0, 1))
            if _utc(day, self.from_, zone, 0) <= now < end:
                return end
        return None


def _utc(day: date, clock: time, zone: ZoneInfo, fold: int) -> datetime:
    return datetime.combine(day, clock, zone).replace(fold=fold).astimezone(UTC)


def last_end(periods: Sequence[Callable[[datetime], datetime | None]], now: datetime) -> datetime | None:
    """When none of the periods holds any more, each following upon another; None where none holds now.

    Periods that follow one another for over a week are told to end there: they are looked at again.
    """
    until = now
    while until < now + _A_WEEK and (ends := [end for ends_at in periods if (end := ends_at(until))]):
        until = max(ends)
    return until if until > now else None


class Freeze(Declared):
    """No retraining starts in this time. A day given as `to` is the last of it; days are those of UTC."""

    from_: Moment = Field(alias="from", description="A day or a moment, as in 2026-12-20 or 2026-12-20T18:00:00Z")
    to: Moment = Field(description="A day, the last one, or a moment")
    why: str = Field(min_length=1, max_length=200, description="Told to whoever asks")

    @model_validator(mode="after")
    def _fits(self) -> "Freeze":
        if self.starts_at >= self.end:
            raise ValueError(f"it ends at {self.to}, before it begins; write the earlier one as from")
        return self

    @property
    def starts_at(self) -> datetime:
        """The first moment that is frozen."""
        if isinstance(self.from_, datetime):
            return self.from_
        return datetime.combine(self.from_, time(), UTC)

    @property
    def end(self) -> datetime:
        """The first moment that is not frozen any more."""
        if isinstance(self.to, datetime):
            return self.to
        return datetime.combine(self.to, time(), UTC) + timedelta(days=1)

    def ends_at(self, now: datetime) -> datetime | None:
        """Its end if `now` lies in it, else None."""
        return self.end if self.starts_at <= now < self.end else None


class Budget(Declared):
    """At most so many executions, retries included, and so much money, in any such period."""

    executions: int | None = Field(default=None, ge=1, description="Executions, retries included")
    money: float | None = Field(default=None, gt=0, description="In the currency of costs")
    period: Period = Field(description="Any time span of this length")

    @model_validator(mode="after")
    def _one(self) -> "Budget":
        if self.executions is None and self.money is None:
            raise ValueError("a budget needs executions, money or both, as in {executions: 4, period: 1w}")
        return self


class Backoff(Declared):
    """Retrainings that the gate refuses one after the other are tried ever more rarely."""

    after: int = Field(default=2, ge=1, le=100, description="Refused in a row before it begins")
    first: Period = Field(default=timedelta(days=1), description="The first wait; each next one is twice as long")
    most: Period = Field(default=timedelta(days=30), description="How long a wait may become")

    @model_validator(mode="after")
    def _fits(self) -> "Backoff":
        if self.first > self.most:
            raise ValueError("first is longer than most; write a shorter first or a longer most")
        return self


class Fleet(Declared):
    """What all models of the ledger do together: this one starts only while fewer run, or less is spent."""

    concurrency: int | None = Field(default=None, ge=1, description="Executions of all models at a time")
    budget: Budget | None = Field(default=None, description="Of all models together")

    @model_validator(mode="after")
    def _one(self) -> "Fleet":
        if self.concurrency is None and self.budget is None:
            raise ValueError("fleet needs concurrency, budget or both, as in {concurrency: 2}")
        return self


Name = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,22}[a-z0-9])?$")]
"""A model's name, short enough for the names of its executions and training jobs."""


class Guards(Declared):
    """What holds a retraining back. A trigger met meanwhile is kept, and fires when the guard lets go."""

    cooldown: Duration = Field(default=timedelta(hours=6), description="After the end of an execution")
    rows_min: int = Field(default=1, ge=1, description="Rows that no finished execution has been trained on")
    quiet_hours: tuple[QuietHours, ...] = Field(
        default=(), max_length=20, description="Hours of the day; a request by hand is not held back by them"
    )
    freezes: tuple[Freeze, ...] = Field(default=(), max_length=100, description="Days on which nothing may change")
    budget: Budget | None = Field(default=None, description="Executions or money in a period, of this model")
    backoff: Backoff | None = Field(
        default=Backoff(), description="After fruitless retrainings; a request by hand is not held back by it"
    )
    fleet: Fleet | None = Field(default=None, description="What holds over all models")
    after: tuple[Name, ...] = Field(
        default=(), max_length=20, description="Not while one of these models is retrained or about to be"
    )

    @field_validator("quiet_hours")
    @classmethod
    def _some_are_loud(cls, value: tuple[QuietHours, ...]) -> tuple[QuietHours, ...]:
        # Twice in the year: zones part by an hour more in one half of it than in the other.
        for moment in (datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 7, 6, tzinfo=UTC)):
            until = last_end([q.ends_at for q in value], moment)
            if until and until - moment >= _A_WEEK:
                raise ValueError("these hours leave no time of the week; write fewer, or pause the model")
        return value

    @property
    def longest_period(self) -> timedelta:
        """How far back starts and spending are looked at."""
        budgets = (self.budget, self.fleet.budget if self.fleet else None)
        return max((b.period for b in budgets if b), default=timedelta(0))


class Costs(Declared):
    """What a retraining and a wrong prediction cost."""

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="As in ISO 4217")
    execution: float | None = Field(
        default=None, gt=0, description="Of one execution; left out: the mean of the last five's own cost"
    )
    error: float | None = Field(
        default=None, gt=0, description="Of one unit of loss: a wrong prediction, or an error of one"
    )
