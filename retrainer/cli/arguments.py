"""How a command is declared: its name, its help with an example, and the arguments that several share."""

import argparse
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

Command = Callable[[argparse.Namespace], int]

_AGE = re.compile(r"(?P<count>[0-9]{1,5})(?P<unit>[dw])")
_SPAN = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Add(Protocol):
    """Declares a command. One without anything to do is a group, whose own commands `adder` adds."""

    def __call__(self, name: str, command: Command | None, says: str, *examples: str) -> argparse.ArgumentParser: ...


def adder(parser: argparse.ArgumentParser) -> Add:
    """Declares commands of this parser, of which one must be given. What a command says in further lines is detail."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Command | None, says: str, *examples: str) -> argparse.ArgumentParser:
        short, _, detail = says.partition("\n")
        added = commands.add_parser(
            name,
            help=short,
            description=f"{short[0].upper()}{short[1:]}.\n{detail}".strip(),
            epilog="examples:\n" + "\n".join(f"  {e}" for e in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    return add


def asks_daemon(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="where the daemon listens (default: RETRAINER_HTTP_HOST and _PORT)")
    for_machines(parser)


def for_machines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")


def pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, which is a number from 0 to 65535")
    return int(text)


def age(text: str) -> timedelta:
    found = _AGE.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age; write days or weeks, as in 90d or 13w")
    return int(found["count"]) * timedelta(days=7 if found["unit"] == "w" else 1)


def span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time; write a number and a unit, as in 90s, 6h or 3d")
    return timedelta(seconds=int(found["count"]) * _SECONDS[found["unit"]])
