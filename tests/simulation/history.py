"""What a seed means: which world it is, what is sent into it, what goes wrong and when. Pure data from one number.

Each seed turns some kinds of faults on and leaves others off (swarm testing): what two faults together hide, another
seed shows. See Groce et al., "Swarm Testing", ISSTA 2012.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from retrainer import ports
from retrainer.core.events import (
    AlarmChanged,
    Event,
    ModelPaused,
    ModelResumed,
    ObjectCreated,
    RetrainingRequested,
    TrainingJobChanged,
)
from tests.fakes.parser import body
from tests.simulation.policies import ALARM, BUCKET, OWN, SHARED

MODELS = ("alpha", "beta", "gamma")
STARTS = (
    datetime(2026, 1, 5, 12, 0, tzinfo=UTC),
    datetime(2026, 3, 29, 0, 51, tzinfo=UTC),  # Berlin's clocks go forward at 01:00 UTC
    datetime(2026, 10, 25, 0, 21, tzinfo=UTC),  # and back at 01:00 UTC: 02:30 comes twice
)
MONTH = timedelta(days=31)

ELSEWHERE = {
    "Ledger.decisions": "the command line and the HTTP interface read it",
    "Ledger.decision": "the command line and the HTTP interface read it",
    "Ledger.about": "the command line and the HTTP interface read it",
    "Ledger.models": "the command line reads it",
    "Ledger.kept_state": "the command line and the HTTP interface read it",
    "Ledger.counts": "the metrics read it",
    "Ledger.size_bytes": "the metrics read it",
    "Ledger.compact": "the command line alone calls it",
}
"""Methods of the ports that the loop never calls, each with who does."""


def calls_of(*protocols: type[Any]) -> tuple[str, ...]:
    """Every async method of the Protocols, as Protocol.method."""
    return tuple(
        f"{protocol.__name__}.{name}"
        for protocol in protocols
        for name, method in vars(protocol).items()
        if inspect.iscoroutinefunction(method)
    )


CALLS = tuple(
    call for call in calls_of(ports.Inbox, ports.Ledger, ports.Engine, ports.Analyst) if call not in ELSEWHERE
)
"""Every port call that a crash point is put before and after."""

ASKING = ("Engine.answer", "Engine.heartbeat")
"""What is called only while a person is asked."""

SELDOM = (*ASKING, "Engine.known", "Ledger.quarantine", "Inbox.refuse")
HOLDING = ("Inbox.release", "Inbox.keep")
"""What is called only while the ledger is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """From `begin` to `end` every call of that port fails before it takes effect."""

    port: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How hostile the world is: shares of calls, messages and executions, 0 where a fault is off."""

    waits: float = 0.0
    slow: float = 0.0
    errors: float = 0.0
    replies_lost: float = 0.0
    duplicates: float = 0.0
    seen_again: float = 0.0
    delays: float = 0.0
    workers_lost: float = 0.0
    no_evidence: float = 0.0
    starts_refused: float = 0.0
    executions_fail: float = 0.0
    executions_lost: float = 0.0
    ghosts: float = 0.0
    wakes_lost: float = 0.0
    skew_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """The process dies at the n-th such call, before it takes effect or after, when the reply is not seen."""

    call: str
    number: int
    after: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process: how far its clock is ahead, when it dies, and how it ends otherwise."""

    seconds: float
    skew: timedelta
    crash: Crash | None
    drains: bool
    down_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message put on the queue; `delay` seconds later it can be received."""

    at: float
    body: str
    delay: float
    model: str | None = None
    event: Event | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A person or a system asks over HTTP, again and again until it is answered."""

    at: float
    model: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that a seed decides beforehand."""

    seed: int
    start: datetime
    quiet_at: float
    faults: Faults
    outages: Sequence[Outage]
    lives: Sequence[Sequence[Life]]
    pollers: int
    visibility: float
    receives_max: int
    sent: Sequence[Sent]
    asked: Sequence[Asked]
    changes: Sequence[float]
    sleeps_at: float | None = None
    is_limited: bool = False
    """Two of the models share a limit: one execution at a time."""
    is_calm: bool = field(default=False)
    """Nothing is lost, late or away, so that what is promised in a calm world may be asked for."""


def point(seed: int) -> tuple[str, bool]:
    """The (call, after) at which the first replica's processes die: the seeds go round all of them."""
    return CALLS[seed % len(CALLS)], seed // len(CALLS) % 2 == 1


def history(seed: int) -> History:
    """The seed's history."""
    random = Random(seed)  # noqa: S311 - the same seed, the same history
    call, after = point(seed)
    target = Crash(call=call, number=1 if call in SELDOM else random.choice((1, 1, 2, 3, 5)), after=after)
    quiet_at = random.choice((600.0, 900.0, 1500.0))
    calm = random.random() < 0.08
    faults = Faults() if calm else _faults(random)
    sleeps_at = _sleeps_at(random, target.call, quiet_at)
    outages = () if calm else _outages(random, target.call, quiet_at, sleeps_at)
    replicas = 1 if sleeps_at else random.choice((1, 2, 2, 3))
    sent = _sent(random, faults, quiet_at)
    if call in ASKING:
        sent += _asking()
    if sleeps_at:
        sent += _before_sleep(random, sleeps_at)
    away = [o for o in outages if o.port == "Ledger"]
    storms = sleeps_at is None and random.random() < (0.4 if away else 0.06)
    if storms:
        sent += _storm(random, [o.begin for o in away] or [0.0])
    # The patience of replicas that live long is to be seen where there is most to be patient about.
    lives = [
        _long_life(faults, quiet_at)
        if storms and n
        else _lives(random, target if n == 0 else None, faults, quiet_at, calm=calm)
        for n in range(replicas)
    ]
    return History(
        seed=seed,
        start=random.choice(STARTS),
        quiet_at=quiet_at,
        faults=faults,
        outages=outages,
        lives=lives,
        pollers=4 if storms else random.choice((1, 1, 2, 4)),
        visibility=random.choice((30.0, 60.0)),
        receives_max=2 if storms else random.choice((3, 5)),
        sent=sorted(sent, key=lambda s: s.at),
        asked=_asked(random, quiet_at),
        changes=sorted(random.uniform(0, quiet_at) for _ in range(0 if call in ASKING else random.choice((0, 1, 2)))),
        sleeps_at=sleeps_at,
        is_limited=call == "Ledger.fleet" or Random(f"limited {seed}").random() < 0.3,  # noqa: S311 - as above
        is_calm=calm and sleeps_at is None,
    )


def _faults(random: Random) -> Faults:
    def at_times(most: float) -> float:
        return random.choice((0.0, 0.0, most / 4, most))

    return Faults(
        waits=at_times(0.8),
        slow=at_times(0.08),
        errors=at_times(0.12),
        replies_lost=at_times(0.1),
        duplicates=at_times(0.4),
        seen_again=at_times(0.3),
        delays=at_times(0.6),
        workers_lost=at_times(0.5),
        no_evidence=at_times(0.3),
        starts_refused=at_times(0.3),
        executions_fail=at_times(0.6),
        executions_lost=at_times(0.3),
        ghosts=at_times(0.5),
        wakes_lost=at_times(1.0),
        skew_seconds=random.choice((0.0, 0.0, 3.0, 150.0)),
    )


def _sleeps_at(random: Random, call: str, quiet_at: float) -> float | None:
    """A month in which nobody runs: what was planned before is too old to be started after it."""
    if call == "Engine.known" or random.random() < 0.02:
        return random.uniform(0.4, 0.7) * quiet_at
    return None


def _outages(random: Random, call: str, quiet_at: float, sleeps_at: float | None) -> Sequence[Outage]:
    """At times longer than the queue's patience, which is its visibility time-out times its maxReceiveCount."""
    found = []
    for port, share in (("Ledger", 0.3), ("Engine", 0.35), ("Inbox", 0.1), ("Analyst", 0.1)):
        if random.random() < share or (port == "Ledger" and call in HOLDING):
            begin = random.uniform(0.0, 0.7) * quiet_at
            longest = 120.0 if port == "Inbox" else 700.0
            found.append(Outage(port=port, begin=begin, end=min(begin + random.uniform(20.0, longest), quiet_at)))
    if sleeps_at:
        # What is planned now is still owed when all wake up.
        found.append(Outage(port="Engine", begin=sleeps_at - 160.0, end=sleeps_at))
    return tuple(found)


def _lives(random: Random, target: Crash | None, faults: Faults, quiet_at: float, *, calm: bool) -> Sequence[Life]:
    """One replica's processes, one after the other, until the world is quiet."""
    lives = []
    at = 0.0
    skew = timedelta(seconds=random.uniform(-1, 1) * faults.skew_seconds)
    while at < quiet_at:
        seconds = random.choice((40.0, 150.0, 400.0, quiet_at)) * random.uniform(0.5, 1.0)
        crash = target
        if crash is None and not calm and random.random() < 0.5:
            crash = Crash(call=random.choice(CALLS), number=random.choice((1, 2, 3, 8)), after=random.random() < 0.5)
        down = random.uniform(0.0, 60.0)
        if target and target.call in HOLDING:
            seconds = random.choice((40.0, 60.0))
        drains = calm or random.random() < (0.9 if target else 0.5)
        lives.append(Life(seconds=seconds, skew=skew, crash=None if calm else crash, drains=drains, down_seconds=down))
        at += seconds + down
    return lives


def _long_life(faults: Faults, quiet_at: float) -> Sequence[Life]:
    """A process that is nothing done to."""
    skew = timedelta(seconds=faults.skew_seconds)
    return [Life(seconds=quiet_at, skew=skew, crash=None, drains=True, down_seconds=0.0)]


def _sent(random: Random, faults: Faults, quiet_at: float) -> list[Sent]:
    found = []
    for number in range(random.randint(8, 22)):
        at = random.choice((0.0, random.uniform(0.0, 0.9) * quiet_at))
        model, event, text = _message(random, number, at)
        for _ in range(3 if random.random() < faults.duplicates else 1):
            delay = random.expovariate(1 / 40.0) if random.random() < faults.delays else 0.0
            found.append(Sent(at=at, body=text, delay=delay, model=model, event=event))
    return found


def _asking() -> list[Sent]:
    """What has a person asked soon: data, and a request, for the model whose promotions are approved by hand."""
    batch = ObjectCreated(bucket=BUCKET, key=f"{OWN}first.parquet", version="v", size_bytes=9)
    request = RetrainingRequested(request="soon", by="dan", why="a question is wanted")
    return [
        Sent(at=0.0, body=body(batch), delay=0.0, event=batch),
        Sent(at=1.0, body=body(request, "gamma"), delay=0.0, model="gamma", event=request),
    ]


def _before_sleep(random: Random, sleeps_at: float) -> list[Sent]:
    """Enough to have something planned that nobody can start before all fall asleep."""
    batches = (ObjectCreated(bucket=BUCKET, key=f"{p}first.parquet", version="v", size_bytes=9) for p in (SHARED, OWN))
    found = [Sent(at=0.0, body=body(event), delay=0.0, event=event) for event in batches]
    for model in MODELS:
        at = sleeps_at - random.uniform(15.0, 150.0)
        event = RetrainingRequested(request=f"late {model}", by="dan", why="before the holidays")
        found.append(Sent(at=at, body=body(event, model), delay=0.0, model=model, event=event))
    return found


def _storm(random: Random, moments: Sequence[float]) -> list[Sent]:
    """More at once than a receive holds, when something breaks."""
    at = random.choice(moments)
    keys = (f"{OWN}{n}.parquet" for n in range(random.choice((3, 14, 45))))
    events = [ObjectCreated(bucket=BUCKET, key=key, version="storm", size_bytes=9) for key in keys]
    return [Sent(at=at + 1.0, body=body(event), delay=0.0, event=event) for event in events]


def _message(random: Random, number: int, at: float) -> tuple[str | None, Event | None, str]:
    """(model, event, body) of the n-th thing that happens outside."""
    kind = random.choices(("object", "other", "word"), (11, 5, 2))[0]
    if kind == "word":
        return None, None, random.choice(("wake", "weather", "foreign", "}{ not json", '{"kind": "Nonsense"}'))
    if kind == "object":
        prefix = random.choice((SHARED, SHARED, OWN))
        event: Event = ObjectCreated(
            bucket=BUCKET, key=f"{prefix}{number % 9}.parquet", version=f"v{number}", size_bytes=9
        )
        return None, event, body(event)
    model = random.choice(MODELS)
    moment = STARTS[0] + timedelta(seconds=at)
    chosen: tuple[str | None, Event] = random.choice(
        (
            (model, RetrainingRequested(request=f"r{number}", by="ann", why=f"a new label, {number}")),
            (model, RetrainingRequested(request=f"r{number}", by="bob", why=f"a new catalogue, {number}")),
            (None, AlarmChanged(alarm=ALARM, state=random.choice(("ALARM", "ALARM", "OK")), changed_at=moment)),
            (model, TrainingJobChanged(job=f"job-{number}", status="InProgress", secondary_status="Training")),
        )
    )
    return *chosen, body(chosen[1], chosen[0])


def _asked(random: Random, quiet_at: float) -> Sequence[Asked]:
    """What operators want: a pause with its end, and a retraining by hand."""
    found = []
    if random.random() < 0.5:
        model, begin = random.choice(MODELS), random.uniform(0.0, 0.6) * quiet_at
        pause = ModelPaused(request="pause", by="eve", why="a release")
        found.append(Asked(at=begin, model=model, event=pause))
        end = random.uniform(begin, quiet_at)
        found.append(Asked(at=end, model=model, event=ModelResumed(request="resume", by="eve")))
    for number in range(random.choice((0, 1, 2))):
        by_hand = RetrainingRequested(request=f"hand-{number}", by="zoe", why=f"by hand, {number}")
        at = random.uniform(0.0, 0.8) * quiet_at
        found.append(Asked(at=at, model=random.choice(MODELS), event=by_hand))
    return sorted(found, key=lambda a: a.at)
