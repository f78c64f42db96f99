"""The commands that ask the daemon for something, which it decides upon and records."""

import argparse
import getpass
import json
import os
from urllib.parse import quote

from retrainer.cli.arguments import Add, asks_daemon
from retrainer.cli.terminal import say
from retrainer.client import ask


def add_to(add: Add) -> None:
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


def _asks_somebody(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", default=None, help="who asks, for the record (default: your login name)")
    parser.add_argument("--request", help="an id of your own: asked again under it, it is done once")
    asks_daemon(parser)


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
        say(json.dumps(told))
    else:
        repeated = " (asked before)" if told["repeated"] else ""
        detail = f": {printable(told['detail'])}" if told["detail"] else ""
        say(f"{told['decision']}: {told['reason']} - {MEANING.get(told['reason'], '')}{detail}{repeated}")
    return 1 if told["reason"] == "not_waiting" else 0


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}"
