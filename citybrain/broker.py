"""Apache Kafka on this machine: one KRaft node (or three for fault tests) on 127.0.0.1.

The data folder holds everything that a broker is:

    lock            held while one lives, and says by whom
    cluster.json    cluster id and ports; ports are taken again where they are free
    node-1/         server.properties, log/ (the records), kafka.log.0 (rotated), out.txt

Records are flushed to disk every second: a killed broker loses nothing, a power cut at most
what came in during that second. The Java process holds the lock too, so the folder is free
only when the last of its users has ended.
"""

import asyncio
import atexit
import base64
import fcntl
import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from citybrain import jars
from citybrain.errors import SetupError
from citybrain.java import end, java
from citybrain.kafka import KafkaSettings
from citybrain.kafka_node import (
    HOST,
    Node,
    Place,
    Programs,
    free_ports,
    is_free,
    server_properties,
    write_whole,
)

LEAST_FREE_MB = 256
STOP_MS = 20_000
"""How long a node may take to end by itself before it is killed; the data bear both."""


class LocalBroker:
    """A Kafka cluster of this process on 127.0.0.1, with its data under one folder.

    data: the folder, made if it is missing. port: 0 takes a free one, and the same again next
    time if it is still free. nodes: 1, or 3 with replication 3 and two in-sync replicas.
    properties: further server properties, over ours. heap_mb: Java heap of each node.
    doors: ports of proxies of ours, one a node; each node then has a second listener, at
    `door(node)`, whose clients are told to come through the proxy.

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
        doors: Sequence[int] = (),
    ) -> None:
        if doors and len(doors) != nodes:
            raise SetupError(f"doors: {len(doors)} ports for {nodes} nodes")
        self.data = data.absolute()
        self._port = port
        self._count = nodes
        self._properties = dict(properties or {})
        self._heap_mb = heap_mb
        self._doors = tuple(doors)
        self._nodes: dict[int, Node] = {}
        self._lock: IO[str] | None = None

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
        """Process id of a node, also after its end; 0 if it was never started."""
        return self._nodes[node].process.pid

    def door(self, node: int = 1) -> int:
        """Port of a node's second listener, which its proxy leads to. Only after `start`."""
        return self._nodes[node].place.door_port

    def last_words(self, node: int = 1) -> str:
        """Why a node is not living, as its logs say; "" if it lives."""
        return "" if self._nodes[node].process.living else self._nodes[node].last_words()

    def start(self, timeout_ms: int = 120_000) -> None:
        """Start all nodes and wait until each accepts. The first start fetches and formats.

        Raises SetupError: Java or the jars missing, port taken, disk full, folder in use or
        damaged, or no answer within `timeout_ms`.
        """
        programs = Programs(java(), jars.fetch()[0].parent)
        self._take_folder()
        try:
            for attempt in range(3):
                self._open_cluster(programs, fresh_ports=attempt > 0)
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
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        """Write into the lock file who holds it, for the message that others get."""
        if self._lock:
            command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
            kafka = ", ".join(str(self.pid(node)) for node in self.living)
            self._lock.truncate(0)
            self._lock.write(f"process {os.getpid()} ({command})")
            self._lock.write(f", its Kafka is {kafka}" if kafka else "")
            self._lock.flush()

    def _give_folder_back(self) -> None:
        if self._lock:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def _open_cluster(self, programs: Programs, fresh_ports: bool) -> None:
        """Read or begin cluster.json, settle the ports, prepare every node."""
        path = self.data / "cluster.json"
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        old: list[Place] = []
        if path.exists():
            try:
                stored = json.loads(path.read_text())
                cluster_id = str(stored["cluster_id"])
                old = [Place(**place) for place in stored["nodes"]]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise SetupError(
                    f"data: {path} is damaged ({error}); restore a backup of {self.data}, or move"
                    " it away to begin with an empty cluster"
                ) from error
            if len(old) != self._count:
                raise SetupError(f"nodes: {self._count}: {self.data} holds a cluster of {len(old)}")
        places = self._settle(() if fresh_ports else old)
        self._nodes = {
            place.node: Node(self.data / f"node-{place.node}", place, programs, self._heap_mb)
            for place in places
        }
        now = {"cluster_id": cluster_id, "nodes": [asdict(place) for place in places]}
        try:
            write_whole(path, json.dumps(now, indent=1))
            for node in self._nodes.values():
                log = node.folder / "log"
                node.prepare(
                    cluster_id, server_properties(node.place, places, log, self._properties)
                )
        except OSError as error:
            raise SetupError(f"data: {self.data}: {error}") from error

    def _settle(self, old: Iterable[Place]) -> list[Place]:
        """Ports: the wanted one, those of the last time that are free, else any free ones."""
        if self._port and not is_free(self._port):
            raise SetupError(
                f"port: {HOST}:{self._port} is taken by another process; name another one, or 0"
                " for any that is free"
            )
        before = {place.node: place for place in old}
        fresh = free_ports(3 * self._count)
        places = []
        for number in range(1, self._count + 1):
            port, controller_port = fresh.pop(), fresh.pop()
            if kept := before.get(number):
                port = kept.port if is_free(kept.port) else port
                if is_free(kept.controller_port):
                    controller_port = kept.controller_port
            if number == 1 and self._port:
                port = self._port
            place = Place(number, port, controller_port)
            if self._doors:
                place = replace(place, door_port=fresh.pop(), door_as=self._doors[number - 1])
            places.append(place)
        return places

    def _launch(self, node: Node) -> None:
        if self._lock is None:
            raise SetupError("broker: not started yet")
        if not node.process.living:
            node.start(self._lock.fileno())

    def _wait(self, nodes: Iterable[Node], timeout_ms: int) -> None:
        until = time.monotonic() + timeout_ms / 1000
        for node in nodes:
            while not node.answers():
                if not node.process.living:
                    raise SetupError(node.last_words())
                if time.monotonic() > until:
                    raise SetupError(
                        f"broker: Kafka node {node.place.node} does not answer on"
                        f" {HOST}:{node.place.port} after {timeout_ms} ms (its log is {node.log})"
                    )
                time.sleep(0.05)

    def _end(self, nodes: Iterable[Node], number: signal.Signals) -> None:
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
