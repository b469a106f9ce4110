"""A whole engine as processes: Kafka nodes, workers, agents, historian, outbox, a receiver.

Every process that ends is started again after half a second, as a supervisor does, unless it
was stopped on purpose.
"""

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

from citybrain import topics
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.edge.tokens import Tokens
from citybrain.kafka_node import HOST, free_ports
from citybrain.pack import load
from tests.faults.load import CLEAR_AT, KIND, PER_SECOND, RAISE_AT, Device
from tests.faults.proxies import Proxies

SHARDS = 4
AGENTS = ("a", "b")
AGAIN_S = 0.5
PATIENCE_S = 60.0

# Segments so short that compaction goes on all the time.
BUSY = {
    "min.cleanable.dirty.ratio": "0.01",
    "segment.ms": "5000",
    "segment.bytes": str(1 << 20),
    "min.compaction.lag.ms": "0",
    "delete.retention.ms": "1000",
    "max.compaction.lag.ms": "10000",
}
# For hours at work: logs are cut after a few minutes, as they are after their days elsewhere.
SHORT = {"retention.ms": "120000", "segment.ms": "20000", "segment.bytes": str(16 << 20)}
LOGS = dict.fromkeys(("readings", "stats", "backfill", "findings", "forecasts"), SHORT)
COMPACTED = {name: BUSY for name, topic in topics.TOPICS.items() if topic.compact}


def write_pack(folder: Path, city_id: str, sensors: int) -> City:
    """Four shards, in each one gateway of either agent; 10 readings a second a sensor."""
    folder.mkdir(parents=True)
    shards = "\n".join(f"s{i} = {i}" for i in range(SHARDS))
    (folder / "city.toml").write_text(
        f'id = "{city_id}"\ntime_zone = "Asia/Shanghai"\npartitions = {SHARDS}\n'
        '[name]\nzh = "试城"\nen = "Trial"\n[zones.z]\nzh = "区"\nen = "Zone"\n'
        f"[shards]\n{shards}\n[kinds.{KIND}]\ncadence_s = {1 / PER_SECOND}\n",
        "utf-8",
    )
    each = sensors // (SHARDS * len(AGENTS))
    rows = [
        f"d{shard}-{agent}-{i:04},{KIND},z,s{shard},{agent}{shard},116.4,39.9,,"
        for shard in range(SHARDS)
        for agent in AGENTS
        for i in range(each)
    ]
    head = "sensor,kinds,zone,shard,gateway,lon,lat,link,name"
    (folder / "sensors.csv").write_text("\n".join([head, *rows]) + "\n")
    (folder / "roads.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (folder / "rules.toml").write_text(
        f'[crowded]\ndetector = "threshold"\nkinds = ["{KIND}"]\nwindow_s = 10\n'
        f'raise_at = {RAISE_AT}\nclear_at = {CLEAR_AT}\ngroup = "sensor"\nseverity = 3\n'
        'cause = "crowded"\nadvice = "crowd"\nzh = "占有率高"\nen = "High occupancy"\n',
        "utf-8",
    )
    (folder / "calendar.toml").write_text("")
    return load(str(folder))


class Kept:
    """A process that is started again when it ends."""

    def __init__(self, name: str, words: list[str], log: Path) -> None:
        self.name, self.words, self.log = name, words, log
        self.skew_ms = 0
        self.ended: Counter[str] = Counter()
        self._wanted = False
        self._expected = False
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def living(self) -> bool:
        """Whether there is a process at this moment."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Of the process now or last."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._wanted = True
        await self._spawn()
        self._watch = asyncio.create_task(self._keep())

    async def stop(self, grace_s: float = PATIENCE_S) -> float:
        """SIGTERM; how long it took. A process that does not end is an error."""
        self._wanted = False
        begin = time.monotonic()
        if self.living:
            self._send(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._exit(), grace_s)
            except TimeoutError:
                self._send(signal.SIGKILL)
                await self._exit()
                self.ended["did not stop on SIGTERM"] += 1
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        return time.monotonic() - begin

    async def kill(self) -> None:
        """SIGKILL; it is started again."""
        self._expected = True
        self._send(signal.SIGKILL)
        await self._exit()

    async def end(self) -> None:
        """SIGKILL without a next start, when everything is over."""
        self._wanted = False
        if self._watch:
            self._watch.cancel()
        if self.living:
            self._send(signal.SIGCONT)
            self._send(signal.SIGKILL)
            await self._exit()

    def freeze(self) -> None:
        """It stands still, and keeps everything that it holds."""
        self._send(signal.SIGSTOP)

    def wake(self) -> None:
        """It goes on as if nothing had been."""
        if self.living:
            self._send(signal.SIGCONT)

    def limit_files(self, size: int) -> None:
        """No file of it grows beyond this size, as on a full disk (needs no rights)."""
        if self.living:
            hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, hard))

    def _send(self, number: signal.Signals) -> None:
        if self.living:
            assert self._process is not None
            self._process.send_signal(number)

    async def _exit(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    async def _spawn(self) -> None:
        module = ["tests.faults.skewed", str(self.skew_ms)] if self.skew_ms else ["citybrain"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *module, *self.words, stdout=out, stderr=out,
                env={**os.environ, "PYTHONUNBUFFERED": "1"}, preexec_fn=_die_with_us,
            )  # fmt: skip

    async def _keep(self) -> None:
        while True:
            code = await self._exit()
            if not self._wanted:
                return
            if not self._expected:
                self.ended[f"exit {code}: {_last_words(self.log)}"] += 1
            self._expected = False
            await asyncio.sleep(AGAIN_S)
            await self._spawn()


_libc = ctypes.CDLL(None)


def _die_with_us() -> None:
    """The kernel kills a child of ours when we die, however that happens (Linux)."""
    _libc.prctl(1, signal.SIGKILL)


def _last_words(log: Path) -> str:
    """What a worker said of its end, in short."""
    for line in reversed(log.read_text("utf-8", "replace").splitlines()[-200:]):
        if '"error"' in line and line.startswith("{"):
            return str(json.loads(line).get("error", ""))[:160]
        if "Error" in line and not line.startswith(" "):
            return line[:160]
    return "no word"


class Receiver:
    """Where webhooks arrive: how often each effect came."""

    def __init__(self) -> None:
        self.came: Counter[str] = Counter()
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                came[unquote(self.headers["idempotency-key"])] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """`came` says it all."""

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}/"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class Cluster:
    """An asynchronous context manager: everything is up, and ends with it."""

    def __init__(
        self, folder: Path, sensors: int, workers: int = 3, short_logs: bool = False
    ) -> None:
        self.folder = folder
        self.city = write_pack(folder / "pack", "trial", sensors)
        self.proxies = Proxies(3)
        self.broker = LocalBroker(
            folder / "kafka", nodes=3, heap_mb=256, doors=self.proxies.ports,
            properties={"log.cleaner.backoff.ms": 2_000, "log.retention.check.interval.ms": 5_000},
        )  # fmt: skip
        self._overrides = COMPACTED | (LOGS if short_logs else {})
        self.receiver = Receiver()
        self.workers: dict[str, Kept] = {}
        self.agents: dict[str, Kept] = {}
        self.others: dict[str, Kept] = {}
        self._count = workers
        self._made = 0
        self._ports = dict(zip(AGENTS, free_ports(len(AGENTS)), strict=True))

    async def __aenter__(self) -> "Cluster":
        await asyncio.to_thread(self.broker.start)
        try:
            await self.proxies.start([self.broker.door(n) for n in (1, 2, 3)])
            kafka = self.broker.settings
            await topics.ensure(kafka, self.city.id, self.city.partitions, 3, self._overrides)
            for agent in AGENTS:
                await self._add_agent(agent)
            for _ in range(self._count):
                await self.add_worker()
            bootstrap = kafka.bootstrap
            for words in (
                ["historian", "--broker", bootstrap],
                ["outbox", "--broker", bootstrap, "--webhooks", self.receiver.url],
            ):
                other = self.others[words[0]] = self._kept(words[0], words)
                await other.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(one.end() for one in self.kept))
        self.receiver.close()
        await self.proxies.stop()
        await asyncio.to_thread(self.broker.stop)

    @property
    def kept(self) -> list[Kept]:
        """All processes but Kafka's."""
        return [*self.workers.values(), *self.agents.values(), *self.others.values()]

    async def add_worker(self) -> Kept:
        """One more, under a new name."""
        self._made += 1
        name = f"worker-{self._made}"
        words = ["worker", "--name", name, "--broker", self.broker.settings.bootstrap]
        worker = self.workers[name] = self._kept(name, words)
        await worker.start()
        return worker

    def introduce(self, device: Device) -> None:
        """Tell a device where its agent is, and give it a token."""
        agent = device.gateway[0]
        now = int(time.time() * 1000)
        device.url = f"http://{HOST}:{self._ports[agent]}"
        device.token = Tokens(self.folder / f"edge-{agent}").add(device.gateway, "", now)

    async def _add_agent(self, agent: str) -> None:
        config = self.folder / f"edge-{agent}.toml"
        gateways = [f"{agent}{shard}" for shard in range(SHARDS)]
        config.write_text(
            f'name = "{agent}"\ngateways = {json.dumps(gateways)}\nmax_delay_s = 1.0\n[spool]\n'
            f'overflow = "refuse-newest"\n[sources.http]\nport = {self._ports[agent]}\n'
        )
        bootstrap = ",".join(f"{HOST}:{port}" for port in self.proxies.ports)
        words = ["edge", "run", str(config), "--broker", bootstrap]
        self.agents[agent] = self._kept(f"edge-{agent}", words)
        await self.agents[agent].start()

    def _kept(self, name: str, words: list[str]) -> Kept:
        data = str(self.folder / name)
        pack = str(self.folder / "pack")
        return Kept(
            name, [*words, "--city", pack, "--data", data], self.folder / "logs" / f"{name}.log"
        )
