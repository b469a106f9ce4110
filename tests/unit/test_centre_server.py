"""The centre over HTTP: what it refuses, what it says, who may give commands."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from httpx import AsyncClient

from citybrain import pack
from citybrain.alerts import Alert
from citybrain.dashboards.centre.alert_view import AlertView
from citybrain.dashboards.centre.server import Centre, event_stream
from citybrain.errors import SetupError
from citybrain.findings import Place
from tests.browser import messages

CITY = pack.load("adlershof")
NOW = 1_800_000_000_000
SENSOR = next(s for s in CITY.sensors.values() if "pm25" in s.kinds)


def _alert(number: int, **more: Any) -> Alert:
    out = messages.alert(f"noise/{number}", "noise", Place(zone="canal"), 4, NOW, **more)
    return msgspec.json.decode(out.value, type=Alert)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.5:8600", ""])
async def test_a_foreign_page_that_resolves_to_this_machine_gets_nothing(
    client: AsyncClient, host: str
) -> None:
    answer = await client.get("/api/state", headers={"host": host})
    assert answer.status_code == 400
    assert "figures" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:1234", "localhost:8600", "localhost"])
async def test_this_machines_own_names_are_answered(client: AsyncClient, host: str) -> None:
    assert (await client.get("/api/city", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/city", "/api/nothing", "/app/main.js", "/app/../x"])
async def test_every_answer_carries_the_strict_policy(client: AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/api/alerts", "/api/state"])
async def test_what_is_looked_at_cannot_be_changed(
    client: AsyncClient, method: str, path: str
) -> None:
    assert (await client.request(method, path)).status_code == 405


@pytest.mark.parametrize(
    "path", ["/package.json", "/node_modules/x", "/app/%2e%2e/package.json", "/text/../../x"]
)
async def test_only_the_pages_own_folders_are_served(client: AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_the_pack_on_the_page_is_the_whole_network_in_roster_order(
    client: AsyncClient,
) -> None:
    city = (await client.get("/api/city")).json()
    assert len(city["roads"]["features"]) == len(CITY.links)
    assert city["time_zone"] == "Europe/Berlin"
    assert city["generated"] is True
    for shard in CITY.shards:
        assert tuple(city["rosters"][shard]["vehicle_speed"]) == CITY.roster(shard, "vehicle_speed")
    assert city["kinds"]["pm25"]["unit"] == "ug/m3"


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("sensor=nobody&kind=pm25", 404, "sensor: 'nobody'"),
        (f"sensor={SENSOR.id}&kind=vehicle_speed", 404, "kind: 'vehicle_speed'"),
        (f"sensor={SENSOR.id}&kind=pm25&window=17", 400, "window: 17"),
        (f"sensor={SENSOR.id}&kind=pm25&window=-1", 400, "window: '-1'"),
        (f"sensor={SENSOR.id}&kind=pm25&hours=1e9", 400, "hours: '1e9'"),
        (f"sensor={SENSOR.id}&kind=pm25&hours=99999", 400, "hours: 99999"),
        ("", 404, "sensor: ''"),
    ],
)
async def test_a_wrong_series_is_refused_by_name(
    client: AsyncClient, query: str, status: int, named: str
) -> None:
    answer = await client.get(f"/api/series?{query}")
    assert answer.status_code == status
    assert named in answer.json()["error"]


async def test_a_series_without_any_history_is_empty_and_not_an_error(client: AsyncClient) -> None:
    answer = (await client.get(f"/api/series?sensor={SENSOR.id}&kind=pm25&hours=24")).json()
    assert answer["points"] == []
    assert answer["unit"] == "ug/m3"


async def test_alerts_can_be_searched_and_paged(client: AsyncClient, centre: Centre) -> None:
    for number in range(5):
        centre.alerts.put(_alert(number, active=number > 2, updated_ms=NOW + number))
    ids = [a["id"] for a in (await client.get("/api/alerts?limit=2")).json()["alerts"]]
    assert ids == ["noise/4", "noise/3"]
    assert len((await client.get("/api/alerts?active=false")).json()["alerts"]) == 3
    assert (await client.get("/api/alerts?severity=1")).json()["alerts"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "active=yes", "severity=5", "before_ms=-"])
async def test_a_wrong_question_about_alerts_is_refused_by_name(
    client: AsyncClient, query: str
) -> None:
    answer = await client.get(f"/api/alerts?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(query.partition("=")[0])


async def test_health_is_not_well_while_the_broker_is_away(client: AsyncClient) -> None:
    answer = await client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["waiting"] == "broker"


async def test_a_page_resumes_after_its_snapshot_without_a_gap(
    client: AsyncClient, centre: Centre
) -> None:
    await centre.ring.append(b'{"n":1}')
    before = (await client.get("/api/state")).json()["event"]
    await centre.ring.append(b'{"n":2}')
    await centre.ring.append(b'{"n":3}')
    stream = event_stream(centre, before)
    got = [await anext(stream) for _ in range(3)]
    assert got[1:] == [b'id: boot-2\ndata: {"n":2}\n\n', b'id: boot-3\ndata: {"n":3}\n\n']


async def test_the_stream_passes_proxies_unbuffered_and_uncompressed(
    client: AsyncClient, centre: Centre
) -> None:
    await centre.ring.close()
    answer = await client.get("/api/events")
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in answer.headers


async def test_a_page_of_an_earlier_run_is_told_to_load_the_snapshot(client: AsyncClient) -> None:
    answer = await client.get("/api/events?after=other-12")
    assert "event: reload" in answer.text


def test_the_alert_table_is_what_the_topic_says_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "alerts.sqlite"
    view = AlertView(path)
    view.put(_alert(1, revision=3))
    view.put(_alert(2))
    view.close()
    again = AlertView(path)
    assert {a.id for a in again.find()} == {"noise/1", "noise/2"}
    # The topic was made anew: it has only one alert, at a lower revision.
    again.put(_alert(1, revision=0))
    again.complete()
    assert [(a.id, a.revision) for a in again.find()] == [("noise/1", 0)]
    again.put(_alert(1, revision=5))
    again.put(_alert(1, revision=4))
    assert [a.revision for a in again.find()] == [5]
    again.close()


def test_a_file_that_is_no_database_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "alerts.sqlite"
    path.write_text("not a database, whatever its name says" * 20)
    with pytest.raises(SetupError, match=r"alerts\.sqlite.*may be deleted"):
        AlertView(path)


async def test_answers_are_json_that_a_browser_can_read(client: AsyncClient) -> None:
    assert json.loads((await client.get("/api/state")).text)["waiting"] == "broker"
