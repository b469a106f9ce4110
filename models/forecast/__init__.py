"""Forecasters: a new one is a file with a class and a line in `FORECASTERS`."""

from citybrain.models.forecast.base import Forecaster, Past, Situation
from citybrain.models.forecast.blend import Blend
from citybrain.models.forecast.historical_average import HistoricalAverage
from citybrain.models.forecast.network import Network
from citybrain.models.forecast.persistence import Persistence
from citybrain.models.forecast.ridge import Ridge

FORECASTERS: dict[str, Forecaster] = {
    forecaster.name: forecaster
    for forecaster in (Persistence(), HistoricalAverage(), Ridge(), Network(), Blend())
}

__all__ = ["FORECASTERS", "Forecaster", "Past", "Situation"]
