"""``python -m trainer train | serve | evaluate``: the entry point of the image, as SageMaker calls it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback

from trainer import contract
from trainer.progress import say


def main(arguments: list[str] | None = None) -> int:
    command = _parser().parse_args(arguments).command
    paths = contract.Paths.from_environment()
    stop = contract.StopRequest()
    try:
        return _carry_out(command, paths, stop)
    except SystemExit:  # of StopRequest, while there was nothing to keep
        say("train_stopped", steps=0)
        return 0
    except Exception as error:
        if not isinstance(error, contract.TrainerError):
            traceback.print_exc()
        kind, _code, text = contract.classify(error)
        sys.stderr.write(f"{command} failed ({kind}): {text}\n")
        return contract.write_failure(paths, error)


def _carry_out(command: str, paths: contract.Paths, stop: contract.StopRequest) -> int:
    # Each command imports what it needs: serving starts in half a second because it never sees torch.
    if command == "train":
        stop.install()
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
    code = main()
    # Python lets go of its handlers before it ends: a SIGTERM then would turn what is done into a failure. And taking
    # torch apart takes 0.7 CPU s of the 2 between a SIGTERM and the end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
