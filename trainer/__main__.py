"""``python -m trainer train | serve | evaluate``: the entry point of the image, as SageMaker calls it."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # before all else: a container's first process without a handler gets no SIGTERM at all
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))

import argparse
import sys
import traceback

from trainer import contract


def main(arguments: list[str] | None = None) -> int:
    command = _parser().parse_args(arguments).command
    paths = contract.Paths.from_environment()
    stop = contract.StopRequest()
    stop.install(command)
    try:
        return _carry_out(command, paths, stop)
    except Exception as error:
        kind, _code, text = contract.classify(error)
        if kind == contract.TrainerError.kind and not isinstance(error, contract.TrainerError):
            traceback.print_exc()
        sys.stderr.write(f"{command} failed ({kind}): {text}\n")
        return contract.write_failure(paths, error)


def _carry_out(command: str, paths: contract.Paths, stop: contract.StopRequest) -> int:
    # Each command imports what it needs: serving starts in half a second because it never sees torch.
    if command == "train":
        from trainer import train

        return train.main(paths, stop)
    if command == "evaluate":
        from trainer import evaluation

        return evaluation.main(paths)
    from trainer import serve

    return serve.main(paths)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train, evaluate or serve a small model by the SageMaker container contract.",
        epilog="Everything is read and written under SAGEMAKER_BASE_DIR (default /opt/ml); see trainer/README.md.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="train|serve|evaluate")
    commands.add_parser("train", help="train on the channel 'train', warm from 'champion', into model/")
    commands.add_parser("evaluate", help="measure challengers, champion and baselines on the holdout")
    commands.add_parser("serve", help="answer /ping and /invocations from model/")
    return parser


if __name__ == "__main__":
    contract.leave(main())
