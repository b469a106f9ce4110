"""A pack as lookup tables, for code that handles readings as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from citybrain.city import City
from citybrain.columns import Roster

Pair = tuple[str, str]
"""(shard, gateway): what has sequence numbers and a watermark of its own."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sensors of one gateway in one shard that report one kind, in the order of sensors.csv."""

    pair: Pair
    kind: str
    roster: Roster


class Layout:
    """Codes for a pack's sensors, kinds and gateways, and what follows from them.

    group[sensor, kind] indexes `groups` (-1: the sensor has no such kind), position[sensor,
    kind] is its place in that group's roster; gateway[sensor] indexes `gateways`. low, high,
    resolution, units and ring_ms are by kind; unit_of by its name.
    """

    def __init__(self, city: City) -> None:
        self.sensors = {name: i for i, name in enumerate(city.sensors)}
        self.kinds = {name: i for i, name in enumerate(city.kinds)}
        self.sensor_places, self.kind_places = Places([*self.sensors]), Places([*self.kinds])
        self.pairs: list[Pair] = sorted({(s.shard, s.gateway) for s in city.sensors.values()})
        names = sorted({s.gateway for s in city.sensors.values()})
        self.gateways = {name: i for i, name in enumerate(names)}
        of = [self.gateways[s.gateway] for s in city.sensors.values()]
        self.gateway = np.array(of, np.int32)
        members: dict[tuple[str, str, str], list[str]] = {}
        for sensor in city.sensors.values():
            for kind in sensor.kinds:
                members.setdefault((sensor.shard, sensor.gateway, kind), []).append(sensor.id)
        self.groups: list[Group] = []
        self.group = np.full((len(self.sensors), len(self.kinds)), -1, np.int32)
        self.position = np.zeros_like(self.group)
        for (shard, gateway, kind), ids in sorted(members.items()):
            rows = [self.sensors[name] for name in ids]
            self.group[rows, self.kinds[kind]] = len(self.groups)
            self.position[rows, self.kinds[kind]] = np.arange(len(ids))
            self.groups.append(Group((shard, gateway), kind, Roster(tuple(ids))))
        rows_of = list(city.kinds.values())
        self.units = tuple(k.unit for k in rows_of)
        self.unit_of = dict(zip(self.kinds, self.units, strict=True))
        self.low = np.array([k.low for k in rows_of])
        self.high = np.array([k.high for k in rows_of])
        self.resolution = np.array([k.resolution for k in rows_of])
        self.ring_ms = np.array([k.ring_ms for k in rows_of], np.int64)


class Places:
    """Finds names of a column among known ones; remembers the last dictionary it looked up."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = pa.array(known, pa.utf8())
        self._seen = pa.array([], pa.utf8())
        self._table = np.empty(0, np.int32)

    def of(self, column: pa.Array) -> npt.NDArray[np.int32]:
        """Each row's place among the known names, -1 for none. The column has no nulls."""
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        if not self._seen.equals(encoded.dictionary):
            found = pc.index_in(encoded.dictionary, value_set=self._known).fill_null(-1)
            self._seen, self._table = encoded.dictionary, found.to_numpy()
        places: npt.NDArray[np.int32] = self._table[encoded.indices.to_numpy()]
        return places


def codes(names: Sequence[Any] | pa.Array, known: Mapping[str, int]) -> npt.NDArray[np.int32]:
    """Names as codes of a layout's table, -1 where it does not have them."""
    if not isinstance(names, pa.Array):
        return np.array([known.get(name, -1) for name in names], np.int32)
    encoded = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
    table = np.array([known.get(n, -1) for n in [*encoded.dictionary.to_pylist(), None]], np.int32)
    # A null has no name: it takes the table's last entry, which no name has.
    indices = encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)
    found: npt.NDArray[np.int32] = table[indices]
    return found
