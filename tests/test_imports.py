"""The daemon starts soon and stays small because of what it does not import; the evidence worker does that."""

import json
import os
import subprocess
import sys
from pathlib import Path

HEAVY = {"boto3", "evidently", "numpy", "pandas", "pyarrow", "sagemaker", "scipy", "sklearn", "torch"}
UNUSED = {"alembic", "httpx", "jinja2", "psycopg", "rich"}
"""Of what the daemon's libraries import if they find it, or of other commands: neither starts it sooner."""

ROOT = Path(__file__).resolve().parent.parent
BUILD = """
import asyncio, json, sys
from contextlib import AsyncExitStack
from retrainer.cli.running import import_wiring
from retrainer.settings import Settings, read

wiring = import_wiring()

async def build():
    async with AsyncExitStack() as stack:
        await wiring._Daemon.build(read(Settings), stack)
        print(json.dumps(sorted({name.split(".")[0] for name, module in sys.modules.items() if module})))

asyncio.run(build())
"""


def test_the_daemon_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    account, region = "123456789012", "eu-central-1"
    settings = {
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "RETRAINER_QUEUE_URL": f"https://sqs.{region}.amazonaws.com/{account}/events",
        "RETRAINER_DLQ_URL": f"https://sqs.{region}.amazonaws.com/{account}/refused",
        "RETRAINER_BUCKET": "my-data",
        "RETRAINER_STATE_MACHINE_ARN": f"arn:aws:states:{region}:{account}:stateMachine:retraining",
        "RETRAINER_POLICIES": str(ROOT / "policies"),
        "RETRAINER_LEDGER": f"sqlite:///{tmp_path / 'ledger.db'}",
    }
    built = subprocess.run(
        [sys.executable, "-c", BUILD], env=os.environ | settings, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    imported = set(json.loads(built.stdout))
    assert "aiobotocore" in imported
    assert not imported & (HEAVY | UNUSED)
