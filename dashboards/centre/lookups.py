"""Short answers for programs: how roads flow, what stations measure, which rules hold."""

from collections.abc import Iterator, Mapping

import msgspec

from citybrain.city import City
from citybrain.dashboards.centre.frames import Frame
from citybrain.dashboards.centre.state import CityState
from citybrain.findings import LinkState
from citybrain.rules import Rule, adjusted


class Road(msgspec.Struct, frozen=True, kw_only=True):
    """A road link and its last known state; null where nothing was ever said of it."""

    id: str
    name: str
    zone: str
    state: LinkState | None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The newest closed window of one series. value: null if nothing was seen in it."""

    kind: str
    unit: str
    window_ms: int
    start_ms: int
    value: float | None
    seen: int
    expected: int


class Station(msgspec.Struct, frozen=True, kw_only=True):
    """A sensor, where it is, and the newest it has measured, by kind."""

    id: str
    name: str
    zone: str
    link: str
    lon: float
    lat: float
    measured: list[Measured]


class Roads(msgspec.Struct, frozen=True, kw_only=True):
    """Roads of the city, by id."""

    links: list[Road]


class Stations(msgspec.Struct, frozen=True, kw_only=True):
    """Sensors of the city, by id."""

    stations: list[Station]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules as they are now. pack: the version that findings and alerts carry."""

    pack: str
    rules: list[Rule]


def roads(state: CityState, zone: str) -> Roads:
    """How the roads of a zone flow; of all for ""."""
    found = sorted(
        (link for link in state.city.links.values() if zone in ("", link.zone)), key=lambda k: k.id
    )
    return Roads(
        links=[
            Road(id=link.id, name=link.name, zone=link.zone, state=state.link(link.id))
            for link in found
        ]
    )


def stations(state: CityState, zone: str, kind: str) -> Stations:
    """What the sensors of a zone (all for "") measure of a kind (all for "")."""
    places = {
        (shard, of): {name: i for i, name in enumerate(state.city.roster(shard, of))}
        for shard in state.city.shards
        for of in state.city.kinds
    }
    newest = state.frames.latest()
    found = [
        Station(
            id=s.id, name=s.name, zone=s.zone, link=s.link, lon=s.lon, lat=s.lat,
            measured=[
                seen
                for of in s.kinds
                if kind in ("", of)
                for seen in _newest(state, newest, s.shard, of, places[s.shard, of][s.id])
            ],
        )
        for s in sorted(state.city.sensors.values(), key=lambda s: s.id)
        if zone in ("", s.zone) and (not kind or kind in s.kinds)
    ]  # fmt: skip
    return Stations(stations=found)


def rules(city: City, state: CityState) -> Rules:
    """The rules with what was changed since the pack was written."""
    return Rules(
        pack=state.pack or city.version, rules=list(adjusted(city.rules, state.settings).values())
    )


def _newest(
    state: CityState,
    newest: Mapping[tuple[str, str, int], Frame],
    shard: str,
    kind: str,
    place: int,
) -> Iterator[Measured]:
    row = state.city.kinds[kind]
    frame = newest.get((shard, kind, row.pane_ms))
    if frame is not None:
        value = float(frame.value[place])
        yield Measured(
            kind=kind, unit=row.unit, window_ms=row.pane_ms, start_ms=frame.start_ms,
            value=None if value != value else round(value, 3),
            seen=int(frame.seen[place]), expected=frame.expected,
        )  # fmt: skip
