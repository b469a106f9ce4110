"""One real Kafka for all tests of this folder, and a city of its own for each test."""

import gc
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from citybrain.broker import LocalBroker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here runs on a real broker."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("stream")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A started broker, the same for the whole run: give your topics a `city_id` of their own."""
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture
def city_id() -> str:
    """A city that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _garbage() -> Iterator[None]:
    """Collect a test's garbage at its end: a fenced producer leaves futures whose exceptions
    nobody fetched. asyncio prints them when they are collected, and if that happens while
    Python 3.11 compiles a module, the compiler gives up (AST recursion depth mismatch)."""
    yield
    gc.collect()
