"""The command line. Each command imports what it needs, so that `--help` comes at once.

Exit codes: 0 fine, 1 failed, 2 something to mend in the command, a setting or a file, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from retrainer import __version__
from retrainer.cli import asking, backtesting, dead_letters, ledger, reading, replaying, reporting, running, testing
from retrainer.cli.arguments import Command, adder
from retrainer.client import FailedError


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
        from retrainer.ports import ConfigError, PermanentError, TransientError

        if isinstance(error, ConfigError):
            return _complain(error, 2)
        if isinstance(error, TransientError | PermanentError):
            return _complain(error, 1)
        raise


def _complain(error: Exception, code: int) -> int:
    for line in str(error).splitlines():
        print(f"retrainer: {line}", file=sys.stderr)  # noqa: T201
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retrainer",
        description="Decides when a model must be retrained, has it retrained, and follows it until it serves.",
        epilog="Settings are environment variables RETRAINER_*; `retrainer COMMAND --help` shows an example of each. "
        "Exit codes: 0 fine, 1 failed, 2 something to mend in the command, a setting or a file, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"retrainer {__version__}")
    add = adder(parser)
    for group in (running, reading, reporting, replaying, testing, backtesting, asking, dead_letters, ledger):
        group.add_to(add)
    return parser
