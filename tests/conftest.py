"""Applies to every test."""

import asyncio

pytest_plugins = ("tests.postgres",)


def pytest_configure() -> None:
    # pytest-asyncio asks for the current loop, to restore it later; where none is set it opens one it never closes.
    asyncio.set_event_loop(None)
