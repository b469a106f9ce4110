"""The edge agent while Kafka goes away and comes back, and while the agent itself is killed."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.edge.tokens import Tokens
from citybrain.topics import ensure
from tests.stream import edge_rig as rig

pytestmark = pytest.mark.stream


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker of this file's own, to be killed."""
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture
async def city(broker: LocalBroker, city_id: str, tmp_path: Path) -> City:
    made = rig.make_city(tmp_path / "pack", city_id)
    await ensure(broker.settings, made.id, made.partitions)
    return made


@pytest.fixture
def city_id() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


class Device:
    """Sends one array after the other until it is told to stop; keeps what got a yes."""

    def __init__(self, gateway: str, sensors: list[str], kind: str) -> None:
        self.gateway, self.sensors, self.kind = gateway, sensors, kind
        self.yes: dict[rig.Series, float] = {}
        self.tried: set[rig.Series] = set()

    async def run(self, web: httpx.AsyncClient, stop: asyncio.Event) -> None:
        time, n = wall_clock() - 600_000, 0
        while not stop.is_set():
            rows = []
            for _ in range(50):
                time += 1
                n += 1
                rows += [
                    {"sensor": s, "kind": self.kind, "time": time, "value": float(n % 50)}
                    for s in self.sensors
                ]
            keys = [(r["sensor"], r["kind"], r["time"]) for r in rows]
            self.tried |= set(keys)
            while not stop.is_set():
                try:
                    answer = await web.post("/readings", json=rows)
                except httpx.HTTPError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code == 202:
                    got = answer.json()
                    assert got["accepted"] + got["duplicate"] == len(rows)
                    for key, row in zip(keys, rows, strict=True):
                        self.yes[key] = row["value"]
                    break
                assert answer.status_code == 429
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.02)


def devices() -> list[Device]:
    return [
        Device("g1", ["d1", "d2", "d3"], "vehicle_count"),
        Device("g2", ["d4"], "occupancy"),
        Device("g3", ["w1", "w2"], "temperature"),
    ]


async def test_a_broker_that_is_away_costs_nothing(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    senders = devices()
    stop = asyncio.Event()
    me = psutil.Process()
    async with rig.agent(city, tmp_path, broker.settings) as made:
        clients = [rig.client(made, tmp_path, d.gateway) for d in senders]
        work = [asyncio.create_task(d.run(c, stop)) for d, c in zip(senders, clients, strict=True)]
        await rig.until(lambda: made.sender.sent_ms > 0)
        await asyncio.to_thread(broker.kill)
        before = me.memory_info().rss
        await rig.until(lambda: bool(made.sender.failure) or made.sender.backlog > 20_000)
        await asyncio.sleep(10)
        assert made.sender.backlog > 0
        assert me.memory_info().rss - before < 60 << 20
        await asyncio.to_thread(broker.start_node)
        await asyncio.sleep(3)
        stop.set()
        await asyncio.gather(*work)
        await asyncio.gather(*(c.aclose() for c in clients))
        await rig.until(lambda: made.sender.backlog == 0, 120)
        assert made.health().ok
    found = rig.values(await rig.readings_log(broker.settings, city))
    want: dict[rig.Series, float] = {}
    for device in senders:
        want |= device.yes
    assert found == {key: [value] for key, value in want.items()}
    totals = await rig.accounts(broker.settings, city)
    assert totals["sent"] == len(want)
    assert totals["produced"] == len(want) + totals["duplicate"]


async def test_stopping_while_kafka_hesitates_skips_nothing(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    now = wall_clock()

    def rows(first: int) -> list[dict[str, Any]]:
        return [
            {"sensor": "d1", "kind": "vehicle_count", "time": now - i, "value": 1}
            for i in range(first, first + 100)
        ]

    async with (
        rig.agent(city, tmp_path, broker.settings) as made,
        rig.client(made, tmp_path, "g1") as web,
    ):
        await web.post("/readings", json=rows(0))
        await rig.until(lambda: made.sender.backlog == 0 and made.sender.sent_ms > 0)
        os.kill(broker.pid(), signal.SIGSTOP)
        try:
            for part in range(1, 5):
                await web.post("/readings", json=rows(100 * part))
            await rig.until(lambda: made.spool.taken > made.spool.acknowledged)
        finally:
            asyncio.get_running_loop().call_later(1, os.kill, broker.pid(), signal.SIGCONT)
    found = rig.values(await rig.readings_log(broker.settings, city))
    assert len(found) == 500
    assert (await rig.accounts(broker.settings, city))["sent"] == 500


SERVER = """
import asyncio, sys
from tests.faults import test_edge_broker as t
asyncio.run(t.serve(*sys.argv[1:]))
"""


async def serve(folder: str, city_id: str, bootstrap: str, port: str) -> None:
    """An agent in a process of its own that never stops by itself."""
    from citybrain.kafka import KafkaSettings
    from citybrain.pack import load

    data = Path(folder)
    table: dict[str, Any] = {"sources": {"http": {"port": int(port)}}}
    city = load(str(data / "pack"))
    assert city.id == city_id
    async with rig.agent(city, data, KafkaSettings(bootstrap), **table) as made:
        print(made.sources["http"].health().facts["http_port"], flush=True)
        await asyncio.Event().wait()


async def test_an_agent_that_is_killed_while_it_sends_counts_everything_once(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    senders = devices()
    stop = asyncio.Event()
    port, work, clients = "0", [], []
    for life in range(4):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVER, str(tmp_path), city.id, broker.settings.bootstrap, port,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        while not (line := (await process.stdout.readline()).decode()).strip().isdigit():
            assert line, "the agent did not start"
        port = line.strip()
        if life == 0:
            for device in senders:
                token = Tokens(tmp_path).add(device.gateway, "", wall_clock())
                web = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60,
                                        headers={"Authorization": f"Bearer {token}"})  # fmt: skip
                clients.append(web)
                work.append(asyncio.create_task(device.run(web, stop)))
        had = sum(len(d.yes) for d in senders)
        await rig.until(lambda had=had: sum(len(d.yes) for d in senders) > had + 1000)
        await asyncio.sleep(0.4 * life)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    stop.set()
    await asyncio.gather(*work)
    await asyncio.gather(*(c.aclose() for c in clients))
    async with rig.agent(city, tmp_path, broker.settings) as made:
        await rig.until(lambda: made.sender.backlog == 0 and made.sender.sent_ms > 0)
    found = rig.values(await rig.readings_log(broker.settings, city))
    twice = {key: values for key, values in found.items() if len(values) > 1}
    assert not twice
    want: dict[rig.Series, float] = {}
    tried: set[rig.Series] = set()
    for device in senders:
        want |= device.yes
        tried |= device.tried
    assert {key: found.get(key) for key in want} == {key: [v] for key, v in want.items()}
    assert set(found) <= tried
    totals = await rig.accounts(broker.settings, city)
    assert totals["sent"] == len(found)
    assert totals["spooled"] == 0
    assert totals["produced"] == totals["sent"] + totals["duplicate"]


async def test_a_command_line_agent_stops_cleanly_and_leaves_no_run_file(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    (tmp_path / "edge.toml").write_text('name = "north"\n[sources.http]\nport = 0\n')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "citybrain", "edge", "run", str(tmp_path / "edge.toml"),
        "--city", str(tmp_path / "pack"), "--data", str(tmp_path / "data"),
        "--broker", broker.settings.bootstrap,
    )  # fmt: skip
    run = tmp_path / "data" / "run" / "edge-north.json"
    async with asyncio.timeout(60):
        while not run.exists():  # another process's file has no event
            await asyncio.sleep(0.1)
        port = msgspec.json.decode(run.read_bytes())["port"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
            while (await web.get("/health")).status_code != 200:  # as above
                await asyncio.sleep(0.1)
            assert "citybrain_edge_spool_bytes" in (await web.get("/metrics")).text
        process.terminate()
        assert await process.wait() == 0
    assert not run.exists()
