"""How things stand in a running city, read from its topics: alerts, time, changed rules."""

import asyncio

import msgspec

from citybrain import findings, stats
from citybrain.alerts import Alert
from citybrain.changes import CURRENT_PACK, Settings
from citybrain.city import City
from citybrain.columns import Rosters
from citybrain.contents import latest, records
from citybrain.emergency import Incident, Order, ResponderState
from citybrain.errors import UsageError
from citybrain.kafka import KafkaSettings

TAIL = 5_000
"""So many records before its end a log is searched for what comes every few seconds."""


async def read_alerts(settings: KafkaSettings, city: str) -> list[Alert]:
    """Every alert that the city still knows, each as it is now. Raises BrokerError."""
    found = await latest(settings, city, "alerts")
    return [msgspec.json.decode(value, type=Alert) for value in found.values()]


async def read_emergency(
    settings: KafkaSettings, city: str
) -> tuple[list[Incident], list[Order], list[ResponderState]]:
    """Incidents, orders and responders, each as it is now. Raises BrokerError."""
    decode = msgspec.json.decode
    incidents = await latest(settings, city, "incidents")
    orders = await latest(settings, city, "dispatches")
    responders = await latest(settings, city, "responders")
    return (
        [decode(value, type=Incident) for value in incidents.values()],
        sorted((decode(v, type=Order) for v in orders.values()), key=lambda o: (o.sent_ms, o.id)),
        [decode(value, type=ResponderState) for value in responders.values()],
    )


async def progress(settings: KafkaSettings, city: str) -> dict[str, int]:
    """Shard -> event time that it has passed, of shards heard lately. Raises BrokerError."""
    passed: dict[str, int] = {}
    async for record in records(settings, city, "findings", last=TAIL):
        if b'"progress"' in record.value:
            entry = findings.decode(record.value)
            if isinstance(entry, findings.Progress):
                passed[entry.shard] = max(passed.get(entry.shard, 0), entry.through_ms)
    return passed


def city_time(settings: KafkaSettings, city: City) -> int:
    """The city's time: what its furthest shard has passed. Raises UsageError if none has."""
    passed = asyncio.run(progress(settings, city.id))
    if not passed:
        raise UsageError(f"until: {city.id} has no time of its own yet; give a time, not a span")
    return max(passed.values())


def changed_settings(settings: KafkaSettings, city: City) -> Settings:
    """What has been changed since the pack was written; {} for nothing. Raises BrokerError."""
    told = asyncio.run(latest(settings, city.id, "packs")).get(CURRENT_PACK)
    changed = stats.decode(told, Rosters()) if told else None
    return changed.settings if isinstance(changed, stats.Rules) else {}
