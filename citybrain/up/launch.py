"""The processes of a running city: which there are, how each is started, what they need.

Children learn their settings from the environment, so that no password is on a command line.
"""

import fcntl
import json
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.edge.tokens import Tokens
from citybrain.errors import SetupError, UsageError
from citybrain.kafka import KafkaSettings
from citybrain.settings import Settings
from citybrain.signal_log import GATEWAY
from citybrain.up.supervisor import Child, command

HOST = "127.0.0.1"
EDGE_PORT = 8040


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `up` may be told beside the settings.

    days: how many past days the world makes up for the models to learn from. recording: play
    this file instead of a world. speed: times real time (0, for a recording: flat out).
    watched: follow what comes out, for the report at the end.
    """

    days: int = 3
    speed: float = 1.0
    seed: int = 1
    recording: Path | None = None
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, in this order; `page` is where the operations centre will be, `edge` where
    devices send ("" while a recording plays)."""

    children: list[Child]
    page: str
    page_port: int
    edge: str


def check(settings: Settings, options: Options, city: City) -> None:
    """What would stop this city, found before anything is started.

    Raises UsageError for a city without a world and without a recording to play, or a world
    at no speed; SetupError for a port that is taken.
    """
    if options.recording is None and not (city.folder / "world.toml").is_file():
        raise UsageError(
            f"city: {city.id} has no simulated world; give --recording FILE to play one, or"
            " run its parts by themselves"
        )
    if options.recording is None and options.speed == 0:
        raise UsageError("speed: 0 plays a recording flat out; a simulated world needs more")
    _port(settings.page_port, "page_port")


def plan(
    settings: Settings, options: Options, city: City, data: Path, kafka: KafkaSettings
) -> Plan:
    """The processes of a city but the broker; writes what they read (edge settings, tokens).

    Raises SetupError if the page's port is taken or a file cannot be written.
    """
    simulated = options.recording is None
    page_port = _port(settings.page_port, "page_port")
    edge_port = _edge_port(settings)
    told = _environment(settings, data, kafka, page_port)

    def child(name: str, *words: str) -> Child:
        return Child(name, command(*words), data / "logs" / f"{name}.log", told)

    edge_file = _edge_file(options, city, data, edge_port)
    workers = [f"worker-{i + 1}" for i in range(settings.workers)]
    children = [child(name, "worker", "--name", name) for name in workers]
    children += [
        child("historian", "historian"),
        child("edge", "edge", "run", str(edge_file)),
        child("centre", "centre"),
        child("fitter", "fitter"),
    ]
    if settings.webhooks:
        children.append(child("outbox", "outbox"))
    if simulated:
        _world_tokens(city, data)
        children.append(
            child(
                "world", "world", "--city", settings.city, "--data", str(data),
                "--edge", f"http://{HOST}:{edge_port}", "--speed", str(options.speed),
                "--days", str(options.days), "--seed", str(options.seed),
            )
        )  # fmt: skip
    edge = f"http://{HOST}:{edge_port}/readings" if simulated else ""
    return Plan(children, f"http://{HOST}:{page_port}/", page_port, edge)


@contextmanager
def only_one(data: Path) -> Iterator[None]:
    """Holds the data folder for this process. Raises SetupError naming who has it."""
    path = data / "run" / "up.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise SetupError(f"data: {data}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise SetupError(
                f"data: {data} is in use by process {file.read() or 'unknown'}; choose another"
                " --data or stop that one"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _environment(
    settings: Settings, data: Path, kafka: KafkaSettings, page_port: int
) -> dict[str, str]:
    told = msgspec.structs.asdict(settings) | {
        "broker": kafka.bootstrap, "data": str(data), "page_port": page_port,
    }  # fmt: skip
    if (Path.cwd() / settings.city).is_dir():
        told["city"] = str(Path(settings.city).resolve())
    return {f"CITYBRAIN_{key.upper()}": str(value) for key, value in told.items() if value != ""}


def _edge_file(options: Options, city: City, data: Path, port: int) -> Path:
    """The settings of the one edge agent that serves all gateways of the city.

    A recording is its agent's only source: devices that speak now have no place in its time.
    """
    lines = ['name = "up"']
    if options.recording is None:
        lines += ["[sources.http]", f"port = {port}"]
    else:
        lines += ["[sources.recording]", f"file = {json.dumps(str(options.recording.resolve()))}",
                  f"speed = {options.speed}"]  # fmt: skip
    path = data / "edge" / "up.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise SetupError(f"data: {path}: {error.strerror}") from error
    return path


def _world_tokens(city: City, data: Path) -> None:
    """A token for each gateway that has none yet: the world's devices sign in like any other."""
    path = data / "world" / "tokens.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    tokens = Tokens(data)
    for gateway in sorted({GATEWAY, *(sensor.gateway for sensor in city.sensors.values())}):
        if gateway not in known or tokens.check(known[gateway]) is None:
            known[gateway] = tokens.add(gateway, "", wall_clock())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(known))


def _edge_port(settings: Settings) -> int:
    """The port that devices know, unless something else has it and none was asked for."""
    try:
        return _port(settings.edge_port or EDGE_PORT, "edge_port")
    except SetupError:
        if settings.edge_port:
            raise
        return _port(0, "edge_port")


def _port(wanted: int, setting: str) -> int:
    """The wanted port if it is free, or a free one. Raises SetupError.

    A free one comes from below the range out of which systems serve those who ask for any
    port: another child cannot be given it before the one that it is meant for has started.
    """
    for port in [wanted] if wanted else random.sample(range(10_000, 32_000), 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return port
            except OSError as error:
                problem = error.strerror
    raise SetupError(f"{setting}: port {wanted} of {HOST}: {problem}; choose another or 0")
