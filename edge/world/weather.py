"""Weather at stations: a Berlin year and day, slow random changes, and the rain field.

Pure and without state, as the rain field. Figures: mean temperature by month of the station
Berlin-Tempelhof, 1991 to 2020 (Deutscher Wetterdienst), rounded.
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from citybrain.edge.world.noise import curve
from citybrain.edge.world.rain import Cell, RainField

Array = npt.NDArray[np.float64]
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_MONTHS = (1.3, 2.1, 5.1, 10.0, 14.6, 18.0, 19.9, 19.5, 15.0, 10.2, 5.5, 2.3)


class Weather:
    """What stations at x, y (metres in the plane) measure."""

    def __init__(self, seed: int, x: Array, y: Array) -> None:
        self._seed, self._x, self._y = seed, x, y
        self._rain = RainField(seed)

    def at(self, time_ms: int, hour: float, cells: Iterable[Cell] = ()) -> dict[str, Array]:
        """Values by kind, one a station, in the kinds' units.

        time_ms: end of the minute that is reported. hour: local time of day. cells: rain on
        top of the field. What fell is `rain`'s to say.
        """
        cells = tuple(cells)
        rate = self.rain(time_ms, cells)
        wet: Array = np.clip(rate / 20.0, 0.0, 1.0)
        temperature = self.temperature(time_ms, hour) - 4.0 * wet + self._local(time_ms, "t", 0.4)
        slow = curve(self._seed, "humidity", time_ms, 5 * HOUR_MS)
        dryness = math.sin(math.pi * (hour - 9.0) / 12.0)
        humidity: Array = 72.0 + 12.0 * slow - 12.0 * dryness + 30.0 * wet
        gusts = self._local(time_ms, "gust", 1.0, 2 * 60_000)
        wind = self.wind(time_ms, hour) * (1.0 + 0.25 * gusts) + 3.0 * wet
        pressure = 1013.0 + 14.0 * curve(self._seed, "pressure", time_ms, 40 * HOUR_MS)
        values: dict[str, Array] = {
            "temperature": temperature,
            "relative_humidity": np.clip(humidity + self._local(time_ms, "rh", 2.0), 15.0, 100.0),
            "wind_speed": np.maximum(0.0, wind),
            "atmospheric_pressure": pressure - 0.8 * wet + self._local(time_ms, "p", 0.15),
        }
        return {kind: value.round(1) for kind, value in values.items()}

    def rain(self, time_ms: int, cells: Iterable[Cell] = ()) -> Array:
        """Mean rain of the ten seconds before, mm/h."""
        return self._rain.rate(self._x, self._y, time_ms - 5_000, cells)

    def temperature(self, time_ms: int, hour: float) -> float:
        """Air temperature of the city in degrees Celsius, before rain cools it."""
        day = datetime.fromtimestamp(time_ms / 1000, UTC).timetuple().tm_yday
        month = (day - 15) / 30.44
        before = math.floor(month)
        share = month - before
        mean = _MONTHS[before % 12] * (1 - share) + _MONTHS[(before + 1) % 12] * share
        swing = 2.0 + 2.5 * (mean / 20.0)
        return (
            mean
            + swing * math.sin(math.pi * (hour - 9.0) / 12.0)
            + 4.0 * curve(self._seed, "temperature", time_ms, 30 * HOUR_MS)
            + 0.6 * curve(self._seed, "temperature-fast", time_ms, HOUR_MS)
        )

    def wind(self, time_ms: int, hour: float) -> float:
        """Mean wind speed of the city in m/s; stronger by day."""
        slow = curve(self._seed, "wind", time_ms, 9 * HOUR_MS)
        return max(0.5, 3.4 + 2.2 * slow + 0.8 * math.sin(math.pi * (hour - 9.0) / 12.0))

    def _local(self, time_ms: int, name: str, size: float, period_ms: int = 20 * 60_000) -> Array:
        """What sets stations apart from each other."""
        names = [f"{name}{i}" for i in range(len(self._x))]
        return size * np.array([curve(self._seed, each, time_ms, period_ms) for each in names])
