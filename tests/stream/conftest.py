"""Tests on the real broker (see `broker` in tests/conftest.py)."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here runs on a real broker."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("stream")


@pytest.fixture(autouse=True)
def _garbage() -> Iterator[None]:
    """Collect a test's garbage at its end: a fenced producer leaves futures whose exceptions
    nobody fetched. asyncio prints them when they are collected, and if that happens while
    Python 3.11 compiles a module, the compiler gives up (AST recursion depth mismatch)."""
    yield
    gc.collect()
