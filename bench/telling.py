"""How every benchmark tells what it found: a table, the machine it ran on, and a section of a README."""

import math
import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).with_name("README.md")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, one line a row after the head."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def wilson(found: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z, p = 1.96, found / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def machine(packages: Iterable[str] = (), *others: str) -> str:
    """The day, the processor, and the versions of Python, of installed packages and of what else is named."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    told = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages), *others]
    return f"{datetime.now(UTC).date().isoformat()}; {cpu}, {os.cpu_count()} cores; {', '.join(told)}"


def load() -> str:
    """Processes that run or wait to, over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def write(name: str, text: str, readme: Path = README) -> None:
    """Between the lines `<!-- name: ... -->` and `<!-- end of name -->` of the README, which must have both, once."""
    mark = re.escape(name)
    section = re.compile(rf"(<!-- {mark}: [^\n]* -->\n).*?(\n<!-- end of {mark} -->)", re.DOTALL)
    told, count = section.subn(lambda marks: f"{marks[1]}\n{text}\n{marks[2]}", readme.read_text())
    assert count == 1, f"{readme} has {count} sections named {name}"
    readme.write_text(told)
