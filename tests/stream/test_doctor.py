"""`citybrain doctor` and `citybrain topics` on a real cluster."""

from pathlib import Path

import pytest

from citybrain.broker import LocalBroker
from citybrain.city import City
from tests.alerting import small_city
from tests.stream.command_line import citybrain


@pytest.fixture
def city(tmp_path: Path, city_id: str) -> City:
    return small_city(tmp_path, city_id)


async def test_missing_topics_are_found_made_and_then_well(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    at = ["--city", str(city.folder), "--broker", broker.settings.bootstrap]
    before = await citybrain("doctor", "--json", "--data", str(tmp_path), *at)
    wrong = [check for check in before.json if check["state"] == "wrong"]
    assert (before.code, [check["name"] for check in wrong]) == (5, ["topics"])
    assert wrong[0]["mend"] == "citybrain topics create"

    differs = await citybrain("topics", "diff", "--json", *at)
    assert differs.code == 5
    assert {d["found"] for d in differs.json} == {"missing"}
    made = await citybrain("topics", "create", "--json", *at)
    assert len(made.json) == len(differs.json)
    same = await citybrain("topics", "diff", "--json", *at)
    assert (same.code, same.json) == (0, [])

    after = await citybrain("doctor", "--json", "--data", str(tmp_path), *at)
    assert after.code == 0, after.out
    state = {check["name"]: check for check in after.json}
    assert state["clock"]["state"] == "ok"
    assert state["clock"]["found"].endswith("of the broker's")
    assert state["topics"]["state"] == "ok"
    table = await citybrain("doctor", "--data", str(tmp_path), *at)
    assert "broker" in table.out


async def test_the_topic_table_and_the_settings_are_shown(city: City) -> None:
    shown = await citybrain("topics", "list", "--json", "--city", str(city.folder))
    readings = next(topic for topic in shown.json if topic["name"] == "readings")
    assert readings["full_name"] == f"citybrain.{city.id}.readings"
    assert readings["partitions"] == city.partitions
