"""A small city for tests: two zones, two shards, three gateways."""

from collections.abc import Iterable
from pathlib import Path

CITY = """\
id = "small"
time_zone = "Asia/Shanghai"
partitions = 4
[name]
zh = "小城"
en = "Small"
[zones.north]
zh = "北"
en = "North"
[zones.south]
zh = "南"
en = "South"
[shards]
north = 0
south = 1
"""

SENSORS = (
    "d1,vehicle_count;vehicle_speed,north,north,g1",
    "d2,vehicle_count;vehicle_speed,north,north,g1",
    "d3,vehicle_count,south,south,g1",
    "d4,vehicle_count;occupancy,south,south,g2",
    "w1,temperature;precipitation,north,north,g3",
    "w2,temperature,south,south,g3",
)


def write_pack(folder: Path, sensors: Iterable[str] = SENSORS, city: str = CITY) -> Path:
    """A folder with a whole pack; sensors are `id,kinds,zone,shard,gateway`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "city.toml").write_text(city, "utf-8")
    rows = [f"{row},116.4,39.9,,," for row in sensors]
    head = "sensor,kinds,zone,shard,gateway,lon,lat,link,name"
    (folder / "sensors.csv").write_text("\n".join([head, *rows]) + "\n", "utf-8")
    (folder / "roads.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (folder / "rules.toml").write_text("")
    (folder / "calendar.toml").write_text("")
    return folder
