"""Writes the built-in city's pack: `python -m citybrain.edge.world.build [FOLDER]`.

The same wheel gives the same files, byte for byte. Written by hand and left alone: rules.toml,
calendar.toml, NOTICE. Generated: city.toml, sensors.csv, roads.geojson, world.toml,
signals.toml, emergency.toml.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from citybrain.city import BUILT_IN
from citybrain.edge.world.demand import Demand
from citybrain.edge.world.emergency_file import emergency_file, turns
from citybrain.edge.world.layout import Installed, installed
from citybrain.edge.world.network import Network, car_lanes, middle, network_file
from citybrain.edge.world.places import FACILITIES, ZONES, zone_at
from citybrain.edge.world.plan import Plan
from citybrain.edge.world.routes import world_file
from citybrain.edge.world.signals_file import signals_file
from citybrain.edge.world.streets import EPOCH_S, INTERVAL_S, Streets

PARTITIONS = 12
_ToLonLat = Callable[[float, float], tuple[float, float]]


def main() -> None:
    """Write the pack into the folder given, or into the installed package."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT_IN / "adlershof"
    folder.mkdir(parents=True, exist_ok=True)
    network = Network.read()
    sensors = list(installed(network))
    with _projection() as degrees:
        files = {
            "city.toml": _city(degrees),
            "sensors.csv": _sensors(sensors, degrees),
            "roads.geojson": _roads(network, degrees),
            "world.toml": world_file(network, sensors, {}),
            "signals.toml": signals_file(),
            "emergency.toml": emergency_file(network, degrees),
        }
    _write(folder, files)
    flows = _flows(Plan.read(folder))
    with _projection():
        _write(folder, {"world.toml": world_file(network, sensors, flows)})
    print(f"{folder}: {len(sensors)} sensors, {len(network.roads)} roads", file=sys.stderr)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _flows(plan: Plan) -> dict[str, int]:
    """Vehicles an hour at each loop, from half an hour of a simulated morning peak."""
    second, hour = EPOCH_S + 100 * 86_400, 8.5
    demand = Demand(1, plan.entries, plan.exits, plan.inside, plan.paths)
    streets = Streets(plan, 1, second)
    counts: dict[str, float] = {}
    for now in range(second, second + 1800):
        streets.step(demand.trips(now, hour, free=False))
        if streets.second % INTERVAL_S == 0:
            for sensor, kind, _, value in streets.readings():
                if kind == "vehicle_count":
                    counts[sensor] = counts.get(sensor, 0.0) + value
    streets.close()
    return {sensor: round(count * 2) for sensor, count in counts.items()}


class _projection:
    """Metres of the network's plane to WGS-84 degrees, by the simulator's own PROJ."""

    def __enter__(self) -> _ToLonLat:
        path = network_file()
        import libsumo

        libsumo.start(["sumo", "-n", str(path), "--no-step-log", "--no-warnings"])

        def degrees(x: float, y: float) -> tuple[float, float]:
            lon, lat = libsumo.simulation.convertGeo(x, y)
            return round(lon, 6), round(lat, 6)

        return degrees

    def __exit__(self, *_: object) -> None:
        import libsumo

        libsumo.close()


def _city(degrees: _ToLonLat) -> str:
    lines = [
        "# Written by citybrain.edge.world.build. Source of the network: see NOTICE.",
        'id = "adlershof"',
        'time_zone = "Europe/Berlin"',
        f"partitions = {PARTITIONS}",
        "generated = true",
        "",
        "[name]",
        'zh = "柏林阿德勒斯霍夫(模拟)"',
        'en = "Berlin Adlershof (simulated)"',
        "",
        "# Rain gauges report as often as detectors, a cloudburst is quick.",
        "[kinds.precipitation]",
        "cadence_s = 10",
        "",
        "[shards]",
        *(f"{zone} = {number}" for number, zone in enumerate(ZONES)),
    ]
    for zone, (zh, en) in ZONES.items():
        lines += ["", f"[zones.{zone}]", f'zh = "{zh}"', f'en = "{en}"']
    for kind, spot in FACILITIES:
        lon, lat = degrees(spot.x, spot.y)
        lines += [
            "",
            "[[settings.facilities]]",
            f'id = "{spot.id}"',
            f'kind = "{kind}"',
            f'zone = "{zone_at(spot.x, spot.y)}"',
            f"lon = {lon}",
            f"lat = {lat}",
            f'zh = "{spot.zh}"',
            f'en = "{spot.en}"',
            "generated = true",
        ]
    return "\n".join(lines) + "\n"


def _sensors(sensors: Iterable[Installed], degrees: _ToLonLat) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["sensor", "kinds", "zone", "shard", "gateway", "lon", "lat", "link", "name"])
    for s in sensors:
        row = [s.id, ";".join(s.kinds), s.zone, s.zone, s.gateway, *degrees(s.x, s.y)]
        table.writerow([*row, s.link, s.name])
    return out.getvalue()


def _roads(network: Network, degrees: _ToLonLat) -> str:
    features = []
    beyond = turns(network)
    for edge in network.roads:
        line = [degrees(x, y) for x, y in edge.getShape()]
        facts = {
            "id": edge.getID(),
            "name": edge.getName(),
            "zone": zone_at(*middle(edge)),
            "length_m": round(edge.getLength(), 1),
            "speed_kmh": round(edge.getSpeed() * 3.6, 1),
            "lanes": len(car_lanes(edge)),
            "class": edge.getType().removeprefix("highway."),
            "next": beyond[edge.getID()],
        }
        line = [p for i, p in enumerate(line) if i == 0 or p != line[i - 1]]
        geometry = {"type": "LineString", "coordinates": line}
        features.append({"type": "Feature", "properties": facts, "geometry": geometry})
    rows = ",\n".join(
        json.dumps(feature, ensure_ascii=False, separators=(",", ":")) for feature in features
    )
    return f'{{"type":"FeatureCollection","features":[\n{rows}\n]}}\n'


if __name__ == "__main__":
    main()
