"""The commands that run something: the daemon, an AWS on this machine, the demonstration, one training job."""

import argparse
import asyncio
import sys
from pathlib import Path
from types import ModuleType

from retrainer.cli.arguments import Add, pair, port
from retrainer.cli.terminal import say


def add_to(add: Add) -> None:
    add("run", _run, "run the daemon, with settings from RETRAINER_*", "retrainer run")
    local = add(
        "local",
        _local,
        "start an AWS of its own on this machine, with the stack of deploy/ in it, and say how to run the daemon on it",
        "retrainer local",
        "retrainer local --state /tmp/retrainer --port 4566 --policies policies",
    )
    local.add_argument("--port", type=port, default=0, help="port of the local AWS (default: any that is free)")
    local.add_argument("--state", type=Path, default=Path("local-state"), help="folder of its files (%(default)s)")
    local.add_argument("--policies", type=Path, default=Path("policies"), help="folder of policies (%(default)s)")
    local.add_argument("--reset", action="store_true", help="forget what an earlier run left in --state")
    demo = add(
        "demo",
        _demo,
        "watch one model live through years of real data, on this machine",
        "retrainer demo",
        "retrainer demo --batches 8 --state /tmp/retrainer-demo",
        "retrainer demo --scene images",
    )
    demo.add_argument(
        "--scene",
        choices=("recommender", "images"),
        default="recommender",
        help="years of film ratings, or the day on which all emoji were drawn anew (%(default)s)",
    )
    demo.add_argument("--state", type=Path, help="folder of its files (demo-run, of images demo-run-images)")
    demo.add_argument("--policies", type=Path, default=Path("policies"), help="folder of policies (%(default)s)")
    demo.add_argument("--data", type=Path, help="where the data lies (.cache/wheels, of images .cache/npm)")
    demo.add_argument("--batches", type=int, help="recommender: quarters to replay (default: all, 2004 to 2016)")
    demo.add_argument("--seed", type=int, default=0, help="images: of the pictures (%(default)s)")
    _add_submit(add)


def _add_submit(add: Add) -> None:
    submit = add(
        "submit",
        _submit,
        "start one training job of the trainer image through SageMaker's SDK, and follow it to its end",
        "retrainer submit --image 1234.dkr.ecr.eu-central-1.amazonaws.com/trainer:1 --role ARN \\\n"
        "      --channel train=s3://bucket/data/recommender/ \\\n"
        "      --output s3://bucket/executions/trials epochs=8 model=sasrec",
    )
    submit.add_argument("--image", required=True, help="the trainer image, in ECR")
    submit.add_argument("--role", required=True, help="the role that SageMaker takes (the stack's SageMakerRoleArn)")
    submit.add_argument("--channel", action="append", type=pair, required=True, help="NAME=s3://prefix, repeatable")
    submit.add_argument("--output", required=True, help="s3://prefix for model.tar.gz and checkpoints")
    submit.add_argument("--name", default="trial", help="how the job's name begins (%(default)s)")
    submit.add_argument("--instance-type", default="ml.g4dn.xlarge", help="(%(default)s)")
    submit.add_argument("--on-demand", action="store_true", help="not on spot capacity")
    submit.add_argument("--max-seconds", type=int, default=3600, help="(%(default)s)")
    submit.add_argument("hyperparameters", nargs="*", type=pair, metavar="NAME=VALUE", help="hyperparameters")


def _run(args: argparse.Namespace) -> int:
    from retrainer.settings import Settings, read

    settings = read(Settings)
    # Only now, because it imports everything: a setting to mend is told at once.
    wiring = import_wiring()
    status: int = asyncio.run(wiring.serve(settings))
    return status


def import_wiring() -> ModuleType:
    """`retrainer.wiring` without what the daemon never uses of its libraries.

    aiobotocore imports httpx if it can, and structlog rich, for what is not done here: 6 MB and 0.1 s.
    """
    hidden = {"httpx", "rich"} - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        from retrainer import wiring
    finally:
        for name in hidden:
            del sys.modules[name]
    return wiring


def _local(args: argparse.Namespace) -> int:
    from retrainer import wiring

    return wiring.local(state=args.state, port=args.port, policies=args.policies, reset=args.reset, tell=say)


def _demo(args: argparse.Namespace) -> int:
    from rich.console import Console

    from retrainer.demo import images, replay

    console = Console()
    if args.scene == "images":
        folder, packages = args.state or Path("demo-run-images"), args.data or Path(".cache/npm")
        images.play(images.Plan(folder=folder, packages=packages, policies=args.policies, seed=args.seed), console)
    else:
        folder, wheels = args.state or Path("demo-run"), args.data or Path(".cache/wheels")
        replay.play(replay.Plan(folder=folder, wheels=wheels, policies=args.policies, batches=args.batches), console)
    return 0


def _submit(args: argparse.Namespace) -> int:
    from retrainer.submit import Submission, submit

    wanted = Submission(
        name=args.name,
        image=args.image,
        role=args.role,
        channels=dict(args.channel),
        output=args.output,
        hyperparameters=dict(args.hyperparameters),
        instance_type=args.instance_type,
        spot=not args.on_demand,
        max_seconds=args.max_seconds,
    )
    trained = submit(wanted, say)
    say(f"{trained.job}: {trained.status}, {trained.model_data or trained.failure}")
    return 0 if trained.model_data else 1
