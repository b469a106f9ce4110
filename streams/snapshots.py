"""The snapshot store on Kafka: one compacted topic, one transactional id a stage and partition.

The id is the fence: whoever loads opens a producer with it, and the broker refuses every
older one from then on. A transaction is all or nothing, so the latest value of each key is
always one whole snapshot; the manifest's checksum tells when the topic itself was damaged.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from citybrain.errors import BrokerError
from citybrain.kafka import KafkaSettings, consumer_arguments, producer_arguments, started
from citybrain.stage import Out
from citybrain.streams.outputs import AWAY_MS
from citybrain.streams.shell import Manifest
from citybrain.topics import full_name

MANIFEST = "manifest"
TRANSACTION_MS = 15_000
"""A dead owner's open transaction holds up readers of the partition for so long at most."""
AT_ONCE = 6
"""So many transactional producers connect at a time."""


class KafkaStore:
    """Snapshots of one stage and partition; see `shell.Store`."""

    def __init__(self, settings: KafkaSettings, city: str, stage: str, partition: int) -> None:
        self.settings, self.partition = settings, partition
        self.topic = full_name(city, "snapshots")
        self._city = city
        self._prefix = f"{stage}/{partition}/"
        self._id = f"citybrain.{city}.{stage}.{partition}"
        self._producer: AIOKafkaProducer | None = None
        self._found: dict[str, bytes] | None = None

    async def load(self) -> tuple[Manifest | None, Mapping[str, bytes]]:
        """Shut out earlier owners, then read, unless `prepare` did. Raises BrokerError."""
        if self._found is None:
            await prepare([self])
        assert self._found is not None
        blocks, self._found = self._found, None
        raw = blocks.pop(MANIFEST, None)
        return (msgspec.json.decode(raw, type=Manifest) if raw else None), blocks

    async def fence(self) -> None:
        """Become the owner. Raises BrokerError."""
        arguments = producer_arguments(self.settings, transactional_id=self._id)
        arguments |= {"transaction_timeout_ms": TRANSACTION_MS, "request_timeout_ms": AWAY_MS}
        self._producer = await started(AIOKafkaProducer(**arguments), self.settings)

    async def save(
        self, manifest: Manifest, blocks: Mapping[str, bytes], outs: Sequence[Out]
    ) -> None:
        """One transaction. Raises aiokafka's ProducerFenced if another owner has loaded."""
        producer = self._producer
        if producer is None:
            raise BrokerError(f"{self._id}: save before load")
        await producer.begin_transaction()
        state = {**blocks, MANIFEST: msgspec.json.encode(manifest)}
        sent = [
            await producer.send(
                self.topic, value or None, f"{self._prefix}{name}".encode(), self.partition
            )
            for name, value in state.items()
        ]
        sent += [
            await producer.send(
                full_name(self._city, out.topic), out.value or None, out.key, out.partition,
                headers=list(out.headers),
            )
            for out in outs
        ]  # fmt: skip
        await asyncio.gather(*sent)
        await producer.commit_transaction()

    def give(self, values: Mapping[str, bytes]) -> None:
        """What was read ahead for `load`: the values of the whole partition, by key."""
        self._found = {
            key.removeprefix(self._prefix): value
            for key, value in values.items()
            if value and key.startswith(self._prefix)
        }

    async def close(self) -> None:
        """Stop the producer; an open transaction is given up."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None


async def prepare(stores: Sequence[KafkaStore]) -> None:
    """Load many stores of one city at once: their partitions are read by one consumer.

    A worker that opened each by itself would have three clients for every stage and
    partition to connect at the same time. Raises BrokerError.
    """
    if not stores:
        return
    few = asyncio.Semaphore(AT_ONCE)

    async def fence(store: KafkaStore) -> None:
        async with few:
            await store.fence()

    await asyncio.gather(*map(fence, stores))
    first = stores[0]
    found = await _read(first.settings, first.topic, {store.partition for store in stores})
    for store in stores:
        store.give(found[store.partition])


async def _read(
    settings: KafkaSettings, topic: str, partitions: Collection[int]
) -> dict[int, dict[str, bytes]]:
    """The last value of every key of these partitions."""
    places = [TopicPartition(topic, partition) for partition in sorted(partitions)]
    arguments = consumer_arguments(settings)
    # The end that counts is the log's own: with read_committed it would be where another
    # stage's open transaction begins, which may lie before our last snapshot.
    probe = AIOKafkaConsumer(**arguments | {"isolation_level": "read_uncommitted"})
    reader = AIOKafkaConsumer(**arguments)
    found: dict[int, dict[str, bytes]] = {place.partition: {} for place in places}
    try:
        await started(probe, settings)
        await started(reader, settings)
        ends = await probe.end_offsets(places)
        reader.assign(places)
        await reader.seek_to_beginning(*places)
        while waiting := [p for p in places if await reader.position(p) < ends[p]]:
            for place, records in (await reader.getmany(*waiting, timeout_ms=200)).items():
                values = found[place.partition]
                for record in records:
                    values[(record.key or b"").decode()] = record.value or b""
    finally:
        await probe.stop()
        await reader.stop()
    return found
