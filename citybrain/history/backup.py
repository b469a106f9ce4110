"""Backup of a city while it runs, and its way back into an empty data folder.

    backup.json   version, city, when, every file with its SHA-256; written last
    history/      Parquet files and journal, as of one moment
    topics/       <topic>.parquet with key and value: what compacted topics say now
    pack/         the city's pack
    secrets/      device tokens (hashed), readable by their owner alone

The windows that are open in the engine are not in it: after a restore they begin anew.
"""

import asyncio
import hashlib
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from citybrain import contents, topics
from citybrain.city import City
from citybrain.clock import Clock
from citybrain.errors import BrokerError, SetupError, UsageError
from citybrain.history.journal import NAME, Journal
from citybrain.kafka import KafkaSettings, producer_arguments, started, unreachable
from citybrain.topics import TOPICS, full_name

VERSION = 1
KEPT_TOPICS = tuple(t.name for t in TOPICS.values() if t.compact and t.name != "snapshots")
"""Snapshots name offsets of their own cluster: they mean nothing in another one."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """backup.json. files: path -> SHA-256. topics: topic -> number of keys."""

    version: int = VERSION
    city: str
    pack: str
    at_ms: int
    files: dict[str, str]
    topics: dict[str, int]


async def backup(kafka: KafkaSettings, city: City, data: Path, out: Path, clock: Clock) -> Manifest:
    """Copy a city into `out`, a folder that is empty or not there yet; it may go on running.

    Raises UsageError if `out` holds something, SetupError if it cannot be written,
    BrokerError if the cluster cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"out: {out} is not an empty folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        out.chmod(0o700)
        await asyncio.to_thread(_copy_history, data / "history", out / "history")
        shutil.copytree(city.folder, out / "pack")
        if (data / "secrets").is_dir():
            shutil.copytree(data / "secrets", out / "secrets")
        (out / "topics").mkdir()
        counts = {}
        for name in KEPT_TOPICS:
            found = await contents.latest(kafka, city.id, name)
            _write(out / "topics" / f"{name}.parquet", found)
            counts[name] = len(found)
        files = await asyncio.to_thread(_digests, out)
        manifest = Manifest(
            city=city.id, pack=city.version, at_ms=clock(), files=files, topics=counts
        )
        (out / "backup.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    except OSError as error:
        raise SetupError(f"out: {out}: {error}") from error
    return manifest


def check(source: Path) -> Manifest:
    """The manifest of a backup whose every file is as it was written. Raises UsageError."""
    path = source / "backup.json"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path}: not a whole backup: {error}") from error
    if manifest.version > VERSION:
        raise UsageError(f"{path}: version {manifest.version} is newer than {VERSION}")
    for name, digest in manifest.files.items():
        file = source / name
        if not file.is_file() or _digest(file) != digest:
            raise UsageError(f"{file}: is missing or is not as it was backed up")
    return manifest


async def restore(kafka: KafkaSettings, city: City, source: Path, data: Path) -> Manifest:
    """Bring a backup back: folders into `data`, compacted topics into the cluster.

    city: the backup's own pack. Raises UsageError if the backup is damaged or `data` holds a
    history, BrokerError if the city has records in the cluster already.
    """
    manifest = check(source)
    if (data / "history").exists():
        raise UsageError(f"data: {data} has a history already; restore into an empty folder")
    await topics.ensure(kafka, city.id, city.partitions)
    await _must_be_empty(kafka, city.id)
    try:
        shutil.copytree(source / "history", data / "history", dirs_exist_ok=True)
        if (source / "secrets").is_dir():
            shutil.copytree(source / "secrets", data / "secrets", dirs_exist_ok=True)
    except OSError as error:
        raise SetupError(f"data: {data}: {error}") from error
    with Journal(data / "history") as journal:
        journal.begin_logs_anew()
    await _load(kafka, city.id, source)
    return manifest


def _copy_history(source: Path, out: Path) -> None:
    """The journal as of one moment, then the files that it names. A file that is merged into
    another one meanwhile is kept for minutes, so it is still there."""
    out.mkdir()
    if not (source / NAME).is_file():
        Journal(out).close()
        return
    where = f"{(source / NAME).absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(where, uri=True)) as live,
        closing(sqlite3.connect(out / NAME)) as copy,
    ):
        live.backup(copy)
    with Journal(out) as journal:
        journal.forget(1 << 62)
        for file in journal.files():
            (out / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / file.path, out / file.path)


def _write(path: Path, found: Mapping[bytes, bytes]) -> None:
    keys = sorted(found)
    columns = [pa.array(keys, pa.binary()), pa.array([found[k] for k in keys], pa.binary())]
    pq.write_table(pa.table(columns, names=["key", "value"]), path, compression="zstd")


def _digests(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _must_be_empty(kafka: KafkaSettings, city: str) -> None:
    async with contents.consumer(kafka) as client:
        for name in ("readings", *KEPT_TOPICS):
            places = await contents.partitions(kafka, city, name)
            for place, end in (await client.end_offsets(places)).items():
                if end:
                    raise BrokerError(
                        f"topic: {place.topic} holds {end} records; restore needs a cluster"
                        f" in which {city} has never run"
                    )


async def _load(kafka: KafkaSettings, city: str, source: Path) -> None:
    producer = await started(AIOKafkaProducer(**producer_arguments(kafka)), kafka)
    try:
        for name in KEPT_TOPICS:
            rows = pq.read_table(source / "topics" / f"{name}.parquet").to_pydict()
            sent = [
                await producer.send(full_name(city, name), value, key=key, partition=0)
                for key, value in zip(rows["key"], rows["value"], strict=True)
            ]
            await asyncio.gather(*sent)
    except KafkaError as error:
        raise unreachable(kafka, error) from error
    finally:
        await producer.stop()
