"""The simulated weather stations speak MQTT where there is a broker for it."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiomqtt
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from citybrain.edge.world.post import Counts, Post
from tests.receiver import Receiver
from tests.stream import edge_rig as rig


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """The port of a real MQTT broker of its own."""
    yield from rig.mosquitto(tmp_path / "mosquitto")


async def test_weather_goes_by_mqtt_and_the_rest_by_http_each_reading_once(mosquitto: int) -> None:
    with Receiver().serving() as receiver:
        tokens = {"weather": "t1", "g1": "t2"}
        post = Post(receiver.url, tokens, CollectorRegistry(), mqtt=("127.0.0.1", mosquitto))
        async with aiomqtt.Client("127.0.0.1", mosquitto) as agent:
            await agent.subscribe("citybrain/+/readings", qos=1)
            sending = asyncio.create_task(post.run())
            for k in range(20):
                post.put("weather", [("w1", "temperature", 1_000 * k, 20.5)])
                post.put("g1", [("d1", "vehicle_count", 1_000 * k, 7.0)])
            async with asyncio.timeout(60):
                heard = [await anext(aiter(agent.messages)) for _ in range(20)]
                await post.drained()
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
    assert {str(message.topic) for message in heard} == {"citybrain/weather/readings"}
    said = [row for m in heard for row in msgspec.json.decode(m.payload)]  # type: ignore[arg-type]  # bytes
    assert said == [
        {"sensor": "w1", "kind": "temperature", "time": 1_000 * k, "value": 20.5} for k in range(20)
    ]
    assert sum(len(batch) for _, _, batch in receiver.requests) == 20
    assert post.counts == Counts(produced=40, acknowledged=40)
