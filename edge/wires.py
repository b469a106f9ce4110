"""Records on their way to one partition of Kafka, and how to let go of a producer."""

import asyncio

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from citybrain import log

Wire = tuple[str, int, bytes, bytes, int]
"""(topic, partition, key, value, readings): one record."""


async def send_lane(
    producer: AIOKafkaProducer, topic: str, partition: int, lane: list[Wire]
) -> None:
    """Send one partition's records in order; what Kafka has acknowledged leaves `lane`.

    Raises KafkaError, and what was not acknowledged is still there.
    """
    while lane:
        batch = producer.create_batch()
        taken = 0
        for _, _, key, value, readings in lane:
            headers = [("n", b"%d" % readings)]
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                break
            taken += 1
        batch.close()
        future = await producer.send_batch(batch, topic, partition=partition)
        # A producer that is given up fails what nobody waits for any more.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        await future
        del lane[:taken]


async def abandon(producer: AIOKafkaProducer) -> None:
    """Stop a producer without waiting for what it could not send: the spool has it."""
    # stop() alone would flush to a broker that is away, for ever; aiokafka has no public way
    # to give up, so its sending task ends first and its connections next.
    sending = producer._sender.sender_task
    if sending is not None:
        sending.cancel()
    try:
        await producer.client.close()
        await asyncio.wait_for(producer.stop(), 5)
    except (TimeoutError, KafkaError, OSError) as error:
        log.get("edge.sender").debug("producer closed", why=str(error))
