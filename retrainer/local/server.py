"""The child process of the embedded AWS: ministack on a loopback port with the local SageMaker inside.

    python -m retrainer.local.server --state DIR [--port N | --fd N] [--parent PID] [--images JSON]

Everything it keeps lies under DIR: what AWS services remember, S3's objects, logs, containers at work.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import IO

SERVICES = "s3,sqs,sns,events,scheduler,states,lambda,iam,sts,monitoring,logs,cloudformation,ssm"
AUTOSAVE_SECONDS = 2.0
PARENT_LOOK_SECONDS = 0.2
ACCOUNT, REGION = "000000000000", "us-east-1"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="retrainer.local.server", description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True, help="directory of everything that is kept")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--port", type=int, default=0, help="loopback port (0: a free one)")
    place.add_argument("--fd", type=int, help="an already bound socket, inherited from the parent")
    parser.add_argument("--parent", type=int, help="end when this process ends")
    parser.add_argument("--images", default="{}", help="JSON: repository name -> command")
    parser.add_argument("--stop-grace-seconds", type=float, default=20.0, help="between SIGTERM and SIGKILL of a job")
    parser.add_argument("--endpoint-start-seconds", type=float, default=90.0, help="until /ping must answer 200")
    options = parser.parse_args(arguments)
    state: Path = options.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        if not _locked(lock):
            print(f"another local AWS is using {state}", file=sys.stderr)  # noqa: T201
            return 2
        listening = socket.socket(fileno=options.fd) if options.fd is not None else _bound(options.port)
        configure(state, listening.getsockname()[1])
        _serve(state, listening, options)
    return 0


def configure(state: Path, port: int) -> None:
    """The environment that ministack reads when it is imported; credentials of the user are put out of reach."""
    shutil.rmtree(state / "tmp", ignore_errors=True)
    shutil.rmtree(state / "containers", ignore_errors=True)
    (state / "tmp").mkdir()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "GATEWAY_PORT": str(port),
        "SERVICES": SERVICES,
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state / "services"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state / "s3"),
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
        "TMPDIR": str(state / "tmp"),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    import tempfile

    tempfile.tempdir = None  # TMPDIR is read once


def _serve(state: Path, listening: socket.socket, options: argparse.Namespace) -> None:
    # ministack reads the environment at its import, so these imports come after `configure`.
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    from retrainer.local import ministack_seams
    from retrainer.local.containers import kill_all
    from retrainer.local.gateway import Gateway
    from retrainer.local.host import Host
    from retrainer.local.ministack_seams import disk, services, step_functions
    from retrainer.local.s3_files import S3Files
    from retrainer.local.sagemaker_api import LocalSageMaker
    from retrainer.local.store import Store
    from retrainer.local.sync_tasks import SyncTasks

    ministack_seams.check()
    store = Store(state / "sagemaker.json")
    host = Host(
        store=store,
        files=S3Files(os.environ["AWS_ENDPOINT_URL"], REGION),
        emit=lambda kind, detail, resources: services.put_event("aws.sagemaker", kind, detail, resources),
        root=state,
        account=ACCOUNT,
        region=REGION,
        images=json.loads(options.images),
        stop_grace_seconds=options.stop_grace_seconds,
        endpoint_start_seconds=options.endpoint_start_seconds,
    )
    sagemaker = LocalSageMaker(host)
    services.register_sagemaker(sagemaker.handle, SyncTasks(sagemaker, step_functions.task_is_wanted).handlers())
    services.announce_alarms()
    services.deliver_s3_events_at_once()
    services.name_lambda_errors()
    step_functions.correct_step_functions()
    gateway = Gateway(services.application(), disk.save, host.faults, on_ready=sagemaker.endpoints.restore)

    async def run() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        config = Config()
        config.bind = [f"fd://{listening.fileno()}"]
        config.keep_alive_timeout = 75
        config.graceful_timeout = 0.5  # long polls of SQS are not waited for
        config.loglevel = "WARNING"
        async with asyncio.TaskGroup() as tasks:
            autosave = tasks.create_task(gateway.autosave(AUTOSAVE_SECONDS))
            watch = tasks.create_task(_watch_parent(options.parent, stopping))
            await serve(gateway, config, shutdown_trigger=stopping.wait)  # type: ignore[arg-type]
            autosave.cancel()
            watch.cancel()

    try:
        with asyncio.Runner() as runner:
            runner.run(run())
            store.freeze()
            kill_all()
            _end_with_the_group()
    finally:
        kill_all()


async def _watch_parent(parent: int | None, stopping: asyncio.Event) -> None:
    """Ends the emulator when its parent has ended, however that died."""
    while parent is None or os.getppid() == parent:  # noqa: ASYNC110  the kernel tells no one
        await asyncio.sleep(PARENT_LOOK_SECONDS)
    stopping.set()


def _end_with_the_group() -> None:
    """Takes Lambda's workers along and leaves without waiting for threads that are inside a long poll."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGTERM)
    os._exit(0)


def _locked(lock: IO[str]) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    return listening


if __name__ == "__main__":
    raise SystemExit(main())
