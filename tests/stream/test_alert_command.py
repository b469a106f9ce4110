"""`citybrain alert` and `citybrain rule` against a running alerting stage."""

import asyncio
import time
from pathlib import Path

import pytest

from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.findings import Progress
from tests.alerting import T0, finding, small_city
from tests.stream.alerting_log import alerting, write
from tests.stream.command_line import Called, citybrain


@pytest.fixture
def city(tmp_path: Path, city_id: str) -> City:
    return small_city(tmp_path, city_id)


def where(broker: LocalBroker, city: City) -> list[str]:
    return ["--city", str(city.folder), "--broker", broker.settings.bootstrap]


async def listed(broker: LocalBroker, city: City, count: int) -> Called:
    until = time.monotonic() + 60
    while True:
        called = await citybrain("alert", "list", "--json", *where(broker, city))
        assert called.code == 0, called.err
        if len(called.json) >= count or time.monotonic() > until:
            return called
        await asyncio.sleep(0.1)


async def test_an_operator_deals_with_an_alert_from_the_terminal(
    broker: LocalBroker, city: City
) -> None:
    at = where(broker, city)
    async with alerting(broker.settings, city):
        passed = [Progress(shard=shard, through_ms=T0 + 1) for shard in city.shards]
        await write(
            broker.settings, city, "findings", [finding("rain"), finding("silent"), *passed]
        )
        called = await listed(broker, city, 2)
        assert [a["severity"] for a in called.json] == [3, 4]  # the worse one first
        silent, rain = (a["id"] for a in called.json)
        table = await citybrain("alert", "list", *at)
        assert rain in table.out
        assert "III yellow" in table.out

        seen = await citybrain("alert", "ack", rain, silent, "--person", "operator-1", *at)
        assert (seen.code, seen.out.split()) == (0, ["applied:", rain, "applied:", silent])
        again = await citybrain("alert", "ack", rain, "--person", "operator-2", *at)
        assert again.code == 8
        assert "acknowledged already, by operator-1" in again.err
        assert "Traceback" not in again.err

        late = await citybrain(
            "alert", "shelve", rain, "--until", "8d", "--reason", "x", "--person", "operator-1", *at
        )
        assert late.code == 8
        assert "not within 7 days" in late.err
        shelved = await citybrain(
            "alert", "shelve", rain, "--until", "2h", "--reason", "known", "--json",
            "--person", "operator-1", *at,
        )  # fmt: skip
        assert shelved.json[0]["outcome"] == "applied"
        shown = await citybrain("alert", "show", rain, "--json", *at)
        assert shown.json["shelved_until_ms"] == T0 + 1 + 2 * 3_600_000
        assert (await citybrain("alert", "unshelve", rain, "--person", "o", *at)).code == 0
        assert (await citybrain("alert", "assign", rain, "--to", "crew-7", *at)).code == 0
        text = (await citybrain("alert", "show", rain, *at)).out
        assert "crew-7" in text
        assert "operator-1" in text


async def test_a_threshold_is_changed_and_shown(broker: LocalBroker, city: City) -> None:
    at = where(broker, city)
    async with alerting(broker.settings, city):
        before = await citybrain("rule", "show", "rain", "--json", *at)
        assert before.json["levels"]["1"] == 4.0
        done = await citybrain("rule", "set", "rain", "levels.1", "5.5", "--person", "o", *at)
        assert (done.code, done.out.strip()) == (0, "applied: rain.levels.1 = 5.5")
        after = await citybrain("rule", "show", "rain", "--json", *at)
        assert after.json["levels"]["1"] == 5.5
        of_pack = await citybrain("rule", "show", "rain", "--json", "--pack", *at[:2])
        assert of_pack.json["levels"]["1"] == 4.0
        off = await citybrain("rule", "set", "jam", "enabled", "false", "--person", "o", *at)
        assert (off.code, off.out.strip()) == (0, "applied: jam.enabled = false")
        now = await citybrain("rule", "list", "--json", *at)
        assert {r["name"] for r in now.json if not r["enabled"]} == {"jam"}
        no = await citybrain("rule", "set", "rain", "severity", "1", "--person", "o", *at)
        assert no.code == 8
        assert "not a field of this rule" in no.err
    assert "rain" in (await citybrain("rule", "list", *at)).out


async def test_a_broker_that_was_never_started_is_a_clear_message(
    city: City, tmp_path: Path
) -> None:
    called = await citybrain(
        "alert", "list", "--city", str(city.folder), "--data", str(tmp_path / "none")
    )
    assert called.code == 2
    assert "name one with --broker HOST:PORT" in called.err
    assert "Traceback" not in called.err
