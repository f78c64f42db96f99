"""Puts the house together; the only module that sees the loop and the adapters at once."""

import asyncio
import gc
import runpy
import shutil
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from aiobotocore.session import get_session
from starlette.types import ASGIApp

from retrainer import __version__
from retrainer.adapters import eventbridge, http, logs, metrics, policy_files, schedules
from retrainer.adapters.analyst import WorkerAnalyst
from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.adapters.sqs import SqsInbox
from retrainer.adapters.step_functions import StepFunctions
from retrainer.core.events import PolicyChanged
from retrainer.core.policy import Policy
from retrainer.follow import Observer
from retrainer.intake import Intake
from retrainer.local.aws import LocalAws, LocalAwsError
from retrainer.loop import Loop, NoPolicyError
from retrainer.outbox import Outbox
from retrainer.pacing import pause
from retrainer.ports import ConfigError, Ledger, Parser, TransientError
from retrainer.scaled import ScaledAnalyst
from retrainer.settings import Settings
from retrainer.supervise import Stage, Supervisor
from retrainer.telemetry import Health, Telemetries
from retrainer.timers import Timers

RELOAD_SECONDS = 5.0
"""How often the policy files are looked at."""

STUCK_SECONDS = 30.0
"""How late the event loop may be before the process should be restarted."""

SILENT_SECONDS = 300.0
"""How long a poller may not come round: a long poll (20 s), three tries of it and the longest backoff fit in."""

DRAIN_SECONDS = 60.0

GC_EVERY_OBJECTS = 50_000
"""Python's own 700 is meant for short scripts."""

LEDGER_AWAY_SECONDS = 10.0
"""The longest wait before a ledger that cannot be had at the start is tried again."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


async def serve(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT, then drain; returns the exit status.

    Raises ConfigError when it cannot start: the ledger is in use, the port taken, no policy can be read.
    """
    logs.configure(level=settings.log_level, style=settings.log_format, secrets=settings.secrets())
    async with AsyncExitStack() as stack:
        daemon = await _Daemon.build(settings, stack)
        return await daemon.run()


async def _opened(url: str) -> SqlLedger:
    """The ledger, as soon as there is one: a database that starts beside the daemon may be the slower of the two."""
    failures = 0
    while True:
        try:
            return await SqlLedger.open(url)
        except TransientError as error:
            failures += 1
            logs.LogTelemetry().failed("ledger", error)
            await asyncio.sleep(min(failures, LEDGER_AWAY_SECONDS))


class _Daemon:
    """All parts of one running daemon."""

    def __init__(
        self,
        settings: Settings,
        files: policy_files.PolicyFiles,
        ledger: Ledger,
        inbox: SqsInbox,
        engine: StepFunctions,
        analyst: WorkerAnalyst,
    ) -> None:
        self._settings, self._files, self._ledger = settings, files, ledger
        self._clock = SystemClock()
        self._queue = settings.queue_url.rsplit("/", 1)[-1]
        self._metrics = metrics.Metrics(
            queues=[settings.queue_url, "schedules"], kinds=eventbridge.KINDS, pollers=self._pollers()
        )
        telemetry = Telemetries([self._metrics, logs.LogTelemetry()])
        self._telemetry = telemetry
        policies = files.current
        clock = self._clock
        self._loop = Loop(policies=policies, ledger=ledger, clock=clock, telemetry=telemetry)
        self._intake = Intake(
            loop=self._loop,
            inbox=inbox,
            parser=self._parser(),
            policies=policies,
            ledger=ledger,
            clock=clock,
            telemetry=telemetry,
            pollers_max=settings.pollers,
        )
        self._outbox = Outbox(
            loop=self._loop,
            policies=policies,
            ledger=ledger,
            engine=engine,
            analyst=ScaledAnalyst(analyst, engine, telemetry),
            clock=clock,
            telemetry=telemetry,
        )
        self._observer = Observer(
            loop=self._loop,
            ledger=ledger,
            engine=engine,
            telemetry=telemetry,
            clock=clock,
            every_seconds=settings.observe_seconds,
        )
        self._timers = Timers(
            loop=self._loop, policies=policies, ledger=ledger, schedules=schedules, clock=clock, telemetry=telemetry
        )
        self._supervisor = Supervisor(telemetry=telemetry)
        self._started_at = clock.now()

    @classmethod
    async def build(cls, settings: Settings, stack: AsyncExitStack) -> "_Daemon":
        """Open everything it needs; the stack closes it in the opposite order."""
        defaults = policy_files.Defaults(
            bucket=settings.bucket,
            state_machine=settings.state_machine_arn,
            profile_state_machine=settings.profile_state_machine_arn,
        )
        files = policy_files.PolicyFiles(settings.policies, defaults)
        if not files.current():
            said = "\n".join(files.errors().values()) or f"{settings.policies} holds no *.yaml file"
            raise ConfigError(f"there is no policy to work by:\n{said}")
        ledger = await _opened(settings.ledger)
        stack.push_async_callback(ledger.close)
        analyst = WorkerAnalyst(
            deadline_seconds=settings.evidence_deadline_seconds, memory_bytes=settings.evidence_memory_mib << 20
        )
        stack.push_async_callback(analyst.close)
        session = get_session()
        engine = await stack.enter_async_context(StepFunctions.open(session=session))
        opened = SqsInbox.open(
            settings.queue_url,
            settings.dlq_url,
            wait_seconds=settings.poll_wait_seconds,
            pollers=settings.pollers,
            session=session,
            fast=settings.sqs_client == "fast",
        )
        inbox = await stack.enter_async_context(opened)
        return cls(settings, files, ledger, inbox, engine, analyst)

    async def run(self) -> int:
        """Start the tasks, wait for the order to stop, drain."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        listener = http.listen(self._settings.http_host, self._settings.http_port)
        await self._show_models()
        start = self._supervisor.start
        for poller, name in enumerate(self._pollers()):
            start(name, Stage.INTAKE, partial(self._intake.poll, poller=poller))
        start("outbox", Stage.OUTBOX, self._outbox.run)
        start("observer", Stage.BACKGROUND, self._observer.run)
        start("timers", Stage.BACKGROUND, self._timers.run)
        start("policies", Stage.BACKGROUND, self._watch_policies)
        start("lag", Stage.BACKGROUND, self._supervisor.watch_lag)
        start("http", Stage.BACKGROUND, partial(http.run, self._app(), listener))
        self._supervisor.ready = True
        # What is there now stays, and what comes is mostly no garbage in cycles: to look it all through again and
        # again is a fifth of the CPU of a storm.
        gc.freeze()
        gc.set_threshold(GC_EVERY_OBJECTS, 20, 100)
        host, port = listener.getsockname()[:2]
        models = sorted(self._files.current())
        logs.say("daemon_started", version=__version__, models=models, queue=self._queue, http=f"{host}:{port}")
        await stop.wait()
        logs.say("daemon_draining")
        late = list(await self._supervisor.drain(DRAIN_SECONDS))
        logs.say("daemon_ended", cancelled=late)
        return 1 if late else 0

    def _parser(self) -> Parser:
        """What is believed: events of these accounts, objects of the buckets that policies name, our own executions."""
        settings = self._settings
        policies = [policy for policy, _ in self._files.current().values()]
        buckets = (p.data.bucket for p in policies)
        machines = (p.action.state_machine for p in policies)
        return eventbridge.EnvelopeParser(
            eventbridge.Allowed(
                accounts=settings.accounts,
                buckets=frozenset({settings.bucket, *buckets}),
                state_machines=frozenset({settings.state_machine_arn, *machines}),
            )
        )

    def _pollers(self) -> Sequence[str]:
        return [f"poller-{n}" for n in range(self._settings.pollers)]

    def _app(self) -> ASGIApp:
        return http.app(
            ledger=self._ledger,
            take=self._loop.take,
            policies=self._files.current,
            policy_errors=lambda: list(self._files.errors().values()),
            metrics_text=self._metrics_text,
            health=self._health,
            clock=self._clock,
            host=self._settings.http_host,
            token=self._settings.http_token,
        )

    async def _metrics_text(self) -> tuple[bytes, str]:
        self._metrics.ledger(await self._ledger.counts(), await self._ledger.size_bytes())
        now = self._clock.now()
        ages = {f"poller-{n}": (now - at).total_seconds() for n, at in self._intake.last_poll_at.items()}
        self._metrics.poller_ages(ages)
        self._metrics.health(self._health())
        return await self._metrics.render(), metrics.CONTENT_TYPE

    def _health(self) -> Health:
        now = self._clock.now()
        polled_at = min(self._intake.last_poll_at.values(), default=self._started_at)
        age = (now - polled_at).total_seconds()
        lag = self._supervisor.lag_seconds
        said = [
            f"the event loop is {lag:.0f} s late" if lag > STUCK_SECONDS else "",
            f"no poll has come round for {age:.0f} s" if age > SILENT_SECONDS else "",
        ]
        why = "; ".join(s for s in said if s)
        ready = self._supervisor.ready
        return Health(
            live=not why,
            ready=ready and not why,
            why=why or ("" if ready else "starting or draining"),
            loop_lag_seconds=lag,
            poll_age_seconds={self._queue: age},
        )

    async def _show_models(self) -> None:
        """The metrics of a daemon that has just started are those of its ledger, not zeros."""
        self._show_policies()
        for model in self._files.current():
            self._metrics.model(await self._ledger.state(model))

    def _show_policies(self) -> None:
        self._metrics.watch(self._files.current().keys())
        broken = self._files.errors()
        self._metrics.policy_files(self._files.valid())
        for why in broken.values():
            self._telemetry.failed("policies", ConfigError(why))

    async def _watch_policies(self, stopping: asyncio.Event) -> None:
        """Take a changed policy file up without a restart; a broken one leaves the last good policy in force."""
        told = dict(self._files.errors())
        untold: dict[str, PolicyChanged] = {}
        while not await pause(stopping, RELOAD_SECONDS):
            try:
                changed = await asyncio.to_thread(self._files.reload)
            except ConfigError as error:  # the folder cannot be read; what was read stays in force
                self._telemetry.failed("policies", error)
                continue
            if changed or told != self._files.errors():
                told = dict(self._files.errors())
                self._show_policies()
                self._intake.parser = self._parser()
            for model in changed & self._files.current().keys():
                _, policy_hash = self._files.current()[model]
                untold[model] = PolicyChanged(policy_hash=policy_hash, changed_at=self._clock.now())
            for model, event in list(untold.items()):
                try:
                    await self._loop.take(model, event)
                    del untold[model]
                except NoPolicyError:
                    del untold[model]
                except TransientError as error:  # the policy is in force; what is kept is looked at when it can be
                    self._telemetry.failed("policies", error)


# --- for the commands that only read ---


async def open_ledger(url: str, *, read_only: bool) -> SqlLedger:
    """The ledger at this URL; a daemon may be running on it when it is only read. Raises ConfigError."""
    return await SqlLedger.open(url, read_only=read_only)


_EXAMPLE = policy_files.Defaults(
    bucket="example-bucket",
    state_machine="arn:aws:states:us-east-1:123456789012:stateMachine:example",
    profile_state_machine="arn:aws:states:us-east-1:123456789012:stateMachine:example-profile",
)
"""What the daemon would fill in from its settings, where a policy is only checked."""


def load_policy(path: Path, bucket: str | None = None) -> Policy:
    """The policy of one file, on its own; `bucket` is where it does not say. Raises ConfigError."""
    return policy_files.load(path, replace(_EXAMPLE, bucket=bucket) if bucket else _EXAMPLE)


def check_policies(paths: Sequence[Path]) -> Mapping[Path, str | None]:
    """What is wrong with each policy file, None where nothing is; a directory stands for its *.yaml files."""
    found: dict[Path, str | None] = {}
    for path in paths:
        if path.is_dir():
            files = policy_files.PolicyFiles(path, _EXAMPLE)
            names = sorted(path.glob("*.yaml"))
            found |= {name: files.errors().get(name) for name in names}
            if not names:
                found[path] = f"{path} holds no *.yaml file"
            continue
        try:
            load_policy(path)
            found[path] = None
        except ConfigError as error:
            found[path] = str(error)
    return found


# --- the embedded AWS ---

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
TEMPLATE = DEPLOY / "sam" / "template.yaml"


def embedded(aws: LocalAws, *, policies: Path, ledger: Path, http_port: int) -> dict[str, str]:
    """Put the stack of deploy/ into the embedded AWS; returns the environment that a daemon beside it needs.

    Raises ConfigError when deploy/ is not beside the package (a checkout has it).
    """
    from retrainer.local.provision import provision  # boto3, which the daemon does without

    if not TEMPLATE.is_file():
        raise ConfigError(f"{TEMPLATE} is missing: the embedded AWS runs deploy/'s own stack, so it needs a checkout")
    runpy.run_path(str(DEPLOY / "package.py"))["assemble"]()
    outputs = provision(aws.endpoint_url, TEMPLATE, {"BucketName": "retrainer-local", "TrainerImage": "trainer:local"})
    return {
        **aws.env,
        "RETRAINER_QUEUE_URL": outputs["QueueUrl"],
        "RETRAINER_DLQ_URL": outputs["DlqUrl"],
        "RETRAINER_BUCKET": outputs["BucketName"],
        "RETRAINER_STATE_MACHINE_ARN": outputs["StateMachineArn"],
        "RETRAINER_PROFILE_STATE_MACHINE_ARN": outputs["ProfileStateMachineArn"],
        "RETRAINER_POLICIES": str(policies.resolve()),
        "RETRAINER_LEDGER": f"sqlite:///{ledger.resolve()}",
        "RETRAINER_HTTP_PORT": str(http_port),
        # Polls here cost nothing, and a short one ends soon when the daemon is to stop.
        "RETRAINER_OBSERVE_SECONDS": "2",
        "RETRAINER_POLL_WAIT_SECONDS": "2",
    }


def local(*, state: Path, port: int, policies: Path, reset: bool, tell: Callable[[str], None]) -> int:
    """Run the embedded AWS with the stack until SIGTERM or SIGINT; the settings for a daemon are in state/env."""
    if reset:
        shutil.rmtree(state, ignore_errors=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        tell(f"starting the embedded AWS in {state}, and the stack of deploy/ in it")
        with LocalAws(state / "aws", port=port) as aws:
            environment = embedded(aws, policies=policies, ledger=state / "ledger.db", http_port=8321)
            (state / "env").write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
            tell(f"the embedded AWS is at {aws.endpoint_url}; in another terminal:")
            tell(f"  set -a; . {state / 'env'}; set +a; retrainer run")
            while aws.is_alive() and not stop.wait(0.5):
                pass
            return 0 if stop.is_set() else 1
    except LocalAwsError as error:
        raise ConfigError(str(error)) from error
