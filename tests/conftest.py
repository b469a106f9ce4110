"""One real Kafka for all tests that want one, and a city of its own for each of them."""

import os
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from citybrain.broker import LocalBroker

# No example is judged by its time: machines differ. CI draws the same examples each time, so
# that a red run is about the change and not about the draw; a developer's run draws new ones.
hypothesis.settings.register_profile(
    "citybrain",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("citybrain")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A started broker, the same for the whole run: give your topics a `city_id` of their own."""
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture
def city_id() -> str:
    """A city that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"
