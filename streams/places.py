"""The places of a shard as axes of arrays: its sensors of a kind, and the links they stand on."""

from collections.abc import Mapping

import numpy as np

from citybrain.city import City
from citybrain.kinds import FLOW
from citybrain.models.congestion import Flow
from citybrain.models.daytime import Daytime
from citybrain.models.detectors.base import Axis
from citybrain.models.links import Links
from citybrain.models.series import Series


def axis(city: City, names: tuple[str, ...], daytime: Daytime) -> Axis:
    """Sensors of one kind, with their gateways."""
    gateways = tuple(dict.fromkeys(city.sensors[name].gateway for name in names))
    number = {gateway: i for i, gateway in enumerate(gateways)}
    which = [number[city.sensors[name].gateway] for name in names]
    return Axis(names, gateways, np.array(which, dtype=np.int64), daytime)


def links(city: City, series: Mapping[str, Series], daytime: Daytime) -> Links | None:
    """The links that sensors of this shard stand on; None if there are none."""
    link_of: dict[str, list[str]] = {
        kind: [city.sensors[name].link for name in series[kind].axis.names]
        for kind in FLOW
        if kind in series and series[kind].axis.names
    }
    names = tuple(dict.fromkeys(link for found in link_of.values() for link in found if link))
    if not names:
        return None
    place = {name: i for i, name in enumerate(names)}
    index = {
        kind: np.array([place.get(link, -1) for link in found], dtype=np.int64)
        for kind, found in link_of.items()
    }
    free = np.array([city.links[name].speed_kmh for name in names])
    pane = max(series[kind].kind.pane_ms for kind in index)
    where = Axis(names, (), np.zeros(0, dtype=np.int64), daytime)
    return Links(where, Flow(len(names), free, index), pane, tuple(index))
