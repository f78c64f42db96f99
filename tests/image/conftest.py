"""Both images, built once from the Dockerfile on a base of this machine's own making: six minutes, some 6 GB meanwhile.

PYTHON_IMAGE and CUDA_IMAGE name other bases, where a registry can be reached. The trainer then gets the torch that pip
finds: without a local wheel of the CPU build that is PyPI's CUDA build, some 6 GB more.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.engine import Engine, missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here build an image."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.image)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if lacking := missing():
        pytest.fail(f"needs {', '.join(lacking)}; run as root: make image")
    engine = Engine(Path(tempfile.mkdtemp(prefix="image-")))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def base(engine: Engine) -> str:
    return engine.base()


@pytest.fixture(scope="session")
def daemon(engine: Engine, request: pytest.FixtureRequest) -> str:
    """The daemon's image."""
    chosen = os.environ.get("PYTHON_IMAGE") or request.getfixturevalue("base")
    return engine.build("daemon", {"PYTHON_IMAGE": chosen})


@pytest.fixture(scope="session")
def trainer(engine: Engine, request: pytest.FixtureRequest) -> str:
    """The trainer's image."""
    chosen = os.environ.get("CUDA_IMAGE") or request.getfixturevalue("base")
    return engine.build("trainer", {"CUDA_IMAGE": chosen, "GIT_REVISION": "0123abc"})
