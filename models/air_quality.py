"""The air-quality sub-index of a concentration, by standard and date.

Breakpoints of HJ 633-2026 (with GB 3095-2026, in force from 2026-03-01) and of the US EPA
(May 2024) come from `aqi-hub`; HJ 633-2012, whose PM limits differ, is the short table below.
Sub-indices are rounded up (HJ 633) or to the nearest (EPA), and end at 500.
"""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
from aqi_hub.aqi_cn.common import breakpoints as _cn
from aqi_hub.aqi_usa.common import breakpoints as _us

from citybrain.errors import PackError
from citybrain.kinds import HOUR
from citybrain.models.block import Array

CHINA, CHINA_2012, CHINA_2026, US_2024 = "HJ 633", "HJ 633-2012", "HJ 633-2026", "US EPA 2024"
CHANGE = date(2026, 3, 1)
"""First day of HJ 633-2026."""

_Row = tuple[float, float, float, float]

# HJ 633-2012, table 1; all other pollutants are as in HJ 633-2026.
_2012: Mapping[str, Sequence[_Row]] = {
    "PM25_24H": [(0, 35, 0, 50), (35, 75, 50, 100), (75, 115, 100, 150), (115, 150, 150, 200),
                 (150, 250, 200, 300), (250, 350, 300, 400), (350, 500, 400, 500)],
    "PM10_24H": [(0, 50, 0, 50), (50, 150, 50, 100), (150, 250, 100, 150), (250, 350, 150, 200),
                 (350, 420, 200, 300), (420, 500, 300, 400), (500, 600, 400, 500)],
}  # fmt: skip
_TABLES: Mapping[str, Mapping[str, Sequence[_Row]]] = {
    CHINA_2012: {**_cn, **_2012},
    CHINA_2026: _cn,
    US_2024: _us,
}
STANDARDS = (CHINA, *_TABLES)

# kind -> (item of the tables, averaging time, unit of the table in ug/m3 at 25 degrees C)
_CN_ITEMS = {
    "pm25": ("PM25_24H", 24 * HOUR, 1.0), "pm10": ("PM10_24H", 24 * HOUR, 1.0),
    "so2": ("SO2_24H", 24 * HOUR, 1.0), "no2": ("NO2_24H", 24 * HOUR, 1.0),
    "co": ("CO_24H", 24 * HOUR, 1000.0), "o3": ("O3_8H", 8 * HOUR, 1.0),
}  # fmt: skip
_US_ITEMS = {
    "pm25": ("PM25_24H", 24 * HOUR, 1.0), "pm10": ("PM10_24H", 24 * HOUR, 1.0),
    "so2": ("SO2_1H", HOUR, 2.62), "no2": ("NO2_1H", HOUR, 1.88),
    "co": ("CO_8H", 8 * HOUR, 1145.0), "o3": ("O3_8H", 8 * HOUR, 1963.0),
}  # fmt: skip
_US_STEP = {"PM25_24H": 0.1, "CO_8H": 0.1, "O3_8H": 0.001}


def standard_on(standard: str, day: date) -> str:
    """The edition in force: `HJ 633` is that of 2012 or of 2026 by the local day.

    Raises PackError for a name that is not in `STANDARDS`.
    """
    if standard == CHINA:
        return CHINA_2026 if day >= CHANGE else CHINA_2012
    if standard not in _TABLES:
        raise PackError(f"standard: {standard!r} is not one of {STANDARDS}")
    return standard


def averaging_ms(kind: str, standard: str) -> int | None:
    """Over how long a pollutant is averaged for its index; None: it is no pollutant."""
    row = (_US_ITEMS if standard == US_2024 else _CN_ITEMS).get(kind)
    return row[1] if row else None


def sub_index(kind: str, ug_m3: Array, standard: str, day: date) -> Array:
    """Sub-index of concentrations [n] in ug/m3; NaN stays NaN.

    Raises PackError as `standard_on`, KeyError if the kind is no pollutant.

    >>> sub_index("pm25", np.array([75.0]), "HJ 633", date(2026, 2, 28)).tolist()
    [100.0]
    >>> sub_index("pm25", np.array([75.0]), "HJ 633", date(2026, 3, 1)).tolist()
    [114.0]
    """
    edition = standard_on(standard, day)
    item, _, unit = (_US_ITEMS if edition == US_2024 else _CN_ITEMS)[kind]
    rows = _TABLES[edition][item]
    value = ug_m3 / unit
    # A hair is taken off before rounding up: 60 lies at 100 and not, by rounding error, at 101.
    if edition != US_2024:
        knots = [rows[0][0], *(row[1] for row in rows)]
        levels = [rows[0][2], *(row[3] for row in rows)]
        index = np.ceil(np.interp(value, knots, levels, right=_beyond(item)) - 1e-9)
        return np.asarray(index)
    step = _US_STEP.get(item, 1.0)
    value = np.floor(value / step + 1e-9) * step
    knots = [edge for row in rows for edge in (row[0], row[1])]
    levels = [level for row in rows for level in (row[2], row[3])]
    return np.round(np.interp(value, knots, levels, right=levels[-1]))


def _beyond(item: str) -> float:
    """Above its last breakpoint ozone over 8 hours stays at 300, everything else at 500."""
    return 300.0 if item == "O3_8H" else 500.0
