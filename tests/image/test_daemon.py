"""The daemon's image as an operator runs it: uid 10001, a read-only root, the volume and /tmp to write to."""

import time
from pathlib import Path

from tests.image.engine import Engine

SIZE_BYTES_MAX = 1_200_000_000
"""1.07 GB measured: 225 MB the base, nearly all else Evidently and what it needs. torch would add 700 MB."""

SETTINGS = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "RETRAINER_QUEUE_URL": "http://127.0.0.1:9/123456789012/events",
    "RETRAINER_DLQ_URL": "http://127.0.0.1:9/123456789012/refused",
    "RETRAINER_BUCKET": "some-bucket",
    "RETRAINER_STATE_MACHINE_ARN": "arn:aws:states:eu-central-1:123456789012:stateMachine:retraining",
    "RETRAINER_HTTP_PORT": "8399",
}
"""An AWS that cannot be reached: the daemon has to live through that too."""

EVIDENCE = """
import numpy as np
from retrainer.adapters.evidently_report import Windows, page, score
from retrainer.core.evidence import ColumnDrift
from retrainer.core.policy import Column
from retrainer.drift.profile import Sample

old, new = np.random.default_rng(0).normal(size=2000), np.random.default_rng(1).normal(1.0, size=2000)
found = score(Column(kind="numerical", test="wasserstein", threshold=0.1), Windows(old, new))
told = ColumnDrift(column="x", test="wasserstein", score=found, threshold=0.1, drifted=found > 0.1)
samples = (Sample(np.arange(2000, dtype=np.uint64), {"x": x}) for x in (old, new))
print(told.drifted, len(page("a title", ["a fact"], [told], *samples)) > 1_000_000)
"""


def test_the_command_line_runs_on_a_read_only_root(engine: Engine, daemon: str) -> None:
    ended = engine.run(daemon, "--help")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("usage: retrainer")
    assert "Read-only file system" in engine.shell(daemon, "touch /anything").err


def test_it_runs_as_10001_who_owns_the_volume_and_nothing_else(engine: Engine, daemon: str) -> None:
    assert engine.shell(daemon, "id -u; id -g; touch ledger.db && pwd").out.split() == [
        *("10001", "10001", "/var/lib/retrainer"),
    ]
    owned = engine.shell(daemon, "find / -xdev -user 10001 -not -path '/proc/*'")
    assert owned.out.split() in ([], ["/var/lib/retrainer"])


def test_the_policies_it_brings_are_valid(engine: Engine, daemon: str) -> None:
    ended = engine.run(daemon, "validate", "/etc/retrainer/policies")
    assert ended.code == 0, ended.err
    brought = sorted(file.name for file in Path("policies").glob("*.yaml"))
    assert ended.out.splitlines() == [f"/etc/retrainer/policies/{name}: OK" for name in brought]


def test_it_has_neither_torch_nor_pip_nor_what_the_build_was_lent(engine: Engine, daemon: str) -> None:
    for module in ("torch", "pip", "trainer"):
        assert (
            f"No module named '{module}'"
            in engine.run(*(daemon, "-c", f"import {module}"), options=("--entrypoint", "python")).err
        )
    assert engine.shell(daemon, "test -e /etc/pip.conf").code == 1


def test_it_is_small(engine: Engine, daemon: str) -> None:
    size = engine.inspect(daemon)["Size"]
    print(f"daemon: {size / 1e6:.0f} MB")  # noqa: T201
    assert size < SIZE_BYTES_MAX


def test_evidently_measures_and_draws_in_it(engine: Engine, daemon: str) -> None:
    ended = engine.run(daemon, "-W", "ignore", "-c", EVIDENCE, options=("--entrypoint", "python"))
    assert ended.out.split() == ["True", "True"], ended.err


def test_it_lives_without_aws_and_ends_at_sigterm(engine: Engine, daemon: str) -> None:
    settings = [part for name, value in SETTINGS.items() for part in ("--env", f"{name}={value}")]
    container = engine.start(daemon, options=settings)
    deadline = time.monotonic() + 60
    while not (healthy := engine.is_healthy(container)) and time.monotonic() < deadline:
        time.sleep(0.5)
    ended = engine.stop(container, seconds=20)
    assert healthy, ended.err
    assert ended.code == 0, ended.err
