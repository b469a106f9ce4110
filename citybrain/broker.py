"""Apache Kafka on this machine: one KRaft node (or three for fault tests) on 127.0.0.1.

The data folder holds everything that a broker is:

    lock            held while one lives, and says by whom
    cluster.json    cluster id and ports; ports are taken again where they are free
    node-1/         server.properties, log/ (the records), kafka.log.0 (rotated), out.txt

Records are flushed to disk every second: a killed broker loses nothing, a power cut at most
what came in during that second.
"""

import asyncio
import atexit
import base64
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from citybrain import jars
from citybrain.errors import SetupError
from citybrain.java import JavaProcess, end, java, java_environment
from citybrain.kafka import KafkaSettings

HOST = "127.0.0.1"
LEAST_FREE_MB = 256
STOP_MS = 20_000
"""How long a node may take to end by itself before it is killed; the data bear both."""

# What a node's log says when it gives up -> what the user can do about it.
_REASONS = {
    "Address already in use": "port: {ports} is taken by another process",
    "No space left on device": "disk: {folder}: no space is left; free some and start again",
    "OutOfMemoryError": "memory: Kafka needs more than its heap of {heap} MB",
    "Failed to acquire lock on file .lock": "data: {folder} is in use by another Kafka",
    "Corrupt": "data: {folder} is damaged; restore a backup, or move it away",
    "KafkaStorageException": "data: {folder} cannot be read or written",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node listens."""

    node: int
    port: int
    controller_port: int


class _Node:
    """One Kafka process and its folder."""

    def __init__(self, folder: Path, place: _Place) -> None:
        self.folder = folder
        self.place = place
        self.process = JavaProcess(f"kafka-{place.node}", folder / "out.txt")
        self.log = folder / "kafka.log.0"
        self._log_begin = 0

    def start(self, command: list[str], lock: IO[str]) -> None:
        """Start the process with the data folder's lock in its hands."""
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        self.process.start(command, keep_open=(lock.fileno(),))

    def last_words(self, heap_mb: int) -> str:
        """Why the process ended, as far as its logs since its start say."""
        text = _after(self.log, self._log_begin)
        severe = text.find(" SEVERE ")
        text = (text[severe:] if severe >= 0 else "") + _after(self.folder / "out.txt", 0)
        for sign, meaning in _REASONS.items():
            if sign in text:
                ports = f"{HOST}:{self.place.port} or {HOST}:{self.place.controller_port}"
                reason = meaning.format(ports=ports, folder=self.folder, heap=heap_mb)
                break
        else:
            lines = [line.strip() for line in text.splitlines() if "WARNING" not in line]
            said = [line for line in lines if "Exception:" in line or "Error:" in line] or lines
            reason = f"broker: Kafka has ended: {said[0] if said else 'it does not say why'}"
        return f"{reason} (its log is {self.log})"


class LocalBroker:
    """A Kafka cluster of this process on 127.0.0.1, with its data under one folder.

    data: the folder, made if it is missing. port: 0 takes a free one, and the same again next
    time if it is still free. nodes: 1, or 3 with replication 3 and two in-sync replicas.
    properties: further server properties, over ours. heap_mb: Java heap of each node.

    A context manager, synchronous and asynchronous; the cluster dies with this process.

    >>> with LocalBroker(Path("data/kafka")) as broker:  # doctest: +SKIP
    ...     print(broker.settings.bootstrap)
    127.0.0.1:41234
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        nodes: int = 1,
        properties: Mapping[str, str | int] | None = None,
        heap_mb: int = 512,
    ) -> None:
        self.data = data.absolute()
        self._port = port
        self._count = nodes
        self._properties = dict(properties or {})
        self._heap_mb = heap_mb
        self._nodes: dict[int, _Node] = {}
        self._cluster_id = ""
        self._lock: IO[str] | None = None
        self._java = ""
        self._jars = Path()

    @property
    def settings(self) -> KafkaSettings:
        """How clients reach it. Only after `start`."""
        if not self._nodes:
            raise SetupError("broker: not started yet")
        return KafkaSettings(
            bootstrap=",".join(f"{HOST}:{node.place.port}" for node in self._nodes.values())
        )

    @property
    def living(self) -> list[int]:
        """Numbers of the nodes whose process lives, counted from 1."""
        return [number for number, node in self._nodes.items() if node.process.living]

    def pid(self, node: int = 1) -> int:
        """Process id of a node, 0 if it was never started."""
        return self._nodes[node].process.pid

    def last_words(self, node: int = 1) -> str:
        """Why a node is not living, as its logs say; "" if it lives."""
        found = self._nodes[node]
        return "" if found.process.living else found.last_words(self._heap_mb)

    def start(self, timeout_ms: int = 120_000) -> None:
        """Start all nodes and wait until each accepts. The first start fetches and formats.

        Raises SetupError: Java or the jars missing, port taken, disk full, folder in use or
        damaged, or no answer within `timeout_ms`.
        """
        self._java = java()
        self._jars = jars.fetch()[0].parent
        self._take_folder()
        try:
            for attempt in range(3):
                self._open_cluster(anew=attempt > 0)
                try:
                    for node in self._nodes.values():
                        self._launch(node)
                    self._wait(self._nodes.values(), timeout_ms)
                    break
                except SetupError as error:
                    # A free port was taken by somebody in the second before Kafka had it.
                    if not str(error).startswith("port:") or attempt == 2:
                        raise
                    self._end(self._nodes.values(), signal.SIGKILL)
        except BaseException:
            self._end(self._nodes.values(), signal.SIGKILL)
            self._give_folder_back()
            raise
        self._say_who()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End all nodes in order: SIGTERM, and SIGKILL for one that takes over 20 s."""
        atexit.unregister(self.stop)
        self._end(self._nodes.values(), signal.SIGTERM)
        self._give_folder_back()

    def kill(self, node: int = 1) -> None:
        """SIGKILL one node, as a crash would."""
        self._end([self._nodes[node]], signal.SIGKILL)

    def start_node(self, node: int = 1, timeout_ms: int = 120_000) -> None:
        """Start a node again that was killed, on the same ports. Raises as `start`."""
        self._launch(self._nodes[node])
        self._wait([self._nodes[node]], timeout_ms)
        self._say_who()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await asyncio.to_thread(self.stop)

    def _take_folder(self) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            free_mb = shutil.disk_usage(self.data).free >> 20
            if free_mb < LEAST_FREE_MB:
                raise SetupError(
                    f"disk: {self.data}: {free_mb} MB are free, Kafka needs {LEAST_FREE_MB} MB"
                )
            lock = (self.data / "lock").open("a+")
        except OSError as error:
            raise SetupError(f"data: {self.data}: {error}") from error
        until = time.monotonic() + 2  # a broker whose parent was killed dies a moment later
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() < until:
                    time.sleep(0.05)
                    continue
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                lock.close()
                raise SetupError(
                    f"data: {self.data} is in use by {holder}; stop it or name another folder"
                ) from error
        self._lock = lock
        self._say_who()

    def _say_who(self) -> None:
        if self._lock:
            self._lock.truncate(0)
            command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
            kafka = ", ".join(str(self.pid(node)) for node in self.living)
            self._lock.write(f"process {os.getpid()} ({command})")
            self._lock.write(f", its Kafka is {kafka}" if kafka else "")
            self._lock.flush()

    def _give_folder_back(self) -> None:
        if self._lock:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def _open_cluster(self, anew: bool) -> None:
        """Read or write cluster.json, settle the ports, format what is not formatted."""
        path = self.data / "cluster.json"
        old: list[_Place] = []
        self._cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]
        if path.exists():
            try:
                stored = json.loads(path.read_text())
                self._cluster_id = stored["cluster_id"]
                old = [_Place(**place) for place in stored["nodes"]]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise SetupError(
                    f"data: {path} is damaged ({error}); restore a backup of {self.data}, or move"
                    " it away to begin with an empty cluster"
                ) from error
            if len(old) != self._count:
                raise SetupError(f"nodes: {self._count}: {self.data} holds a cluster of {len(old)}")
        places = self._settle(() if anew else old)
        self._nodes = {p.node: _Node(self.data / f"node-{p.node}", p) for p in places}
        try:
            _write(path, json.dumps({"cluster_id": self._cluster_id,
                                     "nodes": [asdict(p) for p in places]}, indent=1))  # fmt: skip
            for node in self._nodes.values():
                node.folder.mkdir(exist_ok=True)
                _write(node.folder / "server.properties", self._server_properties(node))
                _write(node.folder / "logging.properties", _logging(node.folder))
        except OSError as error:
            raise SetupError(f"data: {self.data}: {error}") from error
        for node in self._nodes.values():
            meta = node.folder / "log" / "meta.properties"
            if not meta.exists():
                self._format(node)
            elif not {f"cluster.id={self._cluster_id}", f"node.id={node.place.node}"} <= set(
                meta.read_text("utf-8", "replace").splitlines()
            ):
                raise SetupError(
                    f"data: {meta} is damaged: expected node {node.place.node} of cluster"
                    f" {self._cluster_id}; restore a backup of {self.data}, or move it away"
                )

    def _settle(self, old: Iterable[_Place]) -> list[_Place]:
        """Ports: the wanted one, those of the last time that are free, else any free ones."""
        if self._port and not _is_free(self._port):
            raise SetupError(
                f"port: {HOST}:{self._port} is taken by another process; name another one, or 0"
                " for any that is free"
            )
        before = {place.node: place for place in old}
        fresh = _free_ports(2 * self._count)
        places = []
        for node in range(1, self._count + 1):
            port, controller_port = fresh.pop(), fresh.pop()
            if node in before:
                kept = before[node]
                port = kept.port if _is_free(kept.port) else port
                if _is_free(kept.controller_port):
                    controller_port = kept.controller_port
            if node == 1 and self._port:
                port = self._port
            places.append(_Place(node, port, controller_port))
        return places

    def _server_properties(self, node: _Node) -> str:
        place = node.place
        voters = ",".join(
            f"{n.place.node}@{HOST}:{n.place.controller_port}" for n in self._nodes.values()
        )
        replicas = min(3, self._count)
        in_sync = max(1, replicas - 1)
        ours: dict[str, str | int] = {
            "process.roles": "broker,controller",
            "node.id": place.node,
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://{HOST}:{place.port},"
            f"CONTROLLER://{HOST}:{place.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{place.port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(node.folder / "log"),
            # Topics come from the topic table alone; a mistyped name is an error.
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            "group.initial.rebalance.delay.ms": 0,
            # A node that was killed may come back, or be given up, only when this has passed.
            "broker.session.timeout.ms": 3_000,
            "broker.heartbeat.interval.ms": 500,
            # One machine may lose its power, and there is no replica that has what it lost.
            "log.flush.interval.ms": 1_000,
            "log.flush.scheduler.interval.ms": 1_000,
            # Small: this machine has other work.
            "num.network.threads": 2,
            "num.io.threads": 4,
            "background.threads": 2,
            "log.cleaner.dedupe.buffer.size": 32 << 20,
        }
        return "".join(f"{key}={value}\n" for key, value in (ours | self._properties).items())

    def _command(self, node: _Node, main: str, *arguments: str, heap_mb: int) -> list[str]:
        return [
            self._java,
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Djava.util.logging.config.file={node.folder / 'logging.properties'}",
            "-Dlog4j2.statusLoggerLevel=OFF",
            "-cp",
            f"{self._jars}/*",
            main,
            *arguments,
        ]

    def _format(self, node: _Node) -> None:
        command = self._command(
            node, "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t",
            self._cluster_id, "-c", str(node.folder / "server.properties"), heap_mb=128,
        )  # fmt: skip
        done = subprocess.run(command, env=java_environment(), capture_output=True, text=True,
                              errors="replace", check=False)  # fmt: skip
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
            why = next((line for line in lines if "Exception" in line), lines[-1])
            raise SetupError(f"data: {node.folder}: Kafka cannot format it: {why.strip()}")

    def _launch(self, node: _Node) -> None:
        if self._lock is None:
            raise SetupError("broker: not started yet")
        if not node.process.living:
            properties = str(node.folder / "server.properties")
            node.start(self._command(node, "kafka.Kafka", properties, heap_mb=self._heap_mb),
                       self._lock)  # fmt: skip

    def _wait(self, nodes: Iterable[_Node], timeout_ms: int) -> None:
        until = time.monotonic() + timeout_ms / 1000
        for node in nodes:
            while not _answers(node.place.port):
                if not node.process.living:
                    raise SetupError(node.last_words(self._heap_mb))
                if time.monotonic() > until:
                    raise SetupError(
                        f"broker: Kafka node {node.place.node} does not answer on"
                        f" {HOST}:{node.place.port} after {timeout_ms} ms"
                        f" (its log is {node.log})"
                    )
                time.sleep(0.05)

    def _end(self, nodes: Iterable[_Node], number: signal.Signals) -> None:
        end([node.process for node in nodes], number, STOP_MS)


def recorded(data: Path) -> KafkaSettings | None:
    """How to reach the broker that was last started with this data folder, if there was one.

    Raises SetupError if what stands there about it is damaged.
    """
    path = data / "cluster.json"
    try:
        ports = [int(node["port"]) for node in json.loads(path.read_text())["nodes"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"data: {path} cannot be read: {error!r}") from error
    return KafkaSettings(bootstrap=",".join(f"{HOST}:{port}" for port in ports))


def _logging(folder: Path) -> str:
    pattern = str(folder / "kafka.log").replace("%", "%%")
    handler = "java.util.logging.FileHandler"
    return (
        f"handlers={handler}\n.level=INFO\n"
        f"{handler}.pattern={pattern}.%g\n{handler}.limit=10000000\n{handler}.count=3\n"
        f"{handler}.append=true\n{handler}.formatter=java.util.logging.SimpleFormatter\n"
        "java.util.logging.SimpleFormatter.format=%1$tF %1$tT.%1$tL %4$s %3$s %5$s%6$s%n\n"
    )


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole, so that a crash leaves the old or the new one."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def _after(path: Path, begin: int, most: int = 200_000) -> str:
    """Text of a log from a place on; all of it if it was rotated since."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(begin if begin <= size else 0, size - most))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _free_ports(count: int) -> list[int]:
    """Different free ports: all are held until each is known."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _answers(port: int) -> bool:
    """Whether Kafka answers ApiVersions there; an open port alone does not mean that it works."""
    client = b"citybrain"
    request = struct.pack(">hhih", 18, 0, 1, len(client)) + client
    try:
        with socket.create_connection((HOST, port), timeout=1) as link:
            link.sendall(struct.pack(">i", len(request)) + request)
            return len(link.recv(8)) > 0
    except OSError:
        return False
