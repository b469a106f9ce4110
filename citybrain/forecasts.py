"""The forecasts log: what a model expects of the sensors of a shard at one target window."""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from citybrain import columns
from citybrain.columns import Roster, Rosters

VERSION = 1
READABLE = (1,)


class ForecastHead(msgspec.Struct, frozen=True, kw_only=True):
    """issued_ms: end of the last window that the model saw. target_ms: start of the window
    that is forecast, `horizon_ms` after `issued_ms`. coverage: the share of truths that the
    interval is to contain. model: name and content hash, `ridge@1f0c…`."""

    version: int = VERSION
    shard: str
    kind: str
    window_ms: int
    issued_ms: int
    target_ms: int
    horizon_ms: int
    model: str
    coverage: float = 0.9
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Forecast:
    """Columns by sensor, in the kind's unit (totals for kinds that count)."""

    head: ForecastHead
    roster: Roster
    codes: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]


_TYPES = {"value": np.float64, "lower": np.float64, "upper": np.float64}


def encode(forecast: Forecast) -> bytes:
    """The bytes of a forecast."""
    data = {name: getattr(forecast, name) for name in _TYPES}
    return columns.encode(forecast.head, forecast.roster, forecast.codes, data)


def decode(value: bytes, rosters: Rosters) -> Forecast:
    """Raises InvalidInput as `batch.decode`."""
    head, got = columns.decode(value, ForecastHead, rosters, _TYPES, READABLE)
    return Forecast(head, got.roster, got.codes, **got.data)
