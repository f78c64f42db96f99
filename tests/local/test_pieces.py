"""The pieces of the local AWS that need no process."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest

from retrainer.local.containers import command_line, local_path
from retrainer.local.endpoints import Variant, by_weight
from retrainer.local.faults import Faults
from retrainer.local.gateway import Journal, changes
from retrainer.local.provision import pack
from retrainer.local.s3_files import DataError, inside, relative_key, unpack
from retrainer.local.s3_files import pack as pack_tar
from retrainer.local.serving import Serving
from retrainer.local.store import Store
from tests.local.support import run_apart


@pytest.mark.parametrize(
    ("key", "prefix", "relative"),
    [
        ("a/train/x.parquet", "a/train", "x.parquet"),
        ("a/train/deep/x.parquet", "a/train/", "deep/x.parquet"),
        ("a/train.csv", "a/train.csv", "train.csv"),
        ("a/train-2.csv", "a/train", "train-2.csv"),
        ("x", "", "x"),
    ],
)
def test_an_s3_prefix_matches_names_not_folders(key: str, prefix: str, relative: str) -> None:
    assert relative_key(key, prefix) == relative


def test_a_key_cannot_climb_out_of_its_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="climbs out"):
        inside(tmp_path, "../../etc/passwd")


def test_an_archive_gives_back_the_directory(tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "w").write_text("weights")
    pack_tar(source, tmp_path / "model.tar.gz")
    unpack(tmp_path / "model.tar.gz", tmp_path / "again")
    assert (tmp_path / "again" / "deep" / "w").read_text() == "weights"
    (tmp_path / "not.tar.gz").write_text("not an archive")
    with pytest.raises(DataError, match="not a tar archive"):
        unpack(tmp_path / "not.tar.gz", tmp_path / "never")


def test_any_image_is_the_trainer_unless_something_else_is_asked_for() -> None:
    trainer = command_line([], [], default=["train"])
    assert trainer[1:] == ["-m", "trainer", "train"]
    assert command_line([], ["evaluate"], default=["train"]) == [*trainer[:3], "evaluate"]
    assert command_line(["python3", "x.py"], ["--fast"], image=["sh"], default=["train"]) == [
        trainer[0],
        "x.py",
        "--fast",
    ]
    assert command_line([], [], image=["sh", "serve.sh"], default=["serve"]) == ["sh", "serve.sh", "serve"]


@pytest.mark.parametrize("path", ["/etc", "/opt/mlx", "/opt/ml/../x", ""])
def test_a_path_outside_the_container_has_no_place(path: str) -> None:
    with pytest.raises(ValueError, match="not under /opt/ml"):
        local_path(Path("/base"), path)


def test_a_store_keeps_its_records_and_forgets_a_change_that_failed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.json")
    with store.change("Job") as jobs:
        jobs["a"] = {"status": "new"}

    def fail_half_way() -> None:
        with store.change("Job") as jobs:
            jobs["b"] = {"status": "half"}
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert Store(tmp_path / "store.json").all("Job") == store.all("Job") == [{"status": "new"}]


def test_traffic_follows_the_weights() -> None:
    serving = cast("Serving", None)
    variants = (Variant("old", 3.0, serving), Variant("new", 1.0, serving))
    shares = [by_weight(variants, count).name for count in range(400)]
    assert abs(shares.count("new") - 100) <= 2


def test_a_fault_is_used_up() -> None:
    faults = Faults()
    faults.add({"spot_interrupt": {"job": "shop-", "after_seconds": 1.0}})
    assert not faults.interrupts("shop-1", trained_seconds=0.5, checkpointed=True)
    assert not faults.interrupts("other", trained_seconds=2.0, checkpointed=True)
    assert faults.interrupts("shop-1", trained_seconds=1.0, checkpointed=False)
    assert not faults.interrupts("shop-1", trained_seconds=2.0, checkpointed=False)
    with pytest.raises(ValueError, match="spot_interrupt"):
        faults.add({"earthquake": {}})


@pytest.mark.parametrize(
    ("target", "method", "touched"),
    [
        (b"AmazonSQS.SendMessage", "POST", ("sqs",)),
        (b"AmazonSQS.ReceiveMessage", "POST", ()),
        (b"AWSStepFunctions.StartExecution", "POST", ("stepfunctions", "sqs")),
        (b"AWSStepFunctions.DescribeExecution", "POST", ()),
        (b"", "PUT", ("sqs",)),
        (b"", "GET", ()),
    ],
)
def test_what_a_request_changes_is_known_from_its_head(target: bytes, method: str, touched: tuple[str, ...]) -> None:
    assert changes({"headers": [(b"x-amz-target", target)], "method": method, "path": "/bucket/key"}) == touched


def test_a_new_bucket_is_saved_with_its_service() -> None:
    assert changes({"headers": [], "method": "PUT", "path": "/bucket"}) == ("s3", "sqs")


def test_changes_that_wait_for_one_save_share_the_next() -> None:
    saved: list[set[str]] = []

    async def commit_while_saving() -> None:
        running = asyncio.Event()

        async def save(services: Iterable[str] | None) -> None:
            saved.append(set(services or ()))
            running.set()
            await asyncio.sleep(0)

        journal = Journal(save)
        first = asyncio.create_task(journal.commit(["sqs"]))
        await running.wait()
        await asyncio.gather(first, *(journal.commit([name]) for name in ("s3", "sqs", "events")))

    run_apart(commit_while_saving())
    assert saved == [{"sqs"}, {"s3", "sqs", "events"}]


def test_a_zip_depends_on_its_content_alone(tmp_path: Path) -> None:
    def tree(name: str) -> Path:
        package = tmp_path / name / "steps"
        (package / "__pycache__").mkdir(parents=True)
        (package / "__pycache__" / "x.pyc").write_text(name)
        (package / "gate.py").write_text("answer = 42")
        return package

    content = pack([tree("one")])
    assert content == pack([tree("two")])
    assert b"steps/gate.py" in content
    assert b"pyc" not in content
