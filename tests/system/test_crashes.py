"""kill -9 of anything, at any time: the loop finishes, nothing is doubled, nothing is lost."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system import data
from tests.system.house import House, policy
from tests.system.until import until

pytestmark = pytest.mark.system

VISIBILITY_SECONDS = 5
"""In production a minute: how long what a dead daemon had in hand waits for the next one."""
_VOLUME = {"volume": {"rows": 1000}}
POLICIES = [
    policy("follower", triggers=_VOLUME),
    policy("flood"),
    policy("drained"),
    policy("measured"),
    policy("asked", triggers=_VOLUME, approval="manual"),
    policy("lost-aws", triggers=_VOLUME),
    policy("lost-job", triggers=_VOLUME),
]


def test_an_execution_outlives_its_daemon_and_is_followed_to_its_end_once(house: House) -> None:
    house.put("data/follower/0.parquet", data.batch(0))
    execution = house.decided("follower", "execution_started")["execution"]
    house.daemon.kill()
    running = house.states.list_executions(stateMachineArn=house.state_machine, statusFilter="RUNNING")["executions"]
    assert execution in {e["name"] for e in running}
    house.daemon.start()
    house.decided("follower", "promoted")
    assert house.generations("follower") == ["g1"]
    assert len(house.decisions("follower", "retraining")) == 1
    assert len(house.decisions("follower", "promoted")) == 1


def test_no_object_is_lost_with_the_daemon_that_had_its_message_in_hand(house: House) -> None:
    os.kill(house.daemon.pid, signal.SIGSTOP)  # in a long poll, whose answer it will never read
    keys = put_many(house, "flood", 40)
    until(lambda: house.queue_count("NotVisible") > 0)
    house.daemon.kill()
    house.daemon.start()
    until(lambda: len(arrived(house, "flood")) >= len(keys), told=lambda: house.story("flood"))
    assert sorted(arrived(house, "flood")) == sorted(keys)
    until(lambda: house.status("flood")["window"]["rows"] == len(keys) * data.USERS)
    assert house.queue_count("NotVisible") == 0


def test_a_drained_daemon_ends_well_and_leaves_no_message_invisible(house: House) -> None:
    keys = put_many(house, "drained", 40)
    assert house.daemon.stop(seconds=30) == 0
    assert house.queue_count("NotVisible") == 0
    house.daemon.start()
    until(lambda: len(arrived(house, "drained")) >= len(keys), told=lambda: house.story("drained"))
    assert sorted(arrived(house, "drained")) == sorted(keys)


def test_a_measurement_lost_with_its_worker_is_made_by_the_next(house: House) -> None:
    house.put("data/measured/0.parquet", data.batch(0, steps=1))
    until(lambda: house.status("measured")["window"]["rows"] == data.USERS)
    (worker,) = house.pids("retrainer.worker")
    os.kill(worker, signal.SIGSTOP)
    house.put("data/measured/1.parquet", data.batch(1, steps=1))
    until(lambda: house.status("measured")["measuring"])
    os.kill(worker, signal.SIGKILL)
    until(lambda: house.status("measured")["window"]["rows"] == 2 * data.USERS, told=lambda: house.story("measured"))
    assert house.pids("retrainer.worker") != [worker]


def test_a_question_asked_before_the_daemon_died_can_be_answered_after_it(house: House) -> None:
    house.put("data/asked/0.parquet", data.batch(0))
    execution = house.decided("asked", "approval_requested")["execution"]
    house.daemon.kill()
    house.daemon.start()
    house.run("approve", execution)
    assert house.decided("asked", "promoted")["event"]["fields"]["execution"] == execution


def test_an_execution_that_died_with_aws_is_tried_again_under_a_new_name(house: House) -> None:
    house.put("data/lost-aws/0.parquet", data.batch(0))
    first = house.decided("lost-aws", "execution_started")["execution"]
    os.kill(house.aws.pid, signal.SIGKILL)
    until(lambda: not house.aws.is_alive())
    house.aws.start()
    died = house.ended("lost-aws")
    assert died["event"]["fields"]["execution"] == first
    promoted = house.decided("lost-aws", "promoted", seconds=120)
    assert promoted["execution"].startswith("lost-aws-g2-")
    assert [d["execution"] for d in house.decisions("lost-aws", "retraining")] == [first, promoted["execution"]]
    assert len(house.decisions("lost-aws", "promoted")) == 1
    assert house.recommended("lost-aws", [[5, 6, 7]])[0][0] == 8


def test_a_killed_training_process_fails_its_execution_and_the_next_attempt_is_promoted(house: House) -> None:
    house.put("data/lost-job/0.parquet", data.batch(0))
    (pid,) = until(lambda: house.pids("trainer train"))
    os.kill(pid, signal.SIGKILL)
    failed = house.ended("lost-job")
    assert "exit code: 137" in failed["detail"]
    promoted = house.decided("lost-job", "promoted")
    assert failed["event"]["fields"]["execution"].startswith("lost-job-g1-")
    assert promoted["execution"].startswith("lost-job-g2-")
    assert house.generations("lost-job") == ["g1", "g2"]


def put_many(house: House, model: str, count: int) -> list[str]:
    """So many small batches at once; their keys."""
    keys = [f"data/{model}/{n}.parquet" for n in range(count)]
    contents = [data.batch(n, steps=1) for n in range(count)]
    with ThreadPoolExecutor(max_workers=4) as threads:
        list(threads.map(house.put, keys, contents))
    return keys


def arrived(house: House, model: str) -> list[str]:
    """The keys of the objects that were decided upon, one a decision."""
    return [d["event"]["fields"]["key"] for d in house.decisions(model) if d["event"]["kind"] == "object_created"]
