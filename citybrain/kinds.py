"""The kinds table: all that is particular to a kind of reading, one row a kind.

A city's pack may state another cadence for a kind (`[kinds.pm25] cadence_s = 3600`);
`Kind.at_cadence` then derives the row, so that an hourly station has no one-minute windows
and no 15-minute forecast.
"""

from dataclasses import dataclass, replace

from citybrain.errors import PackError

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """When a sensor of this kind counts as unwell. Durations in milliseconds.

    silent_ms: nothing heard for so long. stuck_ms: the same value (other than `rest`) for so
    long; None = a constant value is normal. saturates: the upper end of the range is a value
    like any other and may last (a queue that stands on a detector). max_step: a jump between
    neighbouring readings that the quantity cannot make. chatter_factor: more readings in a
    window than so many times what a well sensor sends.
    """

    silent_ms: int
    stuck_ms: int | None = None
    rest: float | None = None
    saturates: bool = False
    max_step: float | None = None
    chatter_factor: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of reading.

    unit: UCUM code. low, high: the physically possible range, inclusive. resolution: a power
    of two; values enter on this grid, so that sums are exact in any order. windows_ms: the
    tumbling windows, ascending, each a multiple of the one before; the first is the pane.
    rolling_ms: rolling lengths, stepped by and combined from the longest tumbling window.
    delay_ms: how long the watermark waits for late readings. ring_ms: how late a reading may
    be and still be counted in place; older ones take the backfill lane. total: whether a
    window's value is its sum (counts, rain) or its mean. horizons_ms: forecast horizons.
    """

    name: str
    zh: str
    en: str
    unit: str
    low: float
    high: float
    resolution: float
    cadence_ms: int
    windows_ms: tuple[int, ...]
    delay_ms: int
    ring_ms: int
    health: Health
    rolling_ms: tuple[int, ...] = ()
    horizons_ms: tuple[int, ...] = ()
    total: bool = False

    @property
    def pane_ms(self) -> int:
        """Length of the shortest window."""
        return self.windows_ms[0]

    @property
    def analysed_ms(self) -> int:
        """The window on which baselines, anomalies and forecasts work: a minute or longer."""
        return next((w for w in self.windows_ms if w >= MINUTE), self.windows_ms[-1])

    def expected(self, window_ms: int) -> int:
        """How many readings a well sensor sends in a window."""
        return max(1, window_ms // self.cadence_ms)

    def at_cadence(self, cadence_ms: int) -> "Kind":
        """The row for a city whose sensors of this kind report every `cadence_ms`.

        Windows that the cadence does not divide fall away, rolling ones that the longest window
        does not divide too; waits and health limits stretch with it.

        Raises PackError if the cadence is not positive or no round window fits it.
        """
        if cadence_ms <= 0:
            raise PackError(f"kinds.{self.name}.cadence_s: {cadence_ms / 1000} is not above 0")
        if cadence_ms == self.cadence_ms:
            return self
        windows = tuple(w for w in self.windows_ms if w >= cadence_ms and w % cadence_ms == 0)
        windows = windows or (cadence_ms,)
        stretch = max(1.0, cadence_ms / self.cadence_ms)
        stuck = self.health.stuck_ms
        return replace(
            self,
            cadence_ms=cadence_ms,
            windows_ms=windows,
            rolling_ms=tuple(
                r for r in self.rolling_ms if r > windows[-1] and r % windows[-1] == 0
            ),
            horizons_ms=tuple(h for h in self.horizons_ms if h >= windows[0]),
            delay_ms=max(self.delay_ms, cadence_ms // 10),
            ring_ms=max(self.ring_ms, 3 * windows[-1]),
            health=replace(
                self.health,
                silent_ms=max(self.health.silent_ms, 3 * cadence_ms),
                stuck_ms=None if stuck is None else max(stuck, int(min(stretch, 12) * stuck)),
            ),
        )


_LIVE = (10 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE)
_STATION = (MINUTE, 10 * MINUTE, HOUR)
_AHEAD = (15 * MINUTE, 30 * MINUTE, HOUR)
_HOURS_AHEAD = (HOUR, 6 * HOUR, 24 * HOUR)


def _traffic(
    name: str, zh: str, en: str, unit: str, high: float, resolution: float, **more: object
) -> Kind:
    row: dict[str, object] = {
        "low": 0.0,
        "cadence_ms": 10 * SECOND,
        "windows_ms": _LIVE,
        "delay_ms": 2 * SECOND,
        "ring_ms": 15 * MINUTE,
        "horizons_ms": _AHEAD,
        "health": Health(silent_ms=40 * SECOND, stuck_ms=5 * MINUTE, rest=0.0),
    } | more
    return Kind(name=name, zh=zh, en=en, unit=unit, high=high, resolution=resolution, **row)  # type: ignore[arg-type]  # row's values are checked by the registry test


def _station(
    name: str,
    zh: str,
    en: str,
    unit: str,
    low: float,
    high: float,
    resolution: float,
    **more: object,
) -> Kind:
    row: dict[str, object] = {
        "cadence_ms": MINUTE,
        "windows_ms": _STATION,
        "delay_ms": 5 * SECOND,
        "ring_ms": HOUR,
        "horizons_ms": _HOURS_AHEAD,
        "health": Health(silent_ms=4 * MINUTE, stuck_ms=6 * HOUR),
    } | more
    return Kind(
        name=name,
        zh=zh,
        en=en,
        unit=unit,
        low=low,
        high=high,
        resolution=resolution,
        **row,  # type: ignore[arg-type]  # as above
    )


_ROLLING_AIR = (8 * HOUR, 24 * HOUR)
_ROLLING_RAIN = (3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _traffic("vehicle_count", "车流量", "Vehicle count", "{vehicles}", 1000.0, 1.0, total=True),
        # A count repeats itself in steady traffic; a share of time in hundredths does not.
        _traffic(
            "occupancy",
            "占有率",
            "Occupancy",
            "%",
            100.0,
            2**-7,
            health=Health(silent_ms=40 * SECOND, stuck_ms=2 * MINUTE, rest=0.0, saturates=True),
        ),
        _traffic(
            "vehicle_speed",
            "车速",
            "Vehicle speed",
            "km/h",
            250.0,
            2**-7,
            # A lane without a vehicle has no speed to report; its counts tell of silence.
            health=Health(silent_ms=6 * HOUR, stuck_ms=10 * MINUTE),
        ),
        _traffic(
            "pedestrian_count", "行人数", "Pedestrian count", "{persons}", 5000.0, 1.0, total=True
        ),
        _traffic(
            "parking_occupied",
            "停车占用数",
            "Parked vehicles",
            "{vehicles}",
            20000.0,
            1.0,
            cadence_ms=MINUTE,
            windows_ms=(MINUTE, 5 * MINUTE, 30 * MINUTE),
            health=Health(silent_ms=5 * MINUTE, stuck_ms=DAY, rest=0.0),
        ),
        _station(
            "temperature",
            "气温",
            "Air temperature",
            "Cel",
            -60.0,
            60.0,
            2**-8,
            health=Health(silent_ms=4 * MINUTE, stuck_ms=6 * HOUR, max_step=10.0),
        ),
        _station(
            "relative_humidity",
            "相对湿度",
            "Relative humidity",
            "%",
            0.0,
            100.0,
            2**-7,
            health=Health(silent_ms=4 * MINUTE, stuck_ms=12 * HOUR, rest=100.0),
        ),
        _station(
            "precipitation",
            "降水量",
            "Precipitation",
            "mm",
            0.0,
            100.0,
            2**-8,
            total=True,
            rolling_ms=_ROLLING_RAIN,
            health=Health(silent_ms=4 * MINUTE, stuck_ms=HOUR, rest=0.0),
        ),
        _station("wind_speed", "风速", "Wind speed", "m/s", 0.0, 120.0, 2**-8),
        _station(
            "atmospheric_pressure",
            "气压",
            "Atmospheric pressure",
            "hPa",
            500.0,
            1100.0,
            2**-6,
            health=Health(silent_ms=4 * MINUTE, stuck_ms=12 * HOUR, max_step=10.0),
        ),
        _station("dew_point", "露点", "Dew point", "Cel", -80.0, 50.0, 2**-8),
        _station("pm25", "PM2.5", "PM2.5", "ug/m3", 0.0, 2000.0, 2**-6, rolling_ms=_ROLLING_AIR),
        _station("pm10", "PM10", "PM10", "ug/m3", 0.0, 5000.0, 2**-6, rolling_ms=_ROLLING_AIR),
        _station(
            "so2",
            "二氧化硫",
            "Sulphur dioxide",
            "ug/m3",
            0.0,
            4000.0,
            2**-6,
            rolling_ms=_ROLLING_AIR,
        ),
        _station(
            "no2",
            "二氧化氮",
            "Nitrogen dioxide",
            "ug/m3",
            0.0,
            4000.0,
            2**-6,
            rolling_ms=_ROLLING_AIR,
        ),
        _station(
            "co",
            "一氧化碳",
            "Carbon monoxide",
            "ug/m3",
            0.0,
            150000.0,
            2**-3,
            rolling_ms=_ROLLING_AIR,
        ),
        _station("o3", "臭氧", "Ozone", "ug/m3", 0.0, 2000.0, 2**-6, rolling_ms=_ROLLING_AIR),
        _station("noise_level", "噪声", "Noise level", "dB(A)", 0.0, 160.0, 2**-7),
    )
}

FLOW = ("vehicle_speed", "occupancy")
"""Kinds that say how a link flows."""
