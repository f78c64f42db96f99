"""All benchmarks, one after the other; the figures go into bench/README.md. `make bench` runs it.

python -m bench [--storm 1000000] [--only intake,latency,storm,start] [--keep]
"""

import argparse
import json
import time
from collections.abc import Mapping

from bench import telling
from bench.intake import PEERS, Speed, intake
from bench.latency import RATE, latency
from bench.start import start
from bench.storm import storm
from bench.telling import table

BASELINE = "boto3, 8 threads, batch delete"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--storm", type=int, default=200_000, help="events of the storm (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the intake; the median counts (%(default)s)")
    parser.add_argument("--only", default="intake,latency,start,storm", help="(%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave bench/README.md as it is")
    args = parser.parse_args()
    told = [f"{_machine()}. Load of the machine at the start: {telling.load()}."]
    for name in args.only.split(","):
        began = time.monotonic()
        print(f"{name}:", flush=True)
        match name:
            case "intake":
                told.append(_intake(intake(args.rounds)))
            case "latency":
                told.append(_latency(latency(20.0)))
            case "start":
                told.append(_start(start(60.0)))
            case "storm":
                told.append(_storm(storm(args.storm), args.storm))
            case _:
                parser.error(f"{name} is no benchmark")
        print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    told.append(f"Load of the machine at the end: {telling.load()}.")
    text = "\n\n".join(told)
    print(f"\n{text}")
    if not args.keep:
        telling.write("figures", text)


def _intake(found: Mapping[str, Speed]) -> str:
    base = found[BASELINE]
    rows = [
        [
            n,
            f"{s.cpu_us:.0f}",
            f"{s.cpu_us / base.cpu_us:.2f}",
            f"{s.a_second:.0f}",
            f"{s.a_second / base.a_second:.2f}",
        ]
        for n, s in found.items()
    ]
    head = ["consumer", "CPU us a message", "ratio", "messages a second", "ratio"]
    return f"**Intake** (ratios to *{BASELINE}*)\n\n{table(head, rows)}"


def _latency(found: Mapping[str, float]) -> str:
    row = [f"{found['p50_ms']:.1f}", f"{found['p99_ms']:.1f}", f"{found['max_ms']:.1f}", f"{found['samples']:.0f}"]
    row += [f"{found['measurements']:.0f}", f"{found['kept_up']:.0%}"]
    head = ["p50 ms", "p99 ms", "most ms", "StartExecutions", "drift measurements", "messages acknowledged"]
    return f"**Event to StartExecution** at {RATE:.0f} events a second\n\n{table(head, [row])}"


def _start(found: Mapping[str, float]) -> str:
    row = [f"{found['ready_seconds']:.2f}", f"{found['ready_cpu_seconds']:.2f}"]
    row += [f"{found['idle_mb']:.0f}", f"{found['idle_share']:.2%}"]
    return "**Start and idling**\n\n" + table(["seconds to ready", "CPU seconds", "idle MB", "of a core, idle"], [row])


def _storm(found: Mapping[str, float], events: int) -> str:
    row = [f"{found[k]:.0f}" for k in ("start_mb", "half_mb", "end_mb", "a_second", "cpu_us")]
    head = ["MB after a tenth", "at half", "at the end", "events a second", "CPU us an event"]
    return f"**Storm** of {events:,} events, 90 % of them said before, 50 models\n\n{table(head, [row])}"


def _machine() -> str:
    installed = json.loads((PEERS / "package-lock.json").read_text())["packages"]
    npm = [f"{n} {installed[f'node_modules/{n}']['version']}" for n in ("sqs-consumer", "@aws-sdk/client-sqs")]
    return telling.machine(("aiobotocore", "boto3", "pydantic", "sqlalchemy"), *npm)


if __name__ == "__main__":
    main()
