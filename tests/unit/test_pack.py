"""A pack that does not hold together is refused, naming the file, the place and the value."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from citybrain.city import find
from citybrain.errors import PackError
from citybrain.pack import FILES, load


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A copy of the built-in city's pack, to be damaged."""
    folder = tmp_path / "copy"
    shutil.copytree(find("adlershof"), folder)
    return folder


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


def test_a_folder_is_accepted_wherever_a_citys_name_is(pack: Path) -> None:
    city, built_in = load(str(pack)), load("adlershof")
    assert city.sensors == built_in.sensors
    assert city.version == built_in.version


def test_any_change_of_a_pack_is_another_version(pack: Path) -> None:
    before = load(str(pack)).version
    change(pack / "rules.toml", "raise_at = 50.0", "raise_at = 51.0")
    assert load(str(pack)).version != before


@pytest.mark.parametrize("file", [f for f in FILES if f != "city.toml"])
def test_a_missing_file_is_named(pack: Path, file: str) -> None:
    (pack / file).unlink()
    with pytest.raises(PackError, match=rf"{file}: missing"):
        load(str(pack))


def test_a_city_that_does_not_exist_is_answered_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"nowhere.*neither built in \(\['adlershof'"):
        load(str(tmp_path / "nowhere"))


def test_a_link_whose_sensors_are_in_two_shards_is_refused_naming_both(pack: Path) -> None:
    path = pack / "sensors.csv"
    rows = [line.split(",") for line in path.read_text("utf-8").splitlines()]
    shards = sorted({row[3] for row in rows[1:]})
    links: dict[str, list[str]] = {}
    for row in rows[1:]:
        if row[7] and "occupancy" in row[1]:
            if row[7] in links:
                row[3] = next(shard for shard in shards if shard != row[3])
                break
            links[row[7]] = row
    path.write_text("\n".join(map(",".join, rows)) + "\n", "utf-8")
    with pytest.raises(PackError, match=rf"link '{row[7]}': {links[row[7]][0]} is in shard"):
        load(str(pack))


def _cell(file: str, line: int, column: int, value: str) -> Callable[[Path], object]:
    def damage(pack: Path) -> None:
        rows = (pack / file).read_text("utf-8").splitlines()
        cells = rows[line - 1].split(",")
        cells[column] = value
        rows[line - 1] = ",".join(cells)
        (pack / file).write_text("\n".join(rows) + "\n", "utf-8")

    return damage


def _text(file: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda pack: change(pack / file, old, new)


def _doubled(pack: Path) -> None:
    rows = (pack / "sensors.csv").read_text("utf-8").splitlines()
    (pack / "sensors.csv").write_text("\n".join([*rows, rows[1]]) + "\n", "utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bad time zone": (
        _text("city.toml", "Europe/Berlin", "Europe/Adlershof"),
        r"city\.toml: time_zone: 'Europe/Adlershof'",
    ),
    "an id that no topic may have": (
        _text("city.toml", 'id = "adlershof"', 'id = "Adlershof 1"'),
        r"city\.toml: id: 'Adlershof 1'",
    ),
    "no partitions": (
        _text("city.toml", "partitions = 12", "partitions = 0"),
        r"city\.toml: partitions: 0",
    ),
    "a shard outside the partitions": (
        _text("city.toml", "canal = 5", "canal = 12"),
        r"city\.toml: shards\.canal: 12",
    ),
    "two shards on one partition": (
        _text("city.toml", "canal = 5", "canal = 4"),
        r"city\.toml: shards: two shards share",
    ),
    "an unknown key": (
        _text("city.toml", "generated = true", "genrated = true"),
        r"city\.toml: .*genrated",
    ),
    "broken TOML": (_text("city.toml", "[name]", "[name"), r"city\.toml: "),
    "a kind that is not one": (
        _text("city.toml", "[name]", "[kinds.pm1]\ncadence_s = 60\n\n[name]"),
        r"city\.toml: kinds\.pm1: not a kind",
    ),
    "a cadence of nothing": (
        _text("city.toml", "[name]", "[kinds.pm25]\ncadence_s = 0\n\n[name]"),
        r"kinds\.pm25\.cadence_s: 0",
    ),
    "a sensor of an unknown kind": (
        _cell("sensors.csv", 2, 1, "vehicle_weight"),
        r"sensors\.csv: line 2: kinds: 'vehicle_weight'",
    ),
    "a sensor of an unknown zone": (
        _cell("sensors.csv", 3, 2, "moon"),
        r"sensors\.csv: line 3: zone: 'moon'",
    ),
    "a sensor of an unknown shard": (
        _cell("sensors.csv", 3, 3, "moon"),
        r"sensors\.csv: line 3: shard: 'moon'",
    ),
    "a sensor without a gateway": (
        _cell("sensors.csv", 4, 4, ""),
        r"sensors\.csv: line 4: gateway: is empty",
    ),
    "a longitude that is text": (
        _cell("sensors.csv", 4, 5, "east"),
        r"sensors\.csv: line 4: lon, lat: .*east",
    ),
    "latitude and longitude that are metres": (
        _cell("sensors.csv", 4, 6, "5809246.4"),
        r"sensors\.csv: line 4: lon, lat: .*5809246\.4 are not WGS-84",
    ),
    "a sensor on a road that is not there": (
        _cell("sensors.csv", 2, 7, "no-road"),
        r"sensors\.csv: .*link 'no-road' is not in roads\.geojson",
    ),
    "a doubled sensor": (_doubled, r"sensors\.csv: line 226: sensor: .*stands here twice"),
    "a missing column": (
        _text("sensors.csv", "sensor,kinds,zone", "sensor,kind,zone"),
        r"sensors\.csv: line 2: column 'kinds' is missing",
    ),
    "a line that ends early": (
        lambda pack: (pack / "sensors.csv").write_text(
            "".join((pack / "sensors.csv").read_text().splitlines(True)[:2]) + "d-x,vehicle_count\n"
        ),
        r"sensors\.csv: line 3: ends before zone",
    ),
    "roads cut short": (
        lambda pack: (pack / "roads.geojson").write_bytes(
            (pack / "roads.geojson").read_bytes()[:5000]
        ),
        r"roads\.geojson: ",
    ),
    "a table of sensors in another encoding": (
        lambda pack: (pack / "sensors.csv").write_bytes(
            "sensor,kinds\nMüller,pm25".encode("latin1")
        ),
        r"sensors\.csv: not a readable CSV file in UTF-8",
    ),
    "a quote that never ends": (
        _cell("sensors.csv", 224, 8, '"Adlergestell'),
        r"sensors\.csv: not a readable CSV file",
    ),
    "a road without length": (
        _text("roads.geojson", '"length_m":', '"length_m":0,"was":'),
        r"roads\.geojson: .*: length_m: 0",
    ),
    "a road with a speed that is no number": (
        _text("roads.geojson", '"speed_kmh":', '"speed_kmh":NaN,"was":'),
        r"roads\.geojson: .*: speed_kmh: nan",
    ),
    "a road in metres": (
        _text("roads.geojson", '"coordinates":[[', '"coordinates":[[398790.46,5809246.45],['),
        r"roads\.geojson: .*: coordinates: ",
    ),
    "roads that are a list": (
        lambda pack: (pack / "roads.geojson").write_text("[]"),
        r"roads\.geojson: feature 0: ",
    ),
    "a rule with a field that is not one": (
        _text("rules.toml", "raise_at = 50.0", "raises_at = 50.0"),
        r"rules\.toml: \[rainstorm-blue\]: .*raises_at",
    ),
    "a rule on a kind that is not one": (
        _text("rules.toml", 'kinds = ["vehicle_speed"]', 'kinds = ["speed"]'),
        r"rules\.toml: \[congestion\]: kinds: 'speed'",
    ),
    "a severity that is not one": (
        _text("rules.toml", "severity = 4", "severity = 5"),
        r"rules\.toml: \[congestion\]: .*severity",
    ),
    "a rule whose parent is not there": (
        _text("rules.toml", 'parent = "congestion"', 'parent = "jam"'),
        r"rules\.toml: \[flow-anomaly\]: parent: 'jam'",
    ),
    "a threshold that never clears": (
        _text("rules.toml", "clear_at = 0.5\nbelow", "clear_at = 0.2\nbelow"),
        r"rules\.toml: \[congestion\]: clear_at: 0\.2",
    ),
    "a holiday that is no date": (
        _text("calendar.toml", "2026-01-01,", '"new year",'),
        r"calendar\.toml: .*holidays",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(pack: Path, what: str) -> None:
    damage, complaint = DAMAGE[what]
    damage(pack)
    with pytest.raises(PackError, match=complaint) as caught:
        load(str(pack))
    assert "\n" not in str(caught.value)


def test_an_hourly_station_loses_windows_that_it_cannot_fill(pack: Path) -> None:
    change(pack / "city.toml", "[name]", "[kinds.pm25]\ncadence_s = 3600\n\n[name]")
    kind = load(str(pack)).kinds["pm25"]
    assert kind.windows_ms == (3_600_000,)
    assert kind.expected(24 * 3_600_000) == 24


def test_the_built_in_city_is_whole() -> None:
    city = load("adlershof")
    assert city.generated
    assert len(city.links) == 740
    assert {s.shard for s in city.sensors.values()} == set(city.shards)
    per_gateway = {s.gateway: set() for s in city.sensors.values()}  # type: dict[str, set[str]]
    for sensor in city.sensors.values():
        per_gateway[sensor.gateway].add(sensor.zone)
    across = {gateway for gateway, zones in per_gateway.items() if len(zones) > 1}
    assert across == {"weather", "air"}, "a controller belongs to one zone"
    assert all(len(link.line) >= 2 for link in city.links.values())
