"""`emergency.toml` of a pack: stations, responders, hospitals, and who is needed for what."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from citybrain.errors import TOML_ERRORS, PackError


class FromAlert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Alerts of one cause mean an incident of this kind. confidence: 0 to 1. least: the
    least severity (1 red to 4 blue) for which that holds."""

    kind: str
    confidence: float = 0.5
    least: Literal[1, 2, 3, 4] = 4


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A station or hospital: on which link, how far along it (m), and WGS-84."""

    id: str
    link: str
    pos_m: float
    lon: float
    lat: float
    zh: str
    en: str
    generated: bool = False


class Responder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A vehicle with its crew. kind: as `needs` calls it; its sensor has the same id."""

    id: str
    kind: str
    station: str
    generated: bool = False


class Emergency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """alerts: cause -> what it means. needs: kind of incident -> kinds of responders."""

    alerts: dict[str, FromAlert] = {}
    needs: dict[str, list[str]] = {}
    station: list[Base] = []
    hospital: list[Base] = []
    responder: list[Responder] = []

    @property
    def stations(self) -> dict[str, Base]:
        """By id."""
        return {base.id: base for base in self.station}

    @property
    def responders(self) -> dict[str, Responder]:
        """By id, in the order of ids."""
        return {one.id: one for one in sorted(self.responder, key=lambda r: r.id)}


def read(path: Path, links: Mapping[str, float]) -> Emergency:
    """The file, checked; an empty one if the pack has none. links: id -> length in m.

    Raises PackError naming the entry, the field, the value and what was expected.
    """
    if not path.is_file():
        return Emergency()
    try:
        told = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Emergency)
    except (*TOML_ERRORS, msgspec.ValidationError) as error:
        raise PackError(f"{path}: {error}") from error
    for table, rows in (("station", told.station), ("hospital", told.hospital)):
        _unique(path, table, [row.id for row in rows])
        for base in rows:
            where = f"{path}: {table} {base.id!r}"
            if base.link not in links:
                raise PackError(f"{where}: link: {base.link!r} is not in roads.geojson")
            if not 0 <= base.pos_m <= links[base.link]:
                raise PackError(
                    f"{where}: pos_m: {base.pos_m} is not within 0 to {links[base.link]}"
                )
            if not (-180 <= base.lon <= 180 and -90 <= base.lat <= 90):
                raise PackError(f"{where}: lon, lat: {base.lon}, {base.lat} are not WGS-84")
    _unique(path, "responder", [row.id for row in told.responder])
    for one in told.responder:
        if one.station not in told.stations:
            raise PackError(
                f"{path}: responder {one.id!r}: station: {one.station!r} is not one of"
                f" {sorted(told.stations)}"
            )
    for cause, meant in told.alerts.items():
        if meant.kind not in told.needs:
            raise PackError(
                f"{path}: alerts.{cause}: kind: {meant.kind!r} is not one of {sorted(told.needs)}"
            )
        if not 0 <= meant.confidence <= 1:
            raise PackError(
                f"{path}: alerts.{cause}: confidence: {meant.confidence} is not within 0 to 1"
            )
    there = {one.kind for one in told.responder}
    for kind, needs in told.needs.items():
        if not needs or (odd := sorted(set(needs) - there)):
            raise PackError(
                f"{path}: needs.{kind}: {odd[0] if needs else needs!r} is not a kind of responder;"
                f" there are {sorted(there)}"
            )
    return told


def _unique(path: Path, table: str, ids: list[str]) -> None:
    for name in ids:
        if not name or ids.count(name) > 1:
            raise PackError(f"{path}: {table}: id: {name!r} is empty or stands here twice")
