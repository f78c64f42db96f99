"""The largest inputs there are, in a process that may take little memory and little time, and on a real socket."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from retrainer.adapters import http
from retrainer.adapters.http import server
from tests.fakes.small_daemon import SmallDaemon

MEMORY_MIB = 128
"""More than the process has once everything is imported. A message of 1 MiB may become 60 MiB of objects."""
CPU_SECONDS = 30
_PROGRAM = """
import resource, sys
from pathlib import Path
from tests.hostile.test_bounds import largest_messages
from tests.hostile.test_messages import judged
from tests.hostile.envelopes import PARSER
from retrainer.adapters.policy_files import Defaults, PolicyFiles

PolicyFiles(Path(sys.argv[1]), Defaults(bucket="artifacts"))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {memory} * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
for body in largest_messages():
    PARSER.parse(body)
files = PolicyFiles(Path(sys.argv[2]), Defaults(bucket="artifacts"))
assert len(files.errors()) == len(list(Path(sys.argv[2]).iterdir())), files.errors()
print("done")
"""
_MIB = 1_048_576


def largest_messages() -> list[str]:
    """A mebibyte each, of what makes a parser's work or memory large; and what is far larger."""
    pieces = ("[],", "{},", '{"":0},', "1e308,", "9" * 4300 + ",", '"",', "-1,", "null,", '{"a":{"b":[{}]}},')
    lists = ["[" + piece * ((_MIB - 3) // len(piece)) + "0]" for piece in pieces]
    names = "{" + ",".join(f'"{i}":0' for i in range(80_000)) + "}"
    record = '{"eventSource":"aws:s3","eventName":"ObjectCreated:","s3":{"bucket":{"name":"artifacts"},"object":{}}},'
    records = '{"Records":[' + record * 9000 + "{}]}"
    deep = ["[" * _MIB, '{"a":' * (_MIB // 5), '{"a":[' * 900 + "]}" * 900]
    long = ["[" + "9" * (_MIB - 2) + "]", "[0." + "9" * (_MIB - 4) + "]", "[1e" + "9" * (_MIB - 4) + "]", " " * _MIB]
    texts = [
        '"' + "x" * (_MIB - 2) + '"',
        '"' + "\\u0041" * (_MIB // 6 - 2) + '"',
        '"' + "\U0001f600" * (_MIB // 4 - 2) + '"',
    ]
    sns = '{"Type":"Notification","Message":"' + '\\\\\\"' * (_MIB // 5) + '"}'
    return [*lists, names, records, *deep, *long, *texts, sns, "x" * 30 * _MIB]


def test_the_largest_inputs_there_are_take_little_memory_and_time(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    with (bad / "huge.yaml").open("wb") as huge:
        huge.truncate(100 * 1024**3)
    (bad / "zero.yaml").symlink_to("/dev/zero")
    (bad / "laughs.yaml").write_text(
        "a: &a [x, x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24))
    )
    for number, text in enumerate(
        ("a: 1\n", "- ", "[", "{a: ", "? ", "a", '"', "#\n", "\n", "---\n", "- []\n", "&a ", "!a ")
    ):
        (bad / f"{number}.yaml").write_text(text * (256 * 1024 // len(text)))
    program = _PROGRAM.format(memory=MEMORY_MIB, seconds=CPU_SECONDS)
    done = subprocess.run([sys.executable, "-c", program, good, bad], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr[-2000:]) == (0, "done\n", "")


async def test_a_slow_client_on_a_real_socket_is_shown_out_while_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.2)
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 20)
    listener = http.listen("127.0.0.1", 0)
    stopping = asyncio.Event()
    serving = asyncio.create_task(http.run(SmallDaemon().app(), listener, stopping))
    port = listener.getsockname()[1]
    slow = await asyncio.open_connection("127.0.0.1", port)
    slow[1].write(b"GET /livez HT")
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    for other, _ in (slow, *silent):
        with suppress(ConnectionResetError):
            assert (await other.read())[:12] in (b"", b"HTTP/1.1 408")
    for _, end in (slow, *silent, (reader, writer)):
        end.close()
    stopping.set()
    await serving
