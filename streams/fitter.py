"""The fitter: a process of its own that fits models on history and puts them into the log.

Fitting takes seconds of a core, which an agent's loop does not have. A model goes into its
shard's statistics partition (`Effective`) and into the models topic (`Fit`) in one Kafka
transaction, under an id that fences off a second fitter of the same city. What was fitted is
read back from the models topic at the start, so a restart fits nothing twice. When it fits,
and from when on a model is used, is in `models.schedule`; where it comes too late for that,
the model is used from the next window, and the stage says that it is overdue until then.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from citybrain import fits, log, stats
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.errors import BrokerError
from citybrain.fits import Fit, Overdue, Scoreboard
from citybrain.kafka import KafkaSettings, consumer_arguments, producer_arguments, started
from citybrain.kinds import DAY, HOUR
from citybrain.models import fit, fitting
from citybrain.models.baseline import MIN_VISITS
from citybrain.models.daytime import Daytime
from citybrain.models.fitting import Rows
from citybrain.models.schedule import Fitted, early
from citybrain.process import Health, running, stop_event
from citybrain.stats import Effective
from citybrain.streams import fitrows
from citybrain.topics import full_name

EVERY_S = 15.0
_WORTH_A_LOOK = 1.1  # history of a kind has grown by so much since it was last looked at
_LEAST_SPAN_MS = round((MIN_VISITS - 1) * DAY)

Key = tuple[str, str]


class Metrics:
    """What the fitter counts, and how the live forecasts do (read from the models topic)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.fits = Counter(
            "citybrain_fitter_fits", "Models published.", ["kind"], registry=registry
        )
        self.seconds = Histogram(
            "citybrain_fitter_fit_seconds", "Loading and fitting one model.", registry=registry
        )
        self.until = Gauge(
            "citybrain_fitter_fitted_until_timestamp_seconds",
            "Event time until which the newest model of a kind was fitted.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.overdue = Gauge(
            "citybrain_fitter_overdue_models",
            "Shards whose windows wait for a newer model of a kind.", ["kind"], registry=registry,
        )  # fmt: skip
        labels = ["kind", "horizon_seconds", "regime"]
        self.coverage = Gauge(
            "citybrain_forecast_coverage_ratio",
            "Share of truths within the forecast's interval.", labels, registry=registry,
        )  # fmt: skip
        self.error = Gauge(
            "citybrain_forecast_error_ratio",
            "Mean absolute error over that of the better of persistence and historical average.",
            labels, registry=registry,
        )  # fmt: skip
        self.demoted = Gauge(
            "citybrain_forecast_demoted_horizons",
            "Horizons at which a simpler forecast is in use, over all shards.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self._boards: dict[Key, Scoreboard] = {}

    def scored(self, board: Scoreboard) -> None:
        """A scoreboard of one shard: the gauges show the mean over shards, by weight."""
        self._boards[board.shard, board.kind] = board
        mine = [b for (_, kind), b in self._boards.items() if kind == board.kind]
        self.demoted.labels(board.kind).set(sum(len(b.demoted) for b in mine))
        sums: dict[tuple[int, str], list[float]] = {}
        for score in (score for b in mine for score in b.scores):
            total = sums.setdefault((score.horizon_ms, score.regime), [0.0] * 4)
            best = min(score.persistence, score.historical_average)
            for i, x in enumerate((1.0, score.coverage, score.model, best)):
                total[i] += score.weight * x
        for (horizon, regime), (weight, covered, model, best) in sums.items():
            where = (board.kind, str(horizon // 1000), regime)
            self.coverage.labels(*where).set(covered / weight)
            if best > 0:
                self.error.labels(*where).set(model / best)


@dataclass(slots=True)
class _Look:
    """When a kind of a shard was last looked at: rows of the kind then, whether they have grown
    since, and the midnight for which it is settled whether there is a model."""

    rows: int = 0
    grown: bool = False
    midnight_ms: int = -1


class Fitter:
    """Decides and fits; `publish` sends. `known`: the last fit of each shard and kind."""

    def __init__(self, history: Path, city: City, metrics: Metrics) -> None:
        self.known: dict[Key, Fitted] = {}
        self.progress_ms = 0
        self._history, self._city, self._metrics = history, city, metrics
        self._daytime = Daytime(city.zone_info, city.calendar)
        self._looks: dict[Key, _Look] = {}
        self._overdue: dict[Key, int] = {}

    def learn(self, record: fits.Record) -> None:
        """A record of the models topic."""
        if isinstance(record, Fit):
            self.known[record.shard, record.kind] = Fitted(record.until_ms, record.rows)
            self._metrics.until.labels(record.kind).set(record.until_ms / 1000)
        elif isinstance(record, Scoreboard):
            self._metrics.scored(record)
        elif isinstance(record, Overdue):
            self._overdue[record.shard, record.kind] = record.due_ms
        if isinstance(record, Fit | Overdue):
            waiting = [
                key for key, due_ms in self._overdue.items()
                if key[1] == record.kind and (key not in self.known
                                              or self.known[key].until_ms < due_ms)
            ]  # fmt: skip
            self._metrics.overdue.labels(record.kind).set(len(waiting))

    def worth_a_look(self) -> list[Key]:
        """Shards and kinds that may be due: a midnight has passed, or history has grown."""
        keys: list[Key] = []
        for kind, now in sorted(fitrows.stored(self._history).items()):
            if kind not in self._city.kinds or now.newest_ms - now.oldest_ms < _LEAST_SPAN_MS:
                continue
            midnight = self._daytime.midnight(now.newest_ms)
            for shard in self._city.shards:
                if not self._city.roster(shard, kind):
                    continue
                look = self._looks.setdefault((shard, kind), _Look())
                if now.rows >= _WORTH_A_LOOK * look.rows:
                    look.rows, look.grown = now.rows, True
                if look.grown or look.midnight_ms < midnight:
                    keys.append((shard, kind))
        return keys

    def fit(self, shard: str, kind: str) -> tuple[Fit, list[Effective]] | None:
        """The model that is due, None if none is. Takes seconds: call it beside the loop."""
        told = fitrows.told(self._history, self._city, shard, kind, self._daytime)
        if told is None:
            return None
        newest, day = told
        last, step = self.known.get((shard, kind)), self._city.kinds[kind].analysed_ms
        look = self._looks.setdefault((shard, kind), _Look())
        if look.midnight_ms < day.midnight_ms:
            look.midnight_ms = until = day.midnight_ms
            if last is None or last.until_ms < until:
                history, _ = fitrows.load(self._history, self._city, shard, kind, until)
                done = self._fitted(shard, kind, history, until, day.effective_ms(step))
                if done is not None:
                    return done
        hour = (newest + step) // HOUR * HOUR
        grown, look.grown = look.grown, False
        if not grown or (last is not None and hour <= last.until_ms):
            return None
        history, backfilled = fitrows.load(self._history, self._city, shard, kind, hour)
        if not early(int((~np.isnan(history.value)).sum()), backfilled, last):
            return None
        # Two windows after the newest that history has: about when the stage reads it.
        return self._fitted(shard, kind, history, hour, newest + 3 * step)

    def _fitted(
        self, shard: str, kind: str, history: Rows, until_ms: int, from_ms: int
    ) -> tuple[Fit, list[Effective]] | None:
        parts = fitting.fit(history, self._city, self._city.kinds[kind], until_ms)
        if not parts:
            return None
        record = _record(shard, kind, parts, history, until_ms, from_ms)
        return record, fitting.effective(shard, kind, parts, from_ms)


def _record(
    shard: str, kind: str, parts: list[bytes], known: Rows, until_ms: int, from_ms: int
) -> Fit:
    return Fit(
        shard=shard,
        kind=kind,
        digest=fit.digest(parts),
        forecaster=fitting.FORECASTER,
        since_ms=int(known.start_ms[0]),
        until_ms=until_ms,
        from_ms=from_ms,
        rows=int((~np.isnan(known.value)).sum()),
        sensors=len(known.names),
        seed=fitting.SEED,
        at_ms=wall_clock(),
    )


async def run(
    settings: KafkaSettings,
    city: City,
    data: Path,
    port: int = 0,
    stop: asyncio.Event | None = None,
    every_s: float = EVERY_S,
) -> None:
    """Fit and publish until `stop` (SIGTERM, SIGINT); every_s: pause between two looks.

    Raises BrokerError, SetupError.
    """
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    fitter = Fitter(data / "history", city, metrics)

    def health() -> Health:
        late = wall_clock() - fitter.progress_ms > 20 * EVERY_S * 1000
        facts: Mapping[str, int | float | str] = {"models": len(fitter.known)}
        waiting = "broker" if not fitter.progress_ms else "a fit that takes too long"
        return Health(
            ok=not late,
            waiting=waiting if late else "",
            progress_ms=fitter.progress_ms,
            facts=dict(facts),
        )

    with running("fitter", data, registry, health, port):
        stop = stop or stop_event()
        consumer = await started(
            AIOKafkaConsumer(**consumer_arguments(settings, "fitter")), settings
        )
        try:
            producer = await started(
                AIOKafkaProducer(
                    **producer_arguments(
                        settings, "fitter", transactional_id=f"citybrain.{city.id}.fitter"
                    )
                ),
                settings,
            )
            try:
                await _work(consumer, producer, city, fitter, metrics, stop, every_s)
            except ProducerFenced as error:
                raise BrokerError(f"fitter: another fitter of {city.id} has taken over") from error
            finally:
                await producer.stop()
        finally:
            await consumer.stop()


async def _work(
    consumer: AIOKafkaConsumer,
    producer: AIOKafkaProducer,
    city: City,
    fitter: Fitter,
    metrics: Metrics,
    stop: asyncio.Event,
    every_s: float,
) -> None:
    models = TopicPartition(full_name(city.id, "models"), 0)
    consumer.assign([models])
    await consumer.seek_to_beginning(models)
    while not stop.is_set():
        await _read_to_end(consumer, models, fitter)
        fitter.progress_ms = wall_clock()
        for shard, kind in await asyncio.to_thread(fitter.worth_a_look):
            if stop.is_set():
                return
            begin = time.monotonic()
            done = await asyncio.to_thread(fitter.fit, shard, kind)
            fitter.progress_ms = wall_clock()
            if done is None:
                continue
            await _publish(producer, city, *done)
            fitter.learn(done[0])
            metrics.fits.labels(kind).inc()
            metrics.seconds.observe(time.monotonic() - begin)
            log.get(__name__).info(
                "model fitted", shard=shard, kind=kind, digest=done[0].digest, rows=done[0].rows,
                until_ms=done[0].until_ms, from_ms=done[0].from_ms,
            )  # fmt: skip
        try:
            await asyncio.wait_for(stop.wait(), every_s)
        except TimeoutError:
            continue


async def _read_to_end(consumer: AIOKafkaConsumer, models: TopicPartition, fitter: Fitter) -> None:
    """Take what the models topic holds by now; what cannot be read is logged, not fatal."""
    while got := await consumer.getmany(models, timeout_ms=500):
        for record in got.get(models, ()):
            try:
                fitter.learn(fits.decoder.decode(record.value or b""))
            except msgspec.MsgspecError as error:
                log.get(__name__).warning(
                    "unreadable models record", offset=record.offset, error=str(error)
                )


async def _publish(
    producer: AIOKafkaProducer, city: City, record: Fit, parts: list[Effective]
) -> None:
    """The model into its shard's log and onto the record, all or nothing."""
    topic, partition = full_name(city.id, "stats"), city.shards[record.shard]
    async with producer.transaction():
        for part in parts:
            await producer.send(
                topic, stats.encode_control(part), key=part.kind.encode(), partition=partition
            )
        await producer.send(
            full_name(city.id, "models"),
            msgspec.json.encode(record),
            key=f"fit/{record.shard}/{record.kind}".encode(),
            partition=0,
        )
