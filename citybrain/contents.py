"""What a topic holds at this moment: its records from some offset up to its present end."""

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from citybrain.errors import BrokerError
from citybrain.kafka import KafkaSettings, admin_arguments, consumer_arguments, started, unreachable
from citybrain.topics import full_name

STALLED_MS = 5_000
"""An end that is not reached for so long is behind a transaction that is still open."""


@asynccontextmanager
async def consumer(settings: KafkaSettings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group whose errors are BrokerErrors."""
    client = await started(AIOKafkaConsumer(**consumer_arguments(settings)), settings)
    try:
        yield client
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from error
    finally:
        await client.stop()


async def partitions(settings: KafkaSettings, city: str, topic: str) -> list[TopicPartition]:
    """The partitions of a city's topic. Raises BrokerError if the cluster has no such topic."""
    name = full_name(city, topic)
    admin = await started(AIOKafkaAdminClient(**admin_arguments(settings)), settings)
    try:
        if name not in await admin.list_topics():
            raise BrokerError(f"topic: {name} is not on this cluster; has this city ever run here?")
        (told,) = await admin.describe_topics([name])
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from error
    finally:
        await admin.close()
    return [TopicPartition(name, part["partition"]) for part in told["partitions"]]


async def records(
    settings: KafkaSettings,
    city: str,
    topic: str,
    since: Mapping[int, int] | None = None,
    last: int | None = None,
) -> AsyncIterator[ConsumerRecord[Any, Any]]:
    """Committed records up to the end as it is now, in order within each partition.

    since: partition -> first offset; others are read from their beginning. last: at most so
    many offsets before the end of each partition.
    Raises BrokerError if the topic is not there or the cluster goes away.
    """
    places = await partitions(settings, city, topic)
    async with consumer(settings) as client:
        client.assign(places)
        ends = await client.end_offsets(places)
        firsts = await client.beginning_offsets(places)
        for place in places:
            first = max((since or {}).get(place.partition, 0), firsts[place])
            if last is not None:
                first = max(first, ends[place] - last)
            client.seek(place, min(first, ends[place]))
        unread = await _unread(client, places, ends)
        moved = time.monotonic()
        while unread and time.monotonic() - moved < STALLED_MS / 1000:
            got = await client.getmany(*unread, timeout_ms=200)
            if got:
                moved = time.monotonic()
            for place, found in got.items():
                for record in found:
                    if record.offset < ends[place]:
                        yield record
            unread = await _unread(client, unread, ends)


async def _unread(
    client: AIOKafkaConsumer, places: Iterable[TopicPartition], ends: Mapping[TopicPartition, int]
) -> list[TopicPartition]:
    return [place for place in places if await client.position(place) < ends[place]]


async def latest(settings: KafkaSettings, city: str, topic: str) -> dict[bytes, bytes]:
    """The last value of each key of a compacted topic."""
    found: dict[bytes, bytes] = {}
    async for record in records(settings, city, topic):
        if record.value is None:
            found.pop(record.key, None)
        else:
            found[record.key] = record.value
    return found
