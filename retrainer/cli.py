"""The command line. Each command imports what it needs, so that `--help` comes at once.

Exit codes: 0 fine, 1 failed, 2 something to mend in the command, a setting or a file, 130 interrupted.
"""

import argparse
import asyncio
import getpass
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from retrainer import __version__
from retrainer.client import FailedError, UnreachableError, ask

if TYPE_CHECKING:
    from rich.console import RenderableType

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(argv)
    command: Command = args.command
    try:
        return command(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has seen enough; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except FailedError as error:
        return _complain(error, 1)
    except Exception as error:
        from retrainer.ports import ConfigError, TransientError

        if isinstance(error, ConfigError):
            return _complain(error, 2)
        if isinstance(error, TransientError):
            return _complain(error, 1)
        raise


def _complain(error: Exception, code: int) -> int:
    for line in str(error).splitlines():
        print(f"retrainer: {line}", file=sys.stderr)  # noqa: T201
    return code


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


# --- what can be said ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retrainer",
        description="Decides when a model must be retrained, has it retrained, and follows it until it serves.",
        epilog="Settings are environment variables RETRAINER_*; `retrainer COMMAND --help` shows an example of each.",
    )
    parser.add_argument("--version", action="version", version=f"retrainer {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Command, says: str, *examples: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=says,
            description=f"{says[0].upper()}{says[1:]}.",
            epilog="examples:\n" + "\n".join(f"  {e}" for e in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    add("run", _run, "run the daemon, with settings from RETRAINER_*", "retrainer run")
    _add_local(add)
    _add_reading(add)
    _add_asking(add)
    return parser


def _add_local(add: Callable[..., argparse.ArgumentParser]) -> None:
    local = add(
        "local",
        _local,
        "start an AWS of its own on this machine, with the stack of deploy/ in it, and say how to run the daemon on it",
        "retrainer local",
        "retrainer local --state /tmp/retrainer --port 4566 --policies policies",
    )
    local.add_argument("--port", type=_port, default=0, help="port of the local AWS (default: any that is free)")
    local.add_argument("--state", type=Path, default=Path("local-state"), help="folder of its files (%(default)s)")
    local.add_argument("--policies", type=Path, default=Path("policies"), help="folder of policies (%(default)s)")
    local.add_argument("--reset", action="store_true", help="forget what an earlier run left in --state")
    demo = add(
        "demo",
        _demo,
        "watch one model live through years of real data, on this machine",
        "retrainer demo",
        "retrainer demo --batches 8 --state /tmp/retrainer-demo",
    )
    demo.add_argument("--state", type=Path, default=Path("demo-run"), help="folder of its files (%(default)s)")
    demo.add_argument("--policies", type=Path, default=Path("policies"), help="folder of policies (%(default)s)")
    demo.add_argument("--wheels", type=Path, default=Path(".cache/wheels"), help="where the data lies (%(default)s)")
    demo.add_argument("--batches", type=int, help="quarters to replay (default: all, 2004 to 2016)")
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
    submit.add_argument("--channel", action="append", type=_pair, required=True, help="NAME=s3://prefix, repeatable")
    submit.add_argument("--output", required=True, help="s3://prefix for model.tar.gz and checkpoints")
    submit.add_argument("--name", default="trial", help="how the job's name begins (%(default)s)")
    submit.add_argument("--instance-type", default="ml.g4dn.xlarge", help="(%(default)s)")
    submit.add_argument("--on-demand", action="store_true", help="not on spot capacity")
    submit.add_argument("--max-seconds", type=int, default=3600, help="(%(default)s)")
    submit.add_argument("hyperparameters", nargs="*", type=_pair, metavar="NAME=VALUE", help="hyperparameters")


def _add_reading(add: Callable[..., argparse.ArgumentParser]) -> None:
    validate = add(
        "validate",
        _validate,
        "check policy files: each error is told as file:line:column with what to write instead",
        "retrainer validate",
        "retrainer validate policies/recommender.yaml",
    )
    validate.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files or folders (RETRAINER_POLICIES)")
    validate.add_argument("--json", action="store_true", help="for machines")
    status = add("status", _status, "show every model: champion, execution, window, triggers kept", "retrainer status")
    _asks_daemon(status)
    explain = add(
        "explain",
        _explain,
        "tell a decision: what came, what was decided and why, what became of it",
        "retrainer explain recommender-17",
        "retrainer explain recommender-g3-1a2b3c4d",
        "retrainer explain 'object:my-bucket/data/recommender/2026-01.parquet@0055AED6DCD90281E5'",
    )
    explain.add_argument("name", help="a decision, the identity of an event, or an execution")
    _asks_daemon(explain)


def _add_asking(add: Callable[..., argparse.ArgumentParser]) -> None:
    for name, command, says, needs_why in (
        ("trigger", _trigger, "ask for a retraining; guards still hold", True),
        ("pause", _pause, "let no retraining of a model start; triggers are kept meanwhile", True),
        ("resume", _resume, "end a model's pause", False),
    ):
        why = ' --why "new catalogue"' if needs_why else ""
        asked = add(name, command, says, f"retrainer {name} recommender{why}")
        asked.add_argument("model", help="the model, as its policy names it")
        if needs_why:
            asked.add_argument("--why", required=True, help="the reason, for the record")
        _asks_somebody(asked)
    for name, command, says in (
        ("approve", _approve, "let the challenger of a waiting execution be promoted"),
        ("reject", _reject, "refuse the challenger of a waiting execution"),
    ):
        asked = add(name, command, says, f"retrainer {name} recommender-g3-1a2b3c4d")
        asked.add_argument("execution", help="the execution, as `retrainer status` shows it")
        _asks_somebody(asked)


def _asks_daemon(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="where the daemon listens (default: RETRAINER_HTTP_HOST and _PORT)")
    parser.add_argument("--json", action="store_true", help="for machines")


def _asks_somebody(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", default=None, help="who asks, for the record (default: your login name)")
    parser.add_argument("--request", help="an id of your own: asked again under it, it is done once")
    _asks_daemon(parser)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, which is a number from 0 to 65535")
    return int(text)


# --- commands that run something ---


def _run(args: argparse.Namespace) -> int:
    from retrainer.settings import Settings, read

    settings = read(Settings)
    # Only now, because it imports everything: a setting to mend is told at once.
    from retrainer import wiring

    return asyncio.run(wiring.serve(settings))


def _local(args: argparse.Namespace) -> int:
    from retrainer import wiring

    return wiring.local(state=args.state, port=args.port, policies=args.policies, reset=args.reset, tell=_say)


def _demo(args: argparse.Namespace) -> int:
    from rich.console import Console

    from retrainer.demo import scene

    plan = scene.Plan(folder=args.state, wheels=args.wheels, policies=args.policies, batches=args.batches)
    scene.play(plan, Console())
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
    trained = submit(wanted, _say)
    _say(f"{trained.job}: {trained.status}, {trained.model_data or trained.failure}")
    return 0 if trained.model_data else 1


def _validate(args: argparse.Namespace) -> int:
    from retrainer import wiring
    from retrainer.settings import Reach, read

    found = wiring.check_policies(args.paths or [read(Reach).policies])
    errors = [why for why in found.values() if why is not None]
    if args.json:
        _say(json.dumps({"valid": [str(path) for path, why in found.items() if why is None], "errors": errors}))
    else:
        for path, why in found.items():
            _say(f"{path}: OK" if why is None else why)
    return 1 if errors else 0


# --- commands that ask the daemon ---


def _status(args: argparse.Namespace) -> int:
    told = ask(args.url, "GET", "/statusz")
    if args.json:
        _say(json.dumps(told))
        return 0
    from rich.console import Console

    from retrainer.explain import notes

    console = Console(highlight=False, markup=False, soft_wrap=False)
    console.print(_models(told["models"]))
    for line in notes(told):
        console.print(line)
    return 0


def _explain(args: argparse.Namespace) -> int:
    from retrainer import explain

    try:
        told = ask(args.url, "GET", f"/decisions/{quote(args.name, safe='')}")
    except UnreachableError as away:
        if args.url:
            raise
        told = asyncio.run(_from_ledger(args.name, away))
    _say(json.dumps(told) if args.json else explain.text(told))
    return 0


async def _from_ledger(name: str, away: UnreachableError) -> dict[str, Any]:
    """The daemon is down, and its ledger can be read all the same."""
    from retrainer import explain, wiring
    from retrainer.ports import ConfigError
    from retrainer.settings import Reach, read

    url = read(Reach).ledger
    try:
        ledger = await wiring.open_ledger(url, read_only=True)
    except ConfigError as error:
        raise FailedError(f"{away}\nwithout a daemon its ledger is read (RETRAINER_LEDGER={url}): {error}") from None
    try:
        found = await ledger.decision(name)
    finally:
        await ledger.close()
    if found is None:
        raise FailedError(f"{away}\nin its ledger ({url}) there is no decision, event identity or execution {name!r}")
    return explain.facts(found)


def _trigger(args: argparse.Namespace) -> int:
    return _decided(args, f"/models/{quote(args.model, safe='')}/trigger", why=args.why)


def _pause(args: argparse.Namespace) -> int:
    return _decided(args, f"/models/{quote(args.model, safe='')}/pause", why=args.why)


def _resume(args: argparse.Namespace) -> int:
    return _decided(args, f"/models/{quote(args.model, safe='')}/resume")


def _approve(args: argparse.Namespace) -> int:
    return _decided(args, f"/executions/{quote(args.execution, safe='')}/approve")


def _reject(args: argparse.Namespace) -> int:
    return _decided(args, f"/executions/{quote(args.execution, safe='')}/reject")


def _decided(args: argparse.Namespace, path: str, **body: str) -> int:
    """Ask, and tell what was decided. Exit code 1 when nobody waited for the answer."""
    from retrainer.explain import MEANING, printable

    body["by"] = args.by or _login()
    if args.request:
        body["request"] = args.request
    told = ask(args.url, "POST", path, body)
    if args.json:
        _say(json.dumps(told))
    else:
        repeated = " (asked before)" if told["repeated"] else ""
        detail = f": {printable(told['detail'])}" if told["detail"] else ""
        _say(f"{told['decision']}: {told['reason']} - {MEANING.get(told['reason'], '')}{detail}{repeated}")
    return 1 if told["reason"] == "not_waiting" else 0


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}"


# --- the status, for people ---


def _models(models: Mapping[str, Any]) -> "RenderableType":
    from rich.table import Column, Table
    from rich.text import Text

    from retrainer.explain import printable

    table = Table(
        Column("model", no_wrap=True), "champion", "execution", "untried rows", "drift", "performance", "kept", "paused"
    )
    for name, known in models.items():
        champion, execution, seen = known["champion"], known["execution"], known["evidence"] or {}
        measured = f"{seen['metric']} {seen['performance']:.4f}" if seen.get("metric") else "-"
        cells = (
            name,
            f"g{champion['generation']}" if champion else "-",
            f"{execution['name']} {execution['status']}" if execution else "-",
            str(known["window"]["rows_untried"]),
            f"{seen['drift_share']:.2f}" if seen else "-",
            measured,
            ", ".join(f"{m['kind']}: {m['why']}" for m in known["kept"]) or "-",
            f"{known['pause']['by']}: {known['pause']['why']}" if known["pause"] else "-",
        )
        table.add_row(*(Text(printable(c)) for c in cells))
    return table
