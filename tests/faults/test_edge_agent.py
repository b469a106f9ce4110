"""The agent while Kafka is away: devices are answered, nothing that got a yes is lost."""

import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest

from citybrain.batch import Batch, decode
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.columns import Rosters
from citybrain.edge import frames, journal
from citybrain.edge.agent import Agent
from citybrain.edge.journal import Message
from citybrain.edge.registry import SOURCES
from citybrain.edge.spool import Spool
from citybrain.edge.tokens import Tokens
from citybrain.errors import SetupError, UsageError
from citybrain.kafka import KafkaSettings
from citybrain.pack import load
from tests.packs import write_pack
from tests.stream import edge_rig as rig

AWAY = KafkaSettings("127.0.0.1:1")
Rows = list[dict[str, Any]]


@pytest.fixture
def city(tmp_path: Path) -> City:
    return load(str(write_pack(tmp_path / "pack")))


@pytest.fixture
async def made(city: City, tmp_path: Path) -> AsyncIterator[Agent]:
    async with rig.agent(city, tmp_path, AWAY) as agent:
        yield agent


NOW = wall_clock() // 1000 * 1000


def counts(n: int, sensor: str = "d1", start: int = 0, **more: Any) -> Rows:
    """Readings of the last n seconds (before the last `start`) of this module's life."""
    return [
        {"sensor": sensor, "kind": "vehicle_count", "time": NOW - 1000 * i, "value": i % 100} | more
        for i in range(start, start + n)
    ]


def stored(data: Path, name: str = "edge") -> list[Message]:
    """Messages in a closed agent's spool."""
    found: list[Message] = []

    def visit(entry: Any, _: int) -> None:
        payload = journal.decode(entry.payload)
        if isinstance(payload, Message):
            found.append(payload)

    Spool(data / "edge" / name / "spool", 1 << 30, visit).close()
    return found


def readings(messages: list[Message]) -> list[tuple[str, str, int, float]]:
    rosters, found = Rosters(), []
    for message in messages:
        if message.seq >= 0:
            item = decode(message.value, rosters)
            assert isinstance(item, Batch)
            found += [
                (item.roster.names[c], item.head.kind, int(t), float(v))
                for c, t, v in zip(item.codes, item.time_ms, item.value, strict=True)
            ]
    return found


async def test_one_reading_an_array_and_lines_are_taken(made: Agent, tmp_path: Path) -> None:
    async with rig.client(made, tmp_path, "g1") as web:
        one = await web.post("/readings", json=counts(1)[0])
        assert (one.status_code, one.json()["accepted"]) == (202, 1)
        lines = "\n".join(json.dumps(row) for row in counts(3, "d2"))
        many = await web.post(
            "/readings", content=lines, headers={"content-type": "application/x-ndjson"}
        )
        assert (many.status_code, many.json()["accepted"]) == (202, 3)
        health = await web.get("/health")
        assert "broker" in health.json()["waiting"] or health.status_code == 200


async def test_the_answer_says_what_became_of_each_reading(made: Agent, tmp_path: Path) -> None:
    rows = counts(3)
    async with rig.client(made, tmp_path, "g1") as web:
        await web.post("/readings", json=rows[:1])
        mixed = [rows[0], rows[0] | {"value": 55}, rows[1], rows[1], rows[2] | {"unit": "km"}]
        answer = await web.post("/readings", json=mixed)
    assert answer.status_code == 202
    assert answer.json() == {
        "accepted": 1,
        "duplicate": 2,
        "refused": 2,
        "refusals": [
            {"index": 1, "reason": "conflict", "message":
             "value: 55.0, but another value was accepted for that time"},
            {"index": 4, "reason": "unit", "message": "unit: 'km', expected '{vehicles}'"},
        ],
    }  # fmt: skip


async def test_a_request_that_is_refused_altogether_says_so_by_its_status(
    made: Agent, tmp_path: Path
) -> None:
    async with rig.client(made, tmp_path, "g1") as web:
        bad = await web.post("/readings", json=counts(1, value=-1))
        assert (bad.status_code, bad.json()["refusals"][0]["reason"]) == (422, "range")
        broken = await web.post("/readings", content=b'{"sensor": NaN}')
        assert (broken.status_code, broken.json()["error"]) == (400, "json")
        lane = await web.post("/readings?lane=slow", json=counts(1))
        assert (lane.status_code, lane.json()["error"]) == (400, "lane")
        form = await web.post("/readings", content=b"a", headers={"content-type": "text/csv"})
        assert form.status_code == 415


async def test_a_wrong_token_a_foreign_sensor_and_no_token_are_turned_away(
    made: Agent, tmp_path: Path
) -> None:
    async with rig.client(made, tmp_path, "g1") as web:
        for header in ("Bearer cb_x_y", "Bearer x", "Basic abc", ""):
            answer = await web.post("/readings", json=counts(1), headers={"authorization": header})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        good = web.headers["authorization"]
        wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
        answer = await web.post("/readings", json=counts(1), headers={"authorization": wrong})
        assert answer.status_code == 401
        foreign = await web.post("/readings", json=counts(1, "d4"))
        assert foreign.json()["refusals"][0]["reason"] == "gateway"
        Tokens(tmp_path).revoke("g1")
        assert (await web.post("/readings", json=counts(1))).status_code == 401
    async with rig.client(made, tmp_path, "g1", "d1") as device:
        assert (await device.post("/readings", json=counts(1))).status_code == 202
        other = await device.post("/readings", json=counts(1, "d2"))
        assert other.json()["refusals"][0]["reason"] == "gateway"
    async with rig.client(made, tmp_path, "elsewhere") as stranger:
        assert (await stranger.post("/readings", json=counts(1))).status_code == 403


async def test_a_damaged_token_file_turns_away_and_crashes_nothing(
    made: Agent, tmp_path: Path
) -> None:
    async with rig.client(made, tmp_path, "g1") as web:
        path = tmp_path / "secrets" / "tokens.json"
        whole = path.read_bytes()
        path.write_bytes(whole[:20])
        assert (await web.post("/readings", json=counts(1))).status_code == 503
        path.write_bytes(whole)
        assert (await web.post("/readings", json=counts(1))).status_code == 202


async def test_a_body_of_50_mb_is_refused_without_being_held(made: Agent, tmp_path: Path) -> None:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, made.intake.pending_bytes)
            await asyncio.sleep(0.001)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b" " * (1 << 20)

    watching = asyncio.create_task(watch())
    async with rig.client(made, tmp_path, "g1") as web:
        stated = await web.post("/readings", content=b" " * (50 << 20))
        assert (stated.status_code, stated.json()["error"]) == (413, "size")
        assert most == 0, "a stated length is refused before a byte of it is kept"
        unstated = await web.post("/readings", content=chunks())
        assert unstated.status_code == 413
        assert most < 9 << 20
        assert (await web.post("/readings", json=counts(1))).status_code == 202
    watching.cancel()
    assert made.intake.pending_bytes == 0


@pytest.mark.parametrize("endless", [b"X-More: " + b"a" * 1000, b"X: 1\r\n" * 100])
async def test_a_head_without_end_is_hung_up_on(endless: bytes, made: Agent) -> None:
    port = made.sources["http"].health().facts["http_port"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /readings HTTP/1.1\r\n")
    sent = 0
    with suppress(ConnectionError):
        while sent < 50 << 20 and not reader.at_eof():
            writer.write(endless)
            await writer.drain()
            sent += len(endless)
            await asyncio.sleep(0)
    assert sent < 50 << 20, "it would have kept all of it"
    with suppress(ConnectionError):
        assert b" 400 " in await reader.read(1000)
    writer.close()


async def test_a_flood_is_answered_with_429_and_memory_stays_bounded(
    city: City, tmp_path: Path
) -> None:
    async with (
        rig.agent(city, tmp_path, AWAY, memory_mb=1.0) as made,
        rig.client(made, tmp_path, "g1") as web,
    ):
        bodies = [
            json.dumps([
                {"sensor": "d1", "kind": "vehicle_count", "time": NOW - 3000 * i - j,
                 "value": 1} for j in range(3000)
            ]) for i in range(40)
        ]  # fmt: skip
        waiting = list(bodies)
        refused = 0
        while waiting:
            answers = await asyncio.gather(*(web.post("/readings", content=b) for b in waiting))
            refused += sum(a.status_code == 429 for a in answers)
            assert {a.status_code for a in answers} <= {202, 429}
            assert all(a.headers["retry-after"] == "5" for a in answers if a.status_code == 429)
            waiting = [b for b, a in zip(waiting, answers, strict=True) if a.status_code != 202]
            assert len(waiting) < 40 or refused == 0
        assert refused > 0
    assert len(set(readings(stored(tmp_path)))) == 40 * 3000


@pytest.mark.parametrize("overflow", ["drop-oldest", "refuse-newest"])
async def test_a_full_spool_keeps_to_its_policy_and_counts_what_it_cost(
    overflow: str, city: City, tmp_path: Path
) -> None:
    table = {"spool": {"max_mb": 1, "overflow": overflow}}
    accepted = 0
    async with (
        rig.agent(city, tmp_path, AWAY, **table) as made,
        rig.client(made, tmp_path, "g1") as web,
    ):
        for i in range(60):
            answer = await web.post("/readings", json=counts(2000, start=2000 * i))
            if answer.status_code == 429:
                assert overflow == "refuse-newest"
                assert int(answer.headers["retry-after"]) > 0
                break
            accepted += answer.json()["accepted"]
        else:
            assert overflow == "drop-oldest"
        totals = made.ledger.books((made.ledger.incarnation, "g1", "north")).account()
        assert made.spool.size_bytes <= (1 << 20) + 100_000
    kept = readings(stored(tmp_path))
    assert totals["produced"] == accepted == len(kept) + totals["overflowed"]
    assert totals["spooled"] == len(kept)
    assert (totals["overflowed"] > 0) == (overflow == "drop-oldest")
    oldest = min(time for _, _, time, _ in kept)
    newest = max(time for _, _, time, _ in kept)
    assert newest - oldest < 60 * 2000 * 1000
    async with rig.agent(city, tmp_path, AWAY, **table) as again:
        assert again.ledger.incarnation == made.ledger.incarnation, "a dropped part is no damage"
        books = again.ledger.books((made.ledger.incarnation, "g1", "north"))
        assert books.account() == totals


async def test_sequences_books_and_repeats_survive_a_restart(city: City, tmp_path: Path) -> None:
    rows = counts(50)
    for offered in (rows[:30], rows):
        async with (
            rig.agent(city, tmp_path, AWAY) as made,
            rig.client(made, tmp_path, "g1") as web,
        ):
            answer = (await web.post("/readings", json=offered)).json()
    assert (answer["accepted"], answer["duplicate"]) == (20, 30)
    messages = [m for m in stored(tmp_path) if m.seq >= 0]
    assert [m.seq for m in messages] == [0, 1]
    assert len({m.incarnation for m in messages}) == 1
    account = made.ledger.books(messages[0].party).account()
    assert (account["produced"], account["duplicate"], account["spooled"]) == (80, 30, 50)


async def test_damage_begins_a_new_incarnation(city: City, tmp_path: Path) -> None:
    async with rig.agent(city, tmp_path, AWAY) as made, rig.client(made, tmp_path, "g1") as web:
        await web.post("/readings", json=counts(5))
    (path,) = (tmp_path / "edge" / "edge" / "spool").glob("*.spool")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    async with rig.agent(city, tmp_path, AWAY) as again:
        assert again.ledger.incarnation != made.ledger.incarnation


async def test_readings_older_than_their_ring_take_the_backfill_lane(
    made: Agent, city: City, tmp_path: Path
) -> None:
    ring = city.kinds["vehicle_count"].ring_ms // 1000
    rows = counts(10) + counts(10, start=ring + 60)
    async with rig.client(made, tmp_path, "g1") as web:
        assert (await web.post("/readings", json=rows)).json()["accepted"] == 20
        upload = await web.post("/readings?lane=backfill", json=counts(5, "d2"))
        assert upload.json()["accepted"] == 5
    await rig.until(lambda: made.spool.next_index > 3)
    lanes = [(m.lane, m.readings) for m in _spooled(made)]
    assert sorted(lanes) == [("backfill", 5), ("backfill", 10), ("live", 10)]


def _spooled(made: Agent) -> list[Message]:
    found = []
    for path in sorted(made.spool.folder.glob("*.spool")):
        salt = (made.spool.folder / "salt").read_bytes()
        for entry in frames.scan_segment(path.read_bytes(), salt):
            assert isinstance(entry, frames.Entry)
            payload = journal.decode(entry.payload)
            if isinstance(payload, Message) and payload.seq >= 0:
                found.append(payload)
    return found


async def test_only_the_last_batch_of_a_gateway_promises_that_nothing_comes_before(
    made: Agent, tmp_path: Path
) -> None:
    async with rig.client(made, tmp_path, "g1") as web:
        for i in range(2):
            now = wall_clock()
            rows = [
                {"sensor": "d1", "kind": kind, "time": NOW - i, "value": 5}
                for kind in ("vehicle_count", "vehicle_speed")
            ]
            await web.post("/readings", json=rows)
    _, before, first, last = _spooled(made)
    # While something waits in the spool, no heartbeat moves the watermark either.
    assert first.watermark_ms == before.watermark_ms
    assert now - 5_000 <= last.watermark_ms <= wall_clock() - 5_000


def certificates(folder: Path) -> None:
    """An authority, a server 127.0.0.1 and a client g1; `stranger` is signed by nobody."""
    program = shutil.which("openssl")
    if not program:
        pytest.skip("openssl is not installed")

    def run(*words: str) -> None:
        subprocess.run([program, *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "stranger"):
        run(*new, "-x509", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    for name, common in (("server", "127.0.0.1"), ("g1", "g1"), ("g9", "g9")):
        run(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={common}")
        (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-out", f"{name}.pem", "-extfile", "san")  # fmt: skip


async def test_a_client_certificate_stands_for_a_token(city: City, tmp_path: Path) -> None:
    certificates(tmp_path)
    table = {"sources": {"http": {
        "port": 0, "cert_file": str(tmp_path / "server.pem"),
        "key_file": str(tmp_path / "server.key"), "client_ca_file": str(tmp_path / "ca.pem"),
    }}}  # fmt: skip
    async with rig.agent(city, tmp_path, AWAY, **table) as made:
        url = f"https://127.0.0.1:{made.sources['http'].health().facts['http_port']}/readings"

        async def post(name: str, token: str = "") -> int:
            context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
            if name:
                context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with httpx.AsyncClient(verify=context, headers=headers) as web:
                return (await web.post(url, json=counts(1))).status_code

        assert await post("g1") == 202
        assert await post("g9") == 403
        assert await post("") == 401
        with pytest.raises(httpx.HTTPError):
            await post("stranger")
        assert await post("", Tokens(tmp_path).add("g1", "", wall_clock())) == 202
    assert len(readings(stored(tmp_path))) == 1


SERVER = """
import asyncio, sys
from tests.faults import test_edge_agent as t
asyncio.run(t.serve(*sys.argv[1:]))
"""


async def serve(folder: str, mqtt: str = "") -> None:
    """An agent in a process of its own; says its port and never stops by itself."""
    data = Path(folder)
    sources: dict[str, Any] = {"http": {"port": 0}}
    if mqtt:
        sources["mqtt"] = {"port": int(mqtt)}
    async with rig.agent(load(str(data / "pack")), data, AWAY, sources=sources) as made:
        print(made.sources["http"].health().facts["http_port"], flush=True)
        await asyncio.Event().wait()


def test_after_kill_9_every_reading_that_got_a_yes_is_there_once(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    token = Tokens(tmp_path).add("g1", "", wall_clock())
    said_yes: set[tuple[str, int]] = set()
    for life in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        while not (line := process.stdout.readline()).strip().isdigit():
            assert line, "the agent did not start"
        url = f"http://127.0.0.1:{int(line)}/readings"
        begun = threading.Event()

        def send(device: int, url: str = url, life: int = life, begun: Any = begun) -> None:
            with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30) as web:
                for i in range(100_000):
                    row = counts(1)[0] | {"time": wall_clock() - 2000 * i - device, "value": life}
                    try:
                        again = 0
                        while web.post(url, json=row).status_code != 202:
                            again += 1
                    except httpx.HTTPError:
                        return
                    said_yes.add(("d1", row["time"]))
                    if i == 3:
                        begun.set()

        devices = [threading.Thread(target=send, args=(d,)) for d in range(8)]
        for device in devices:
            device.start()
        assert begun.wait(60)
        time.sleep(0.3 + 0.05 * life)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for device in devices:
            device.join()
    found = [(sensor, at) for sensor, _, at, _ in readings(stored(tmp_path))]
    assert len(found) == len(set(found)), "a reading is stored twice"
    assert said_yes <= set(found), "a reading that got a yes is gone"
    assert len(said_yes) > 50


async def test_mqtt_messages_survive_the_kill_of_the_agent(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    broker = rig.mosquitto(tmp_path / "mosquitto")
    port = next(broker)
    sent: set[int] = set()

    async def device() -> None:
        async with aiomqtt.Client("127.0.0.1", port) as client:
            for i in range(600):
                row = {"sensor": "w1", "kind": "temperature", "time": NOW - i, "value": 20}
                await client.publish("citybrain/g3/readings", json.dumps(row), qos=1)
                sent.add(NOW - i)
                await asyncio.sleep(0.005)

    publishing: asyncio.Task[None] | None = None
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVER, str(tmp_path), str(port), stdout=subprocess.PIPE
        )
        assert process.stdout
        while b"connected" not in (line := await process.stdout.readline()):
            assert line, "the agent did not start"
        publishing = publishing or asyncio.create_task(device())
        before = len(sent)
        await rig.until(lambda n=before, task=publishing: len(sent) > n + 100 or task.done())
        process.kill()
        await process.wait()
    assert publishing
    await publishing
    async with rig.agent(
        load(str(tmp_path / "pack")), tmp_path, AWAY, sources={"mqtt": {"port": port}}
    ) as made:
        party = (made.ledger.incarnation, "g3", "north")
        await rig.until(lambda: made.ledger.books(party).account()["spooled"] == len(sent))
    broker.close()
    found = [at for _, _, at, _ in readings(stored(tmp_path))]
    assert sorted(found) == sorted(sent), "each message exactly once"


def test_a_port_that_is_taken_is_named(city: City, tmp_path: Path) -> None:
    import socket

    async def start() -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            table = {"sources": {"http": {"port": port}}}
            async with rig.agent(city, tmp_path, AWAY, **table):
                pass

    with pytest.raises(SetupError, match=r"sources.http: port: 127.0.0.1:\d+: Address already"):
        asyncio.run(start())


def test_a_configuration_error_names_its_key(city: City, tmp_path: Path) -> None:
    async def start(**table: Any) -> None:
        async with rig.agent(city, tmp_path, AWAY, **table):
            pass

    for table, said in (
        ({"gateways": ["g9"]}, "gateways: 'g9' is not in the pack"),
        ({"sources": {}}, "sources: none"),
        ({"sources": {"telex": {}}}, "sources.telex: not a source; known are"),
        ({"sources": {"http": {"prot": 1}}}, "sources.http: Object contains unknown field `prot`"),
        ({"sources": {"mqtt": {"port": 0}}}, r"sources.mqtt: Expected `int` >= 1 - at `\$.port`"),
    ):
        with pytest.raises(UsageError, match=said):
            asyncio.run(start(**table))


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_keeps_the_contract(name: str) -> None:
    source, config = SOURCES[name].load()
    assert isinstance(source.pushes, bool)
    assert asyncio.iscoroutinefunction(source.run)
    assert source.__doc__
    assert config.__doc__
    assert config.__struct_config__.forbid_unknown_fields, "a misspelt key must be named"
    assert callable(source.health)
