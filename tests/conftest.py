"""One real Kafka for all tests that want one, and a city of its own for each of them."""

import uuid
from collections.abc import Iterator

import pytest

from citybrain.broker import LocalBroker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A started broker, the same for the whole run: give your topics a `city_id` of their own."""
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture
def city_id() -> str:
    """A city that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"
