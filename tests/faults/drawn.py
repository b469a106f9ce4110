"""The faults of a machine room: one function each, and one line in `FAULTS`.

A fault does its harm, waits as long as it says, and puts things right again; how long the
engine then takes to be up to date is measured by the campaign.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.faults.cluster import Cluster, Kept
from tests.faults.load import Load

HOUR_MS = 3_600_000
SESSION_S = 10
"""Broker's session time-out of a worker: one that is frozen for longer loses its shards."""

Fault = Callable[[Cluster, Load, random.Random], Awaitable[str]]
"""Does it; says to whom it was done."""


async def kill_worker(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """SIGKILL; its supervisor starts it again."""
    worker = _one(cluster.workers, rng)
    await worker.kill()
    return worker.name


async def kill_agent(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """SIGKILL of an edge agent between a device's request and Kafka's answer."""
    agent = _one(cluster.agents, rng)
    await agent.kill()
    return agent.name


async def kill_historian(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """SIGKILL of the historian, whose files must neither miss nor repeat a row."""
    await cluster.others["historian"].kill()
    return "historian"


async def kill_broker(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """SIGKILL of a Kafka node, which is away for some seconds."""
    node = rng.choice((1, 2, 3))
    await asyncio.to_thread(cluster.broker.kill, node)
    await asyncio.sleep(rng.uniform(1, 8))
    await asyncio.to_thread(cluster.broker.start_node, node)
    return f"kafka-{node}"


async def freeze_worker(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """A worker stands still beyond its session, and goes on as if it still owned its shards."""
    worker = _one(cluster.workers, rng)
    worker.freeze()
    try:
        await asyncio.sleep(SESSION_S + rng.uniform(2, 6))
    finally:
        worker.wake()
    return worker.name


async def cut_network(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """Nothing passes between agents and Kafka, and nobody is told."""
    cluster.proxies.line.cut_off()
    try:
        await asyncio.sleep(rng.uniform(2, 10))
    finally:
        cluster.proxies.line.well()
    return "agents - kafka"


async def slow_network(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """Every 16 kB take some tenths of a second."""
    cluster.proxies.line.delay_s = rng.uniform(0.1, 0.5)
    try:
        await asyncio.sleep(rng.uniform(3, 8))
    finally:
        cluster.proxies.line.well()
    return "agents - kafka"


async def reset_network(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """Connections are reset in the middle of requests, several times."""
    cluster.proxies.line.reset = rng.randint(1, 8)
    try:
        for _ in range(50):
            if not cluster.proxies.line.reset:
                break
            await asyncio.sleep(0.1)
    finally:
        cluster.proxies.line.well()
    return "agents - kafka"


async def change_workers(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """One worker is added, another stops for good."""
    leaver = _one(cluster.workers, rng)
    joiner = await cluster.add_worker()
    await asyncio.sleep(rng.uniform(0, 5))
    del cluster.workers[leaver.name]
    await leaver.stop()
    return f"+{joiner.name} -{leaver.name}"


async def restart_workers(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """All workers are replaced, one after the other, as an upgrade does it."""
    for worker in list(cluster.workers.values()):
        await worker.stop()
        await worker.start()
    return ", ".join(cluster.workers)


async def fill_disk(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """The agent's disk takes no byte more for a while."""
    agent = _one(cluster.agents, rng)
    agent.limit_files(0)
    try:
        await asyncio.sleep(rng.uniform(1, 5))
    finally:
        agent.limit_files(-1)
    return agent.name


async def skew_worker(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """A worker's clock is an hour off for some seconds."""
    worker = _one(cluster.workers, rng)
    skew = rng.choice((-HOUR_MS, HOUR_MS))
    await _skewed(worker, skew, rng.uniform(8, 20))
    return f"{worker.name} {skew // HOUR_MS:+d} h"


async def skew_agent(cluster: Cluster, load: Load, rng: random.Random) -> str:
    """An agent's clock is an hour off for some seconds."""
    agent = _one(cluster.agents, rng)
    skew = rng.choice((-HOUR_MS, HOUR_MS))
    devices = [d for d in load.devices if f"edge-{d.gateway[0]}" == agent.name]
    for device in devices:
        device.ahead = skew > 0
    await _skewed(agent, skew, rng.uniform(5, 10))
    for device in devices:
        device.ahead = False
    return f"{agent.name} {skew // HOUR_MS:+d} h"


async def _skewed(process: Kept, skew_ms: int, seconds: float) -> None:
    await process.stop()
    process.skew_ms = skew_ms
    await process.start()
    await asyncio.sleep(seconds)
    await process.stop()
    process.skew_ms = 0
    await process.start()


def _one(kept: dict[str, Kept], rng: random.Random) -> Kept:
    """One of them that runs at this moment, if any does."""
    living = [name for name, one in kept.items() if one.living]
    return kept[rng.choice(sorted(living or kept))]


FAULTS: dict[str, Fault] = {
    "SIGKILL of a worker": kill_worker,
    "SIGKILL of an agent": kill_agent,
    "SIGKILL of a Kafka node": kill_broker,
    "SIGKILL of the historian": kill_historian,
    "worker frozen, then woken": freeze_worker,
    "network cut": cut_network,
    "network slow": slow_network,
    "resets within requests": reset_network,
    "worker added, one removed": change_workers,
    "workers replaced one by one": restart_workers,
    "disk of an agent full": fill_disk,
    "clock of a worker off": skew_worker,
    "clock of an agent off": skew_agent,
}
EVERYDAY = (
    "SIGKILL of a worker",
    "SIGKILL of an agent",
    "SIGKILL of a Kafka node",
    "worker frozen, then woken",
    "resets within requests",
)
