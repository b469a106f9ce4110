"""Real messages of the output topics for a made-up hour, for tests of the centre.

The engine writes the same bytes; these let a test say exactly what is on the page.
"""

import math
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from citybrain import forecasts, stats
from citybrain.accounts import Account
from citybrain.alerts import Alert
from citybrain.city import City
from citybrain.columns import Roster
from citybrain.findings import LinkState, Place
from citybrain.fits import Fit
from citybrain.forecasts import Forecast, ForecastHead
from citybrain.stage import Out
from citybrain.stats import Stats, StatsHead

MINUTE = 60_000
LEVEL = {
    "vehicle_count": (9.0, 4.0), "occupancy": (18.0, 8.0), "vehicle_speed": (34.0, 9.0),
    "pedestrian_count": (6.0, 4.0), "temperature": (14.0, 3.0), "relative_humidity": (68.0, 8.0),
    "precipitation": (0.1, 0.1), "wind_speed": (3.4, 1.0), "atmospheric_pressure": (1013.0, 2.0),
    "pm25": (38.0, 12.0), "pm10": (61.0, 14.0), "so2": (6.0, 2.0), "no2": (34.0, 9.0),
    "co": (600.0, 150.0), "o3": (58.0, 18.0), "noise_level": (58.0, 5.0),
}  # fmt: skip
"""Usual level and swing, by kind."""


def _values(kind: str, names: tuple[str, ...], start_ms: int) -> Any:
    level, swing = LEVEL[kind]
    hour = start_ms / 3_600_000
    values = []
    for name in names:
        wave = 0.7 * math.sin(hour * 2.1 + sum(map(ord, name)) % 7)
        noise = 0.35 * random.Random(f"{name}{kind}{start_ms}").gauss(0, 1)
        values.append(max(0.0, level + swing * (wave + noise)))
    return np.array(values)


def window(
    city: City, shard: str, kind: str, window_ms: int, start_ms: int, missing: float = 0.0
) -> Out:
    """A closed window of all sensors of a shard; `missing`: share that said nothing."""
    names = city.roster(shard, kind)
    row = city.kinds[kind]
    expected = row.expected(window_ms)
    chance = random.Random(f"{shard}{kind}{start_ms}")
    seen = np.array([0 if chance.random() < missing else expected for _ in names], np.int32)
    value = _values(kind, names, start_ms)
    nothing = seen == 0
    empty = np.where(nothing, np.nan, value)
    head = StatsHead(
        shard=shard,
        kind=kind,
        window_ms=window_ms,
        step_ms=window_ms,
        start_ms=start_ms,
        revision=0,
        expected=expected,
        cause_offset=0,
        cause_ms=0,
        generated=city.generated,
    )
    record = Stats(
        head=head,
        roster=Roster(names),
        codes=np.arange(len(names), dtype=np.int32),
        seen=seen,
        late=np.zeros_like(seen),
        sum=np.where(nothing, 0.0, value if row.total else value * seen),
        sumsq=np.where(nothing, 0.0, value**2),
        min=empty,
        max=empty,
        last=empty,
        last_ms=np.where(nothing, -1, start_ms).astype(np.int64),
    )
    return Out("stats", stats.encode(record), kind.encode(), city.shards[shard])


def forecast(city: City, shard: str, kind: str, issued_ms: int, horizon_ms: int) -> Out:
    """A forecast for all sensors of a shard."""
    names = city.roster(shard, kind)
    value = _values(kind, names, issued_ms + horizon_ms)
    spread = LEVEL[kind][1] * (0.6 + 0.5 * min(2.0, horizon_ms / 3_600_000))
    head = ForecastHead(
        shard=shard,
        kind=kind,
        window_ms=city.kinds[kind].analysed_ms,
        issued_ms=issued_ms,
        target_ms=issued_ms + horizon_ms,
        horizon_ms=horizon_ms,
        model="ridge@1f0c",
        generated=city.generated,
    )
    record = Forecast(
        head,
        Roster(names),
        np.arange(len(names), dtype=np.int32),
        value,
        np.maximum(0, value - spread),
        value + spread,
    )
    return Out("forecasts", forecasts.encode(record), shard.encode())


def link_state(city: City, link: str, state: Any, at_ms: int, lasts_ms: int = 300_000) -> Out:
    """How a road flows."""
    ratio = {"smooth": 0.85, "slow": 0.5, "jam": 0.3, "heavy-jam": 0.1, "unknown": None}[state]
    record = LinkState(
        link=link,
        state=state,
        at_ms=at_ms,
        expires_ms=at_ms + lasts_ms,
        ratio=ratio,
        speed_kmh=None if ratio is None else round(ratio * city.links[link].speed_kmh, 1),
        generated=city.generated,
    )
    return Out("link-states", msgspec.json.encode(record), link.encode())


def alert(alert_id: str, rule: str, place: Place, severity: int, at_ms: int, **more: object) -> Out:
    """An alert's record; `more` overrides fields."""
    fields: dict[str, object] = {
        "id": alert_id,
        "revision": 0,
        "transition": "raised",
        "rule": rule,
        "cause": rule,
        "severity": severity,
        "active": True,
        "acknowledged": False,
        "opened_ms": at_ms,
        "updated_ms": at_ms,
        "detector": "anomaly",
        "finding_count": 3,
        "generated": True,
        **more,
    }
    record = Alert(place=place, **fields)  # type: ignore[arg-type]  # encoded and decoded below
    encoded = msgspec.json.encode(record)
    msgspec.json.decode(encoded, type=Alert)
    return Out("alerts", encoded, alert_id.encode())


def account(shard: str, at_ms: int, counted: int) -> Out:
    """The engine's totals of a shard."""
    record = Account(
        party="rollup",
        shard=shard,
        at_ms=at_ms,
        counts={"counted": counted, "duplicate": 12, "backfilled": 4_200, "dead_lettered": 3},
    )
    return Out("accounts", msgspec.json.encode(record), f"rollup/{shard}".encode())


def fit(shard: str, kind: str, at_ms: int) -> Out:
    """A model was fitted."""
    record = Fit(
        shard=shard,
        kind=kind,
        digest="1f0c",
        forecaster="ridge",
        since_ms=at_ms - 86_400_000,
        until_ms=at_ms,
        from_ms=at_ms,
        rows=4_000,
        sensors=30,
        seed=1,
        at_ms=at_ms,
    )
    return Out("models", msgspec.json.encode(record), f"fit/{shard}/{kind}".encode())


def hours(city: City, until_ms: int, minutes: int = 90) -> Iterator[Out]:
    """The recent past of a city: windows, forecasts, models, totals, road states."""
    for shard in city.shards:
        for kind, row in city.kinds.items():
            if not city.roster(shard, kind):
                continue
            width, pane = row.analysed_ms, row.pane_ms
            last = until_ms // width * width
            for start in range(last - minutes * MINUTE, last, width):
                yield window(city, shard, kind, width, start, missing=0.02)
            end = until_ms // pane * pane
            for start in range(end - 30 * pane, end, pane):
                if pane != width:
                    yield window(city, shard, kind, pane, start, missing=0.01)
            if kind != "so2":
                yield fit(shard, kind, until_ms - 3_600_000)
                for horizon in row.horizons_ms:
                    back = minutes * MINUTE if horizon == row.horizons_ms[0] else horizon
                    for issued in range(last - back, last + 1, max(width, 2 * MINUTE)):
                        yield forecast(city, shard, kind, issued, horizon)
        yield account(shard, until_ms - 20_000, 400_000)
        yield account(shard, until_ms, 402_000)
    yield from roads(city, until_ms)


def closing(city: City, shard: str, now_ms: int) -> Iterator[Out]:
    """The windows of a shard that end at a time."""
    for kind, row in city.kinds.items():
        for width in dict.fromkeys((row.pane_ms, row.analysed_ms)):
            if now_ms % width == 0 and city.roster(shard, kind):
                yield window(city, shard, kind, width, now_ms - width)


def roads(city: City, at_ms: int) -> Iterator[Out]:
    """How every road flows; streets mostly in one state along their length."""
    chance = random.Random(7)
    moods: dict[str, str] = {}
    states = ["smooth", "slow", "jam", "heavy-jam", "unknown"]
    for link in city.links.values():
        mood = moods.setdefault(link.name or link.id, chance.choices(states, [58, 18, 8, 4, 12])[0])
        state = mood if chance.random() < 0.8 else "smooth"
        yield link_state(city, link.id, state, at_ms)


def some_alerts(city: City, now_ms: int) -> Iterator[Out]:
    """One of each level, one acknowledged, one a consequence, one cleared."""
    roads = [s for s in city.sensors.values() if s.link and "vehicle_speed" in s.kinds]
    air = next(s for s in city.sensors.values() if "pm25" in s.kinds)
    station = Place(zone=air.zone, sensor=air.id, lon=air.lon, lat=air.lat)

    def road(index: int) -> Place:
        s = roads[index % len(roads)]
        return Place(zone=s.zone, link=s.link, sensor=s.id, lon=s.lon, lat=s.lat)

    speed = {"kind": "vehicle_speed", "unit": "km/h"}
    jam = {"detector": "congestion", "advice": "congestion", **speed}
    yield alert(
        "cloudburst/city/1", "cloudburst", Place(zone=""), 2, now_ms - 4 * MINUTE,
        kind="precipitation", observed=1.2, expected=0.1, unit="mm", advice="cloudburst",
        detector="threshold", finding_count=7,
    )  # fmt: skip
    yield alert(
        "speed-anomaly/a/1", "speed-anomaly", road(12), 1, now_ms - 2 * MINUTE,
        observed=3.1, expected=37.5, advice="possible-incident", finding_count=4, **speed,
    )  # fmt: skip
    yield alert(
        "congestion/b/3", "congestion", road(40), 3, now_ms - 11 * MINUTE,
        observed=9.4, expected=41.0, **jam,
    )  # fmt: skip
    yield alert(
        "high-pm25/c/1", "high-pm25", station, 3, now_ms - 26 * MINUTE, kind="pm25",
        observed=131.0, expected=42.0, unit="ug/m3", advice="air-quality", detector="threshold",
    )  # fmt: skip
    yield alert(
        "congestion/d/1", "congestion", road(75), 4, now_ms - 18 * MINUTE, observed=15.2,
        expected=44.0, acknowledged=True, acknowledged_by="desk 2", comment="roadworks seen", **jam,
    )  # fmt: skip
    yield alert(
        "sensor-stuck/e/1", "sensor-stuck", road(101), 4, now_ms - 52 * MINUTE,
        kind="occupancy", advice="check-device", detector="health",
    )  # fmt: skip
    yield alert(
        "flow-anomaly/f/2", "flow-anomaly", road(40), 4, now_ms - 9 * MINUTE,
        kind="vehicle_count", observed=2.0, expected=11.0, unit="{vehicles}",
        advice="traffic-anomaly", suppressed_by="congestion/b/3",
    )  # fmt: skip
    yield alert(
        "noise/g/1", "noise", station, 4, now_ms - 95 * MINUTE, kind="noise_level",
        observed=79.5, expected=60.0, unit="dB(A)", advice="noise", active=False, revision=2,
        transition="cleared", cleared_ms=now_ms - 60 * MINUTE, updated_ms=now_ms - 60 * MINUTE,
    )  # fmt: skip
