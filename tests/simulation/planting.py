"""A planted bug: its name, what it breaks, and the patch that plants it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`breaks` is one sentence: what the product then does wrong."""

    name: str
    breaks: str
    plant: Callable[[Patch], None]

    @contextmanager
    def planted(self) -> Iterator[None]:
        with Patch.context() as patch:
            self.plant(patch)
            yield


def mutant(plant: Callable[[Patch], None]) -> Mutant:
    """Made of a function: its name and its docstring."""
    return Mutant(name=plant.__name__.replace("_", " "), breaks=inspect.getdoc(plant) or "", plant=plant)
