"""One Apache Kafka process of the local cluster: its settings, its folder, its last words."""

import errno
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from citybrain.errors import SetupError
from citybrain.java import JavaProcess, java_environment

HOST = "127.0.0.1"

# What a node's log says when it gives up -> what that means for the user.
_REASONS = {
    "Address already in use": "port: {ports} is taken by another process",
    "No space left on device": "disk: {folder}: no space is left; free some and start again",
    "OutOfMemoryError": "memory: Kafka needs more than its heap of {heap} MB",
    "Failed to acquire lock on file .lock": "data: {folder} is in use by another Kafka",
    "Corrupt": "data: {folder} is damaged; restore a backup, or move it away",
    "KafkaStorageException": "data: {folder} cannot be read or written",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node listens. Nodes are numbered from 1.

    door_port, door_as: a second listener, and the port under which its clients reach it
    through something that stands between (a proxy); 0 for none.
    """

    node: int
    port: int
    controller_port: int
    door_port: int = 0
    door_as: int = 0


@dataclass(frozen=True, slots=True)
class Programs:
    """What a node is run with: Java, and the folder with Kafka's jars."""

    java: str
    jars: Path


class Node:
    """A Kafka process and its folder: server.properties, log/, kafka.log.0, out.txt."""

    def __init__(self, folder: Path, place: Place, programs: Programs, heap_mb: int) -> None:
        self.folder = folder
        self.place = place
        self.process = JavaProcess(f"kafka-{place.node}", folder / "out.txt")
        self.log = folder / "kafka.log.0"
        self._programs = programs
        self._heap_mb = heap_mb
        self._log_begin = 0

    def prepare(self, cluster_id: str, properties: str) -> None:
        """Write its settings; format its storage the first time.

        Raises SetupError if Kafka refuses the settings, or the storage is of another node or
        cluster or damaged; OSError if the folder cannot be written.
        """
        self.folder.mkdir(exist_ok=True)
        write_whole(self.folder / "server.properties", properties)
        write_whole(self.folder / "logging.properties", _logging(self.folder))
        meta = self.folder / "log" / "meta.properties"
        if not meta.exists():
            self._format(cluster_id)
        expected = {f"cluster.id={cluster_id}", f"node.id={self.place.node}"}
        if not expected <= set(meta.read_text("utf-8", "replace").splitlines()):
            raise SetupError(
                f"data: {meta} is damaged: expected node {self.place.node} of cluster {cluster_id};"
                f" restore a backup of {self.folder.parent}, or move it away"
            )

    def start(self, lock: int) -> None:
        """Start the process with the data folder's lock (a file descriptor) in its hands."""
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        command = self._command("kafka.Kafka", str(self.folder / "server.properties"))
        self.process.start(command, keep_open=(lock,))

    def answers(self) -> bool:
        """Whether Kafka answers an ApiVersions request; an open port alone says little."""
        client = b"citybrain"
        request = struct.pack(">hhih", 18, 0, 1, len(client)) + client
        try:
            with socket.create_connection((HOST, self.place.port), timeout=1) as link:
                link.sendall(struct.pack(">i", len(request)) + request)
                return len(link.recv(8)) > 0
        except OSError:
            return False

    def last_words(self) -> str:
        """Why the process ended, as far as its logs since its start say."""
        text = _after(self.log, self._log_begin)
        severe = text.find(" SEVERE ")
        text = (text[severe:] if severe >= 0 else "") + _after(self.folder / "out.txt", 0)
        if self.folder.exists() and shutil.disk_usage(self.folder).free < 1 << 20:
            text += "No space left on device"  # there was none to write that either
        for sign, meaning in _REASONS.items():
            if sign in text:
                ports = f"{HOST}:{self.place.port} or {HOST}:{self.place.controller_port}"
                reason = meaning.format(ports=ports, folder=self.folder, heap=self._heap_mb)
                break
        else:
            lines = [line.strip() for line in text.splitlines() if "WARNING" not in line]
            said = [line for line in lines if "Exception:" in line or "Error:" in line] or lines
            reason = f"broker: Kafka has ended: {said[0] if said else 'it does not say why'}"
        return f"{reason} (its log is {self.log})"

    def _format(self, cluster_id: str) -> None:
        properties = str(self.folder / "server.properties")
        command = self._command(
            "kafka.tools.StorageTool", "format", "--ignore-formatted",
            # In one word: one id in 64 begins with a hyphen and would be taken for an option.
            f"--cluster-id={cluster_id}",
            "-c", properties,
        )  # fmt: skip
        command.insert(1, "-XX:TieredStopAtLevel=1")  # too short a life to optimise for
        done = subprocess.run(command, env=java_environment(), capture_output=True, text=True,
                              errors="replace", check=False)  # fmt: skip
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
            why = next((line for line in lines if "Exception" in line), lines[-1])
            raise SetupError(f"data: {self.folder}: Kafka cannot format it: {why.strip()}")

    def _command(self, main: str, *arguments: str) -> list[str]:
        return [
            self._programs.java,
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Djava.util.logging.config.file={self.folder / 'logging.properties'}",
            "-Dlog4j2.statusLoggerLevel=OFF",
            "-cp",
            f"{self._programs.jars}/*",
            main,
            *arguments,
        ]


def server_properties(
    place: Place, places: Sequence[Place], log: Path, more: Mapping[str, str | int]
) -> str:
    """Text of a node's server.properties. log: folder of its records. more: over ours."""
    replicas = min(3, len(places))
    in_sync = max(1, replicas - 1)
    door = f",DOOR://{HOST}:{place.door_port}" if place.door_port else ""
    advertised_door = f",DOOR://{HOST}:{place.door_as}" if place.door_port else ""
    ours: dict[str, str | int] = {
        "process.roles": "broker,controller",
        "node.id": place.node,
        "controller.quorum.voters": ",".join(
            f"{other.node}@{HOST}:{other.controller_port}" for other in places
        ),
        "listeners": f"PLAINTEXT://{HOST}:{place.port},"
        f"CONTROLLER://{HOST}:{place.controller_port}{door}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{place.port}{advertised_door}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DOOR:PLAINTEXT"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(log),
        # Topics come from the topic table alone; a mistyped name is an error.
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 4,
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
    return "".join(f"{key}={value}\n" for key, value in (ours | dict(more)).items())


def _logging(folder: Path) -> str:
    """Java's logging: a file that is rotated at 10 MB, three of them kept."""
    pattern = str(folder / "kafka.log").replace("%", "%%")
    handler = "java.util.logging.FileHandler"
    return (
        f"handlers={handler}\n.level=INFO\n"
        f"{handler}.pattern={pattern}.%g\n{handler}.limit=10000000\n{handler}.count=3\n"
        f"{handler}.append=true\n{handler}.formatter=java.util.logging.SimpleFormatter\n"
        "java.util.logging.SimpleFormatter.format=%1$tF %1$tT.%1$tL %4$s %3$s %5$s%6$s%n\n"
    )


def write_whole(path: Path, text: str) -> None:
    """Replace a file as a whole, so that a crash leaves the old or the new one."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1 and we may."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def free_ports(count: int) -> list[int]:
    """Different free ports: all are held until each is known."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _after(path: Path, begin: int, most: int = 200_000) -> str:
    """Text of a log from a place on; all of it if it was rotated since."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(begin if begin <= size else 0, size - most))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
