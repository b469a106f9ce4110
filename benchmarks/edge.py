"""The edge agent: readings a second per core of its own process, through to Kafka.

An agent as `citybrain edge run` starts it, on a real broker; clients speak HTTP or MQTT to it
over real sockets. The clients' own cost is not in the figure: it counts the CPU seconds of
the agent alone, until the last reading has reached Kafka.
"""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiomqtt
import psutil
import pyarrow as pa

from benchmarks.frame import Row, Size, of
from citybrain.broker import LocalBroker
from citybrain.clock import wall_clock
from citybrain.edge.forms import ARROW, JSON
from citybrain.edge.tokens import Tokens
from citybrain.pack import load
from citybrain.topics import ensure

SENSORS = 1_000

Send = Callable[[list[bytes], int], Awaitable[None]]


def doors(size: Size) -> list[Row]:
    """Arrays of 1,000, one reading a request, Arrow of 20,000, one reading an MQTT message."""
    scale = 10 if size == "full" else 1
    with tempfile.TemporaryDirectory() as folder, LocalBroker(Path(folder) / "kafka") as broker:
        data = Path(folder)
        city = load(str(_pack(data / "pack")))
        asyncio.run(ensure(broker.settings, city.id, city.partitions))
        token = Tokens(data).add("g", "", wall_clock())
        with _mosquitto(data) as mqtt, _agent(data, broker.settings.bootstrap, mqtt) as agent:
            process, http = agent
            now = wall_clock()
            plans: list[tuple[str, float | None, int, int, list[bytes], Send]] = [
                ("edge: JSON arrays of 1,000", 150_000, 1_000, 8, _arrays(now, 100 * scale),
                 _http(http, token, JSON)),
                ("edge: one JSON reading a request", 5_000, 1, 100,
                 _ones(now, 3_000 * scale, 10**6), _http(http, token, JSON)),
                ("edge: Arrow of 20,000", None, 20_000, 2, _arrow(now, 20 * scale),
                 _http(http, token, ARROW)),
            ]  # fmt: skip
            if mqtt:
                bodies = _ones(now, 6_000 * scale, 2 * 10**6)
                name = "edge: one JSON reading an MQTT message"
                plans.append((name, 15_000, 1, 1, bodies, _mqtt(mqtt)))
            return [_measure(*plan, process, data) for plan in plans]


def _measure(
    name: str, goal: float | None, each: int, clients: int, bodies: list[bytes], send: Send,
    process: psutil.Process, data: Path,
) -> Row:  # fmt: skip
    warm, rest = bodies[: len(bodies) // 4], bodies[len(bodies) // 4 :]
    asyncio.run(send(warm, clients))
    _sent(data)
    figures = []
    third = len(rest) // 3
    for part in range(3):
        mine = rest[part * third : (part + 1) * third]
        cpu = process.cpu_times()
        asyncio.run(send(mine, clients))
        _sent(data)
        after = process.cpu_times()
        figures.append(len(mine) * each / (after.user + after.system - cpu.user - cpu.system))
    facts: dict[str, float | int | str] = {"clients": clients, "sensors": SENSORS}
    facts |= {"resident_mb": round(process.memory_info().rss / 2**20)}
    return Row(name, "readings/s per core", of(figures), facts, goal)


def _sent(data: Path) -> None:
    """Wait until the agent has nothing left to send."""
    run = json.loads((data / "run" / "edge-bench.json").read_text())
    time.sleep(0.3)
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{run['port']}/health") as answer:
            if json.load(answer)["facts"]["backlog_readings"] == 0:
                return
        time.sleep(0.1)


def _arrays(now: int, count: int) -> list[bytes]:
    return [
        json.dumps([
            {"sensor": f"d{i}", "kind": "vehicle_count", "time": now - 100 * k, "value": i % 100}
            for i in range(SENSORS)
        ]).encode() for k in range(count)
    ]  # fmt: skip


def _ones(now: int, count: int, before: int) -> list[bytes]:
    return [
        json.dumps({"sensor": f"d{i % SENSORS}", "kind": "vehicle_speed",
                    "time": now - before - i, "value": 33.3, "unit": "km/h"}).encode()
        for i in range(count)
    ]  # fmt: skip


def _arrow(now: int, count: int) -> list[bytes]:
    bodies = []
    for k in range(count):
        sink = pa.BufferOutputStream()
        n = 20_000
        table = pa.table({
            "sensor": pa.array([f"d{i % SENSORS}" for i in range(n)]).dictionary_encode(),
            "kind": pa.array(["occupancy"] * n).dictionary_encode(),
            "time": pa.array([now - 20_000 * k - i for i in range(n)]),
            "value": pa.array([float(i % 100) for i in range(n)]),
        })  # fmt: skip
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        bodies.append(bytes(sink.getvalue()))
    return bodies


def _http(port: int, token: str, form: str) -> Send:
    head = (
        f"POST /readings HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {form}\r\nContent-Length: "
    ).encode()

    async def one(bodies: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in bodies:
            writer.write(head + b"%d\r\n\r\n" % len(body) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 202 " not in answer.partition(b"\r\n")[0]:
                raise RuntimeError(answer.decode())
            length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
        writer.close()

    async def send(bodies: list[bytes], clients: int) -> None:
        await asyncio.gather(*(one(bodies[i::clients]) for i in range(clients)))

    return send


def _mqtt(port: int) -> Send:
    async def send(bodies: list[bytes], _: int) -> None:
        async with aiomqtt.Client("127.0.0.1", port, max_inflight_messages=500) as device:
            device.pending_calls_threshold = len(bodies)
            await asyncio.gather(*(device.publish("citybrain/g/readings", b, qos=1, timeout=60)
                                   for b in bodies))  # fmt: skip

    return send


def _pack(folder: Path) -> Path:
    folder.mkdir()
    (folder / "city.toml").write_text(
        'id = "bench"\ntime_zone = "UTC"\npartitions = 1\n[name]\nzh = "b"\nen = "b"\n'
        '[zones.z]\nzh = "z"\nen = "z"\n[shards]\nz = 0\n'
    )
    kinds = "vehicle_count;vehicle_speed;occupancy"
    rows = [f"d{i},{kinds},z,z,g,116.4,39.9,," for i in range(SENSORS)]
    head = "sensor,kinds,zone,shard,gateway,lon,lat,link,name"
    (folder / "sensors.csv").write_text("\n".join([head, *rows]))
    (folder / "roads.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (folder / "rules.toml").write_text("")
    (folder / "calendar.toml").write_text("")
    return folder


@contextmanager
def _agent(data: Path, broker: str, mqtt: int) -> Iterator[tuple[psutil.Process, int]]:
    port = _free_port()
    lines = ['name = "bench"', "[sources.http]", f"port = {port}", "max_connections = 5000"]
    lines += ["[sources.mqtt]", f"port = {mqtt}"] if mqtt else []
    (data / "edge.toml").write_text("\n".join(lines))
    words = ["edge", "run", str(data / "edge.toml"), "--city", str(data / "pack")]
    child = subprocess.Popen(
        [sys.executable, "-m", "citybrain", *words, "--data", str(data), "--broker", broker],
        stderr=subprocess.DEVNULL,
    )
    try:
        _answers(port)
        yield psutil.Process(child.pid), port
    finally:
        child.terminate()
        child.wait(30)


@contextmanager
def _mosquitto(data: Path) -> Iterator[int]:
    """Its port; 0 where Mosquitto is not installed (then that row is left out)."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/bin")
    if not program:
        print("mosquitto is not installed: no MQTT row", file=sys.stderr)
        yield 0
        return
    port = _free_port()
    config = data / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    child = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        _answers(port)
        yield port
    finally:
        child.terminate()
        child.wait(30)


def _answers(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
