"""`citybrain sensor`: tokens are shown once and stored as hashes; a mistake is named."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from citybrain.cli.sensor import app
from citybrain.edge.tokens import Tokens
from citybrain.errors import CityBrainError, InvalidInput, PackError, SetupError, UsageError
from citybrain.pack import load
from tests.packs import write_pack


class Line:
    """The command line on a pack and a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.pack, self.data = write_pack(folder / "pack"), folder / "data"

    def run(self, *words: str) -> Result:
        where = ["--city", str(self.pack), "--data", str(self.data)]
        result = CliRunner().invoke(app, [*words, *where])
        if isinstance(result.exception, CityBrainError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_a_token_is_printed_once_and_only_its_hash_is_stored(line: Line) -> None:
    token = line.run("add", "--gateway", "g1").stdout.strip()
    grant = Tokens(line.data).check(token)
    assert grant
    assert (grant.gateway, grant.sensor) == ("g1", "")
    path = line.data / "secrets" / "tokens.json"
    assert token.rpartition("_")[2] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0, "nobody else may read it"


def test_tokens_can_be_replaced_and_taken_back(line: Line) -> None:
    first = line.run("add", "d1").stdout.strip()
    second = line.run("add", "d1", "--replace").stdout.strip()
    assert Tokens(line.data).check(first) is None
    grant = Tokens(line.data).check(second)
    assert grant
    assert (grant.gateway, grant.sensor) == ("g1", "d1")
    assert "1 token(s)" in line.run("revoke", "d1").stdout
    assert Tokens(line.data).check(second) is None
    with pytest.raises(UsageError, match="d1: has no token"):
        line.run("revoke", "d1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add"], "sensor, --gateway: expected one of them"),
        (["add", "--gateway", "g9"], "gateway: 'g9' is not in the pack of small; known are"),
        (["add", "new", "--kinds", "temperature", "--zone", "south"],
         "(?s)add this line to it.*new,temperature,south,south,GATEWAY,LON,LAT"),
        (["maintenance", "d1"], "--until, --end: expected one of them"),
        (["maintenance", "d1", "--until", "2h", "--end"], "--until, --end: expected one"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_was_expected(words: list[str], said: str, line: Line) -> None:
    with pytest.raises(UsageError, match=said):
        line.run(*words)
    assert not (line.data / "secrets").exists()


def test_a_new_sensor_can_be_written_into_the_pack(line: Line) -> None:
    new = ["--gateway", "g3", "--zone", "south", "--lon", "116.5", "--lat", "39.8", "--write"]
    token = line.run("add", "w9", "--kinds", "temperature;wind_speed", *new).stdout.strip()
    sensor = load(str(line.pack)).sensors["w9"]
    assert (sensor.kinds, sensor.shard) == (("temperature", "wind_speed"), "south")
    assert Tokens(line.data).check(token)


def test_a_new_sensor_that_does_not_fit_leaves_the_pack_as_it_was(line: Line) -> None:
    before = (line.pack / "sensors.csv").read_bytes()
    new = ["--gateway", "g3", "--zone", "south", "--lon", "116.5", "--lat", "39.8", "--write"]
    with pytest.raises(PackError, match="kinds: 'nonsense' is not a kind"):
        line.run("add", "w9", "--kinds", "nonsense", *new)
    assert (line.pack / "sensors.csv").read_bytes() == before


def test_check_says_which_step_would_refuse_a_reading(line: Line) -> None:
    with pytest.raises(InvalidInput, match="d1: token: no token"):
        line.run("check", "d1")
    line.run("add", "--gateway", "g1")
    with pytest.raises(InvalidInput, match="validation: unit: unit: 'mph', expected 'km/h'"):
        line.run("check", "d1", "--kind", "vehicle_speed", "--unit", "mph")
    with pytest.raises(InvalidInput, match=r"range: value: 3000\.0 is outside"):
        line.run("check", "d1", "--value", "3000")
    with pytest.raises(InvalidInput, match="no edge agent runs"):
        line.run("check", "d1", "--value", "3")


def test_list_tells_gateways_and_their_tokens(line: Line) -> None:
    line.run("add", "--gateway", "g1")
    rows = json.loads(line.run("list", "--json").stdout)
    assert {row["gateway"]: (row["sensors"], row["tokens"]) for row in rows} == {
        "g1": (3, 1), "g2": (1, 0), "g3": (2, 0),
    }  # fmt: skip


def test_a_damaged_token_file_is_named_and_lets_nobody_in(line: Line) -> None:
    token = line.run("add", "--gateway", "g1").stdout.strip()
    path = line.data / "secrets" / "tokens.json"
    path.write_text("{")
    with pytest.raises(SetupError, match=r"tokens: .*tokens\.json"):
        Tokens(line.data).check(token)


@pytest.mark.parametrize("token", ["", "_", "cb", "cb_", "cb__", "cb_x_y_z", "😀" * 1000])
def test_any_text_may_be_shown_as_a_token(token: str, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    tokens.add("g1", "", 0)
    assert tokens.check(token) is None
