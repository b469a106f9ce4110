"""The alerting stage on the real broker without its worker: reads the log, writes what follows."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from citybrain import findings, topics
from citybrain.city import City
from citybrain.kafka import KafkaSettings, consumer_arguments, producer_arguments, started
from citybrain.stage import Record
from citybrain.streams.alerting import Alerting


@asynccontextmanager
async def alerting(settings: KafkaSettings, city: City) -> AsyncIterator[Alerting]:
    """While this lasts the stage takes what stands in the findings log, from its beginning."""
    await topics.ensure(settings, city.id, city.partitions)
    stage = Alerting(city)
    task = asyncio.create_task(_run(settings, city, stage))
    try:
        yield stage
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def write(
    settings: KafkaSettings, city: City, topic: str, values: Iterable[bytes | msgspec.Struct]
) -> None:
    """Append to partition 0 of a topic of the city."""
    producer = await started(AIOKafkaProducer(**producer_arguments(settings)), settings)
    try:
        for value in values:
            told = value if isinstance(value, bytes) else findings.encode(value)
            await producer.send_and_wait(topics.full_name(city.id, topic), told, partition=0)
    finally:
        await producer.stop()


async def _run(settings: KafkaSettings, city: City, stage: Alerting) -> None:
    consumer = await started(AIOKafkaConsumer(**consumer_arguments(settings)), settings)
    producer = await started(AIOKafkaProducer(**producer_arguments(settings)), settings)
    try:
        place = TopicPartition(topics.full_name(city.id, "findings"), 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        async for got in consumer:
            record = Record("findings", 0, got.offset, got.timestamp, got.value)
            for out in stage.apply(record):
                name = topics.full_name(city.id, out.topic)
                await producer.send_and_wait(name, out.value, key=out.key, partition=out.partition)
    finally:
        await producer.stop()
        await consumer.stop()
