"""The state of a running city in one structure: what runs, what waits, where readings are.

Each part is asked on its own: a broker that is away does not hide which processes live.
"""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from citybrain import fits, ledger
from citybrain.alerts import Alert
from citybrain.city import City
from citybrain.contents import consumer, latest
from citybrain.errors import BrokerError
from citybrain.kafka import KafkaSettings, admin_arguments, ping, started, unreachable
from citybrain.kinds import MINUTE
from citybrain.process import Health, RunFile, living
from citybrain.standing import progress, read_alerts

BEHIND_MS = 10 * MINUTE
"""A shard so far behind the furthest one is worth a word."""
SUM_TRIES = 15


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A living process and what its /health says."""

    process: str
    pid: int
    port: int
    started_ms: int
    health: Health


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """Records of a topic that a consumer group has not acknowledged yet."""

    group: str
    topic: str
    records: int


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that somebody has to do with. by_severity: of the active ones."""

    active: int
    unacknowledged: int
    shelved: int
    suppressed: int
    by_severity: dict[int, int]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted model in use. overdue: its shard has told windows that wait for a newer one."""

    shard: str
    kind: str
    forecaster: str
    digest: str
    sensors: int
    fitted_ms: int
    overdue: bool = False


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster that answered."""

    nodes: list[str]
    cluster_id: str
    round_trip_ms: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. problems: what is not as it should be, in words; none means healthy.

    shards: event time that each has passed. sum_holds: None where the broker cannot be asked.
    """

    city: str
    generated: bool
    at_ms: int
    healthy: bool
    problems: list[str]
    processes: list[Process]
    broker: Broker | None = None
    lags: list[Lag] = []
    shards: dict[str, int] = {}
    readings: ledger.Book | None = None
    sum_holds: bool | None = None
    alerts: Alerts | None = None
    models: list[Model] = []


async def overview(settings: KafkaSettings, city: City, data: Path, now_ms: int) -> Overview:
    """How the city is. Raises nothing that can be told as one of its problems."""
    processes = await asyncio.to_thread(_processes, data)
    problems = [
        f"{p.process}: {p.health.waiting or 'makes no progress'}"
        for p in processes
        if not p.health.ok
    ]
    if not processes:
        problems.append(f"nothing runs on this machine with the data folder {data}")
    seen = Overview(
        city=city.id, generated=city.generated, at_ms=now_ms, healthy=False, problems=problems,
        processes=processes,
    )  # fmt: skip
    try:
        seen = await _from_cluster(seen, settings, city)
    except BrokerError as error:
        problems.append(str(error))
    problems += _behind(seen.shards)
    if seen.readings and not seen.sum_holds:
        problems.append(f"readings do not add up: {seen.readings.unexplained} are unexplained")
    return msgspec.structs.replace(seen, healthy=not problems, problems=problems)


async def settled_book(
    settings: KafkaSettings, city: City, tries: int = SUM_TRIES
) -> tuple[ledger.Book, bool]:
    """The book, and whether its sum holds.

    It is looked at until it does, for as long as parties' accounts of a running city may be
    apart.
    """
    first = book = await ledger.read(settings, city.id, city.shards)
    for _ in range(tries):
        if ledger.agree(first, book):
            return book, True
        await asyncio.sleep(1)
        book = await ledger.read(settings, city.id, city.shards)
    return book, ledger.agree(first, book)


def _processes(data: Path) -> list[Process]:
    return [
        Process(
            process=run.process, pid=run.pid, port=run.port, started_ms=run.started_ms,
            health=health_of(run),
        )
        for run in living(data)
    ]  # fmt: skip


def health_of(run: RunFile) -> Health:
    """What a living process says of itself, or why it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{run.port}/health", timeout=5) as answer:
            return msgspec.json.decode(answer.read(), type=Health)
    except urllib.error.HTTPError as error:
        with error:  # 503: it lives and says what it waits for
            body = error.read()
        try:
            return msgspec.json.decode(body, type=Health)
        except msgspec.MsgspecError:
            return Health(ok=False, waiting=f"/health answers {error.code}")
    except (OSError, msgspec.MsgspecError) as error:
        return Health(ok=False, waiting=f"/health does not answer: {error}")


async def _from_cluster(seen: Overview, settings: KafkaSettings, city: City) -> Overview:
    answer = await ping(settings)
    broker = Broker(
        nodes=list(answer.nodes), cluster_id=answer.cluster_id, round_trip_ms=answer.round_trip_ms
    )
    seen = msgspec.structs.replace(seen, broker=broker)
    book, holds = await settled_book(settings, city)
    found = await latest(settings, city.id, "models")
    return msgspec.structs.replace(
        seen,
        readings=book,
        sum_holds=holds,
        lags=await _lags(settings, city.id),
        shards=await progress(settings, city.id),
        alerts=_alerts(await read_alerts(settings, city.id)),
        models=_models(found.values()),
    )


async def _lags(settings: KafkaSettings, city: str) -> list[Lag]:
    """Of the groups of this city, by topic. Raises BrokerError."""
    admin = await started(AIOKafkaAdminClient(**admin_arguments(settings)), settings)
    try:
        names = [str(name) for name, *_ in await admin.list_consumer_groups()]
        mine = sorted(name for name in names if name.startswith(f"citybrain.{city}."))
        committed = {name: await admin.list_consumer_group_offsets(name) for name in mine}
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from error
    finally:
        await admin.close()
    places = {place for offsets in committed.values() for place in offsets}
    if not places:
        return []
    async with consumer(settings) as client:
        ends = await client.end_offsets(list(places))
    lags: dict[tuple[str, str], int] = {}
    for group, offsets in committed.items():
        for place, at in offsets.items():
            key = group, place.topic.rpartition(".")[2]
            lags[key] = lags.get(key, 0) + max(0, ends[place] - max(0, at.offset))
    return [Lag(group=g, topic=t, records=n) for (g, t), n in sorted(lags.items())]


def _alerts(known: Sequence[Alert]) -> Alerts:
    active = [alert for alert in known if alert.active]
    return Alerts(
        active=len(active),
        unacknowledged=sum(not alert.acknowledged for alert in known),
        shelved=sum(alert.shelved_until_ms > 0 for alert in active),
        suppressed=sum(alert.suppressed_by != "" for alert in active),
        by_severity={s: sum(alert.severity == s for alert in active) for s in (1, 2, 3, 4)},
    )


def _models(values: Iterable[bytes]) -> list[Model]:
    records = [fits.decoder.decode(value) for value in values]
    due = {
        (late.shard, late.kind): late.due_ms for late in records if isinstance(late, fits.Overdue)
    }
    return [
        Model(
            shard=fit.shard, kind=fit.kind, forecaster=fit.forecaster, digest=fit.digest,
            sensors=fit.sensors, fitted_ms=fit.at_ms,
            overdue=due.get((fit.shard, fit.kind), -1) > fit.until_ms,
        )
        for fit in records
        if isinstance(fit, fits.Fit)
    ]  # fmt: skip


def _behind(shards: Mapping[str, int]) -> list[str]:
    furthest = max(shards.values(), default=0)
    return [
        f"shard {shard} is {(furthest - passed) // MINUTE} minutes behind the others"
        for shard, passed in sorted(shards.items())
        if furthest - passed > BEHIND_MS
    ]
