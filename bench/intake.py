"""From receive to acknowledgement: messages a second and CPU a message, ours beside consumers that others use.

The others parse each message, look up its model and delete it; what they counted is gone when they die. The daemon
parses, decides, has the decision on disk, and deletes then.
"""

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.feed import Plan
from bench.house import ROOT, Cost, aws, daemon, running, stub

WARM_UP = 2_000
PEERS = ROOT / "bench" / "peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """One way to consume the queue, and how many messages it is measured on."""

    name: str
    messages: int
    command: Sequence[str]
    settings: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """What one run came to."""

    cpu_us: float
    a_second: float


def consumers() -> Sequence[Consumer]:
    node = shutil.which("node", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "node"
    boto3, npm = [sys.executable, str(PEERS / "boto3_loop.py")], [node, str(PEERS / "sqs_consumer.mjs")]
    ours = [sys.executable, "-m", "bench.daemon"]
    wide = {"sqs_client": "fast"}
    return (
        Consumer(name="retrainer, durable", messages=15_000, command=ours, settings=wide),
        Consumer(
            name="retrainer, durable, aiobotocore",
            messages=6_000,
            command=ours,
            settings=wide | {"sqs_client": "aiobotocore"},
        ),
        Consumer(name="boto3, 8 threads, batch delete", messages=10_000, command=[*boto3, "batch"]),
        Consumer(name="npm sqs-consumer, batch", messages=10_000, command=[*npm, "batch"]),
        Consumer(name="npm sqs-consumer, default", messages=3_000, command=[*npm, "single"]),
        Consumer(name="boto3, single delete", messages=3_000, command=[*boto3, "single"]),
    )


def measured(consumer: Consumer) -> Speed:
    """One run in processes of its own; what it does before the warm-up is over does not count."""
    total = WARM_UP + consumer.messages
    # More than is counted, so that it is at full speed to the end.
    plan = Plan(messages=total + 1_000, marks=(WARM_UP, total))
    folder = Path(tempfile.mkdtemp(prefix="retrainer-bench-"))
    try:
        with stub(plan) as queue:
            if consumer.settings is not None:
                environment, command = daemon(queue.url, folder, plan.models, **consumer.settings), consumer.command
            else:
                environment, command = aws(queue.url), [*consumer.command, queue.queue_url]
            with running(command, environment, folder / "log") as process:
                queue.wait_for(WARM_UP, process)
                before = Cost.of(process)
                queue.wait_for(total, process)
                after = Cost.of(process)
        wall = after.at - before.at
        return Speed((after.cpu_seconds - before.cpu_seconds) / consumer.messages * 1e6, consumer.messages / wall)
    finally:
        shutil.rmtree(folder)


def intake(rounds: int) -> Mapping[str, Speed]:
    """The median of so many rounds, in which the consumers take turns."""
    found: dict[str, list[Speed]] = {c.name: [] for c in consumers()}
    for number in range(rounds):
        for consumer in consumers():
            speed = measured(consumer)
            found[consumer.name].append(speed)
            print(
                f"  {number + 1}/{rounds} {consumer.name:34} {speed.cpu_us:7.1f} us {speed.a_second:8.0f}/s", flush=True
            )
    return {
        name: Speed(statistics.median(s.cpu_us for s in speeds), statistics.median(s.a_second for s in speeds))
        for name, speeds in found.items()
    }
