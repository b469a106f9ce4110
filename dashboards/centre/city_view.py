"""What the page needs of a pack."""

from typing import Any

from citybrain.city import City
from citybrain.dashboards.centre.signals_view import junctions


def describe(city: City) -> dict[str, Any]:
    """What of a pack the page needs, once: names, kinds, sensors in roster order, roads."""
    return {
        "id": city.id,
        "zh": city.zh,
        "en": city.en,
        "time_zone": city.zone_info.key,
        "generated": city.generated,
        "version": city.version,
        "zones": {zone: {"zh": zh, "en": en} for zone, (zh, en) in city.zones.items()},
        "kinds": {
            kind.name: {
                "zh": kind.zh,
                "en": kind.en,
                "unit": kind.unit,
                "total": kind.total,
                "pane_ms": kind.pane_ms,
                "analysed_ms": kind.analysed_ms,
                "cadence_ms": kind.cadence_ms,
                "horizons_ms": kind.horizons_ms,
            }
            for kind in city.kinds.values()
        },
        "rules": {
            rule.name: {"zh": rule.zh, "en": rule.en, "advice": rule.advice, "cause": rule.cause}
            for rule in city.rules.values()
        },
        "sensors": {
            s.id: {
                "kinds": s.kinds,
                "zone": s.zone,
                "shard": s.shard,
                "link": s.link,
                "name": s.name,
                "lon": s.lon,
                "lat": s.lat,
                "gateway": s.gateway,
            }
            for s in city.sensors.values()
        },
        "rosters": {
            shard: {kind: city.roster(shard, kind) for kind in city.kinds} for shard in city.shards
        },
        "junctions": junctions(city),
        "roads": {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "properties": {
                        "id": link.id,
                        "name": link.name,
                        "zone": link.zone,
                        "length_m": link.length_m,
                        "speed_kmh": link.speed_kmh,
                        "lanes": link.lanes,
                    },
                    "geometry": {"type": "LineString", "coordinates": link.line},
                }
                for link in city.links.values()
            ],
        },
    }
