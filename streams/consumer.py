"""Faust's consumer as the worker needs it: it reads from where the shells' states end, commits
only what they acknowledge, and hands out a whole fetch of a partition at a time.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

FETCH_WAIT_MS = 50


class Places(Protocol):
    """Who knows where to read from."""

    async def offsets(self, places: set[TP]) -> dict[TP, int]:
        """Where to read each of these partitions from, once that is known."""


class Thread(driver.AIOKafkaConsumerThread):
    """Where aiokafka's consumer lives: fetches, heartbeats and seeks are in a loop of its own."""

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust offers this with its exactly_once only; what others write in transactions
        # (models, retried dead letters) must not be seen before it is committed.
        consumer._isolation_level = "read_committed"
        # A request for quiet partitions holds up one for those of the same node that were busy.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> dict[TP, list[Any]]:
        """All records of a partition that came together, as one item."""
        fetched = await super()._fetch_records(*args, **kwargs)
        return {place: [records] for place, records in fetched.items() if records}

    async def seek_all(self, offsets: Mapping[TP, int]) -> None:
        """Go to these offsets, in the consumer's own thread.

        Faust's own `seek` works on the fetched records from the caller's thread, while the
        consumer's thread goes through them: seen as a KeyError in a rebalance.
        """
        await self.call_thread(self._seek_all, self._ensure_consumer(), offsets)

    async def _seek_all(self, consumer: AIOKafkaConsumer, offsets: Mapping[TP, int]) -> None:
        for place, offset in offsets.items():
            consumer.seek(place, offset)


class Consumer(driver.Consumer):
    """Reads from where the shells' states end; commits only what they acknowledge."""

    worker: Places
    _thread: Thread

    def _new_consumer_thread(self) -> Thread:
        return Thread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        last = record[-1]
        return ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, None,
            None, record, None, 0, 0, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def behind(self, place: TP, taken: int, end: int) -> int:
        """How many offsets wait, 0 if all that is left are marks of transactions."""
        if taken >= end:
            return 0
        try:
            position = await self.position(place)
        except IllegalStateError:
            return end - taken  # it is being handed over
        fetched = self._read_offset[place]
        done = position is not None and position >= end and (fetched is None or fetched <= taken)
        return 0 if done else end - taken

    def resume_partitions(self, tps: Any) -> None:
        """Nothing: Faust resumes partitions before it has sought their places, and would hand
        out records that no shell waits for yet. `seek_to_committed` resumes them."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        offsets = await self.worker.offsets(self.assignment())
        await self._thread.seek_all(offsets)
        super().resume_partitions(offsets)
        return offsets

    async def force_commit(self, *args: Any, **kwargs: Any) -> bool:
        return False

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: Faust would sleep a second once all partitions are full; a full buffer makes
        it wait by itself, just as long as it has to."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Progress is judged by `WorkerMetrics.health`."""

    async def acknowledge(self, place: TP, offset: int) -> None:
        """Commit that everything below `offset` is done with."""
        await self._commit({place: offset})


class Quiet(faust.Monitor):
    """Keeps no statistics of messages: they cost time at each one, and ours are others."""

    def on_message_in(self, *args: Any) -> None: ...

    def on_message_out(self, *args: Any) -> None: ...

    def on_stream_event_in(self, *args: Any) -> None: ...

    def on_stream_event_out(self, *args: Any) -> None: ...
