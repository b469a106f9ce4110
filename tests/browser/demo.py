"""A city of made-up messages on a broker of its own, to look at the page while working on it.

    python -m tests.browser.demo DATA [PORT]

Goes on until Ctrl-C.
"""

import asyncio
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from aiokafka import AIOKafkaProducer

from citybrain import pack
from citybrain.broker import LocalBroker
from citybrain.kafka import producer_arguments
from citybrain.stage import Out
from citybrain.topics import ensure, full_name
from tests.browser import messages


async def send(producer: AIOKafkaProducer, city: str, outs: Iterable[Out]) -> None:
    """Send records; all are acknowledged when this returns."""
    waiting = [
        await producer.send(
            full_name(city, out.topic), out.value, key=out.key, partition=out.partition
        )
        for out in outs
    ]
    await asyncio.gather(*waiting)


async def main(data: Path, port: str) -> None:
    """Past hours at once, then a window whenever one closes."""
    city = pack.load("adlershof")
    with LocalBroker(data / "kafka") as broker:
        await ensure(broker.settings, city.id, city.partitions)
        command = ["centre", "--data", str(data), "--port", port]
        command += ["--broker", broker.settings.bootstrap]
        centre = await asyncio.create_subprocess_exec(sys.executable, "-m", "citybrain", *command)
        try:
            async with AIOKafkaProducer(**producer_arguments(broker.settings)) as producer:
                now = int(time.time() * 1000)
                await send(producer, city.id, messages.hours(city, now))
                await send(producer, city.id, messages.some_alerts(city, now))
                counted = 402_000
                while True:
                    await asyncio.sleep(10)
                    now = int(time.time() * 1000) // 10_000 * 10_000
                    counted += 1_100
                    for shard in city.shards:
                        await send(producer, city.id, [messages.account(shard, now, counted)])
                        await send(producer, city.id, messages.closing(city, shard, now))
                    if now % 60_000 == 0:
                        await send(producer, city.id, messages.roads(city, now))
        finally:
            centre.terminate()
            await centre.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), (sys.argv[2:] or ["8610"])[0]))
