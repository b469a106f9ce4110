"""Every topic of a city, in one table; creating them, and comparing the table with a cluster.

A topic's full name is `citybrain.<city>.<name>`. The time of every record is the broker's
receipt (LogAppendTime): one clock for all that is measured or decided by it (latency, late
revisions, waiting for slow shards, expiry of commands), so that a replay sees the same. Event
times are inside the records; one older than the retention would be deleted at once.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from citybrain.errors import BrokerError, UsageError
from citybrain.kafka import (
    LARGEST_MESSAGE_BYTES,
    KafkaSettings,
    admin_arguments,
    started,
    unreachable,
)

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

LONGEST_OFFLINE_MS = 7 * DAY_MS
"""How long an edge agent may be away and still have its readings counted."""
LONG_WEEKEND_MS = 5 * DAY_MS
"""How long the historian may be away and still find every change of what it archives from
compacted topics: four free days, and one to notice."""

_MB = 1 << 20
_NONE: Mapping[str, Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Topic:
    """One row. key: what a record's key is. retention_ms: None keeps for ever (compacted).
    whole_ms: so long a compacted topic keeps every record; where the latest says all that was
    before (totals, models, snapshots), 0 keeps restarts short.

    partitioned_by: `shard`, with the partition from the pack's table; `city`, one partition,
    so that there is one order; `intersection`, by the hash of the key.
    """

    name: str
    key: str
    partitioned_by: Literal["shard", "city", "intersection"]
    retention_ms: int | None
    compact: bool
    max_message_bytes: int
    doc: str
    whole_ms: int = 0

    def partitions(self, of_city: int) -> int:
        """Number of partitions in a city with so many."""
        return 1 if self.partitioned_by == "city" else of_city

    def config(self, replication: int) -> dict[str, str]:
        """Kafka's topic settings, all that this table decides."""
        settings: dict[str, str | int] = {
            "cleanup.policy": "compact" if self.compact else "delete",
            "max.message.bytes": self.max_message_bytes,
            "message.timestamp.type": "LogAppendTime",
            # With three replicas one may be away and nothing that was acknowledged is lost.
            "min.insync.replicas": max(1, replication - 1),
        }
        if self.compact:
            # A segment that is being written is never compacted: roll it soon, or a restart
            # reads every old snapshot.
            settings |= {"segment.bytes": 64 * _MB, "segment.ms": HOUR_MS,
                         "min.cleanable.dirty.ratio": "0.3",
                         "min.compaction.lag.ms": self.whole_ms}  # fmt: skip
        if self.retention_ms is not None:
            # Whole segments are deleted: a dozen of them follow the retention closely enough.
            settings |= {
                "retention.ms": self.retention_ms,
                "segment.ms": max(MINUTE_MS, min(DAY_MS, self.retention_ms // 12)),
            }
        return {key: str(value) for key, value in settings.items()}


def _log(
    name: str, key: str, by: Literal["shard", "city", "intersection"], retention_ms: int, doc: str,
    max_message_bytes: int = _MB,
) -> Topic:  # fmt: skip
    return Topic(name, key, by, retention_ms, False, max_message_bytes, doc)


def _table(
    name: str,
    key: str,
    by: Literal["shard", "city"],
    doc: str,
    max_message_bytes: int = _MB,
    whole_ms: int = 0,
) -> Topic:
    return Topic(name, key, by, None, True, max_message_bytes, doc, whole_ms)


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        _log("readings", "gateway", "shard", 2 * LONGEST_OFFLINE_MS,
             "batches, heartbeats and control records of the edge", 4 * _MB),
        _log("stats", "kind", "shard", 2 * LONGEST_OFFLINE_MS,
             "closed windows by revision, effective models, changed rules", 8 * _MB),
        _log("backfill", "gateway", "shard", 2 * LONGEST_OFFLINE_MS,
             "batches older than the ring, for history", 4 * _MB),
        _log("findings", "finding, shard or command id", "city", 30 * DAY_MS,
             "what detectors found, each shard's progress, commands to alerting"),
        _log("forecasts", "shard", "city", 7 * DAY_MS,
             "what models expect of the sensors of a shard", 8 * _MB),
        _table("link-states", "link", "city", "how each road flows, the latest",
               whole_ms=LONG_WEEKEND_MS),
        _table("alerts", "alert id", "city", "every alert, its latest revision",
               whole_ms=LONG_WEEKEND_MS),
        _log("command-results", "command id", "city", 30 * DAY_MS,
             "applied, refused (why) or expired"),
        _table("models", "model id", "city", "fitted models with hash and training interval",
               LARGEST_MESSAGE_BYTES),
        _table("packs", "pack version", "city", "versions of the city pack", 4 * _MB),
        _table("accounts", "party/shard", "city", "where readings are, counted by each party"),
        _log("dead-letter", "dead letter id", "city", 90 * DAY_MS,
             "refused input with its original bytes, to be retried", LARGEST_MESSAGE_BYTES),
        _table("snapshots", "stage/block", "shard", "state blocks and manifests of the stages",
               LARGEST_MESSAGE_BYTES),
        _log("detector-states", "intersection", "city", 15 * MINUTE_MS,
             "the signals log: detectors and lamps, ticks, alerts, requests for a green"),
        _log("signal-plans", "intersection", "intersection", 7 * DAY_MS,
             "plans for the controllers, with an expiry"),
        _log("priority-requests", "vehicle id", "city", DAY_MS, "who asks for a green, and where"),
        _log("emergency", "incident, responder or command id", "city", 30 * DAY_MS,
             "alerts, link states, positions and commands that the emergency stage decides by"),
        _table("dispatches", "dispatch id", "city", "who is sent where, the latest",
               whole_ms=LONG_WEEKEND_MS),
        _table("responders", "responder id", "city", "what each responder does, the latest",
               whole_ms=LONG_WEEKEND_MS),
        _table("incidents", "incident id", "city", "open and closed incidents, the latest",
               whole_ms=LONG_WEEKEND_MS),
        _log("outbox", "alert id/transition", "city", 7 * DAY_MS,
             "what leaves the engine: webhooks, messages"),
        _log("probe", "host", "city", 15 * MINUTE_MS,
             "what `doctor` writes to compare its clock with the broker's"),
    )
}  # fmt: skip


def full_name(city: str, name: str) -> str:
    """Kafka's name of a topic of the table. Raises UsageError for a name that is not in it."""
    if name not in TOPICS:
        raise UsageError(f"topic: {name!r} is not one of {sorted(TOPICS)}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", city):
        raise UsageError(
            f"city: {city!r}: expected up to 63 lower-case letters, digits and hyphens"
        )
    return f"citybrain.{city}.{name}"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing of a topic that is not as the table says.

    what: `topic` (then found is `missing`), `partitions`, `replication`, or a setting's name.
    """

    topic: str
    what: str
    expected: str
    found: str


async def ensure(
    settings: KafkaSettings,
    city: str,
    partitions: int,
    replication: int = 1,
    overrides: Mapping[str, Mapping[str, str]] = _NONE,
) -> list[str]:
    """Create the topics of a city that are missing; returns their full names.

    Topics that exist are left as they are: `differences` tells how they differ. Returns when
    every partition has a leader. Raises BrokerError naming the topic that was refused.
    overrides: settings by a topic's short name, over the table's (fault tests make segments
    so short that compaction happens during them).
    """
    async with _Admin(settings) as admin:
        there = set(await admin.list_topics())
        missing = [t for t in TOPICS.values() if full_name(city, t.name) not in there]
        made = [
            NewTopic(full_name(city, t.name), t.partitions(partitions), replication,
                     topic_configs=t.config(replication) | dict(overrides.get(t.name, {})))
            for t in missing
        ]  # fmt: skip
        created = []
        if made:
            for name, code, *rest in (await admin.create_topics(made)).topic_errors:
                # Somebody else was faster: just as well.
                if for_code(code) is TopicAlreadyExistsError:
                    continue
                if code:
                    raise BrokerError(f"topic: {name}: {(rest or [''])[0] or for_code(code)}")
                created.append(name)
        await _led(admin, [full_name(city, name) for name in TOPICS])
    return created


async def differences(
    settings: KafkaSettings, city: str, partitions: int, replication: int = 1
) -> list[Difference]:
    """How the city's topics on the cluster differ from the table; [] if they do not.

    Raises BrokerError if the cluster cannot be asked.
    """
    async with _Admin(settings) as admin:
        told = {topic["topic"]: topic for topic in await admin.describe_topics()}
        names = {full_name(city, topic.name): topic for topic in TOPICS.values()}
        configs = await _configs(admin, [name for name in names if name in told])
    found = []
    for name, topic in names.items():
        if name not in told:
            found.append(Difference(name, "topic", "present", "missing"))
            continue
        have = told[name]["partitions"]
        counts = {"partitions": (topic.partitions(partitions), len(have)),
                  "replication": (replication, len(have[0]["replicas"]))}  # fmt: skip
        found += [
            Difference(name, what, str(wanted), str(is_))
            for what, (wanted, is_) in counts.items()
            if wanted != is_
        ]
        found += [
            Difference(name, key, value, configs[name].get(key, "not set"))
            for key, value in topic.config(replication).items()
            if configs[name].get(key) != value
        ]
    return found


class _Admin:
    """A connected admin client whose errors are BrokerErrors."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client = AIOKafkaAdminClient(**admin_arguments(settings))

    async def __aenter__(self) -> AIOKafkaAdminClient:
        return await started(self._client, self._settings)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._client.close()
        if isinstance(error, KafkaError | OSError | TimeoutError):
            raise unreachable(self._settings, error) from error


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Effective settings by topic."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for code, message, _, name, entries in response.resources:
            if code:
                raise BrokerError(f"topic: {name}: settings cannot be read: {message}")
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def _led(admin: AIOKafkaAdminClient, names: list[str], timeout_ms: int = 30_000) -> None:
    """Wait until every partition has a leader."""
    until = time.monotonic() + timeout_ms / 1000
    while True:
        told: list[dict[str, Any]] = await admin.describe_topics(names)
        waiting = [
            t["topic"]
            for t in told
            if t["error_code"] or any(p["leader"] < 0 for p in t["partitions"])
        ]
        if not waiting:
            return
        if time.monotonic() > until:
            raise BrokerError(f"topic: {waiting[0]} has no leader after {timeout_ms} ms")
        await asyncio.sleep(0.05)
