"""The snapshot store on Kafka: one compacted topic, one transactional id a stage and partition.

The id is the fence: whoever loads opens a producer with it, and the broker refuses every
older one from then on. A transaction is all or nothing, so the latest value of each key is
always one whole snapshot; the manifest's checksum tells when the topic itself was damaged.
"""

import asyncio
from collections.abc import Mapping, Sequence

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


class KafkaStore:
    """Snapshots of one stage and partition; see `shell.Store`."""

    def __init__(self, settings: KafkaSettings, city: str, stage: str, partition: int) -> None:
        self._settings, self._city, self._partition = settings, city, partition
        self._topic = full_name(city, "snapshots")
        self._prefix = f"{stage}/{partition}/"
        self._id = f"citybrain.{city}.{stage}.{partition}"
        self._producer: AIOKafkaProducer | None = None

    async def load(self) -> tuple[Manifest | None, Mapping[str, bytes]]:
        """Shut out earlier owners, then read. Raises BrokerError."""
        arguments = producer_arguments(self._settings, transactional_id=self._id)
        arguments |= {"transaction_timeout_ms": TRANSACTION_MS, "request_timeout_ms": AWAY_MS}
        self._producer = await started(AIOKafkaProducer(**arguments), self._settings)
        blocks = await self._read()
        raw = blocks.pop(MANIFEST, None)
        return (msgspec.json.decode(raw, type=Manifest) if raw else None), blocks

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
                self._topic, value or None, f"{self._prefix}{name}".encode(), self._partition
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

    async def close(self) -> None:
        """Stop the producer; an open transaction is given up."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def _read(self) -> dict[str, bytes]:
        place = TopicPartition(self._topic, self._partition)
        arguments = consumer_arguments(self._settings)
        # The end that counts is the log's own: with read_committed it would be where another
        # stage's open transaction begins, which may lie before our last snapshot.
        probe = AIOKafkaConsumer(**arguments | {"isolation_level": "read_uncommitted"})
        reader = AIOKafkaConsumer(**arguments)
        found: dict[str, bytes] = {}
        try:
            await started(probe, self._settings)
            await started(reader, self._settings)
            end = (await probe.end_offsets([place]))[place]
            reader.assign([place])
            await reader.seek_to_beginning(place)
            while await reader.position(place) < end:
                for records in (await reader.getmany(timeout_ms=200)).values():
                    for record in records:
                        name = (record.key or b"").decode()
                        if not name.startswith(self._prefix):
                            continue
                        name = name.removeprefix(self._prefix)
                        if record.value:
                            found[name] = record.value
                        else:
                            found.pop(name, None)
        finally:
            await probe.stop()
            await reader.stop()
        return found
