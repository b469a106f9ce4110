"""Commands over HTTP through a real centre, the real broker and the alerting stage."""

import asyncio
import json
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.findings import Progress
from citybrain.topics import ensure
from tests.alerting import T0, finding, small_city
from tests.stream.alerting_log import alerting, write


@asynccontextmanager
async def centre(city: City, broker: LocalBroker, data: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A `citybrain centre` process, and a client that has its owner's token."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "citybrain", "centre", "--city", str(city.folder), "--data",
        str(data), "--broker", broker.settings.bootstrap, "--port", "0",
    )  # fmt: skip
    page = data / "centre" / "page.json"
    try:
        async with asyncio.timeout(60):
            while not page.exists() or not page.read_text():
                assert process.returncode is None
                await asyncio.sleep(0.1)
        secret = data / "secrets" / "owner.token"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        headers = {"Authorization": f"Bearer {secret.read_text().strip()}"}
        url = json.loads(page.read_text())["url"]
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        assert await process.wait() == 0


async def until(client: httpx.AsyncClient, path: str, key: str, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        while True:
            found: list[Any] = (await client.get(path)).json()[key]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)


async def test_a_program_deals_with_an_alert_over_http(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    city = small_city(tmp_path, city_id)
    await ensure(broker.settings, city.id, city.partitions)
    passed = [Progress(shard=shard, through_ms=T0 + 1) for shard in city.shards]
    await write(broker.settings, city, "findings", [finding("rain"), *passed])

    async with centre(city, broker, tmp_path / "data") as client:

        async def give(kind: str, wait_s: float = 30, **body: object) -> httpx.Response:
            return await client.post(f"/api/commands/{kind}?wait_s={wait_s}", json=body)

        # Nobody runs the alerting stage yet: the command waits in the log, and so can we.
        first = await give("assign", 0.2, id="a1", alert="unknown", assignee="crew-7")
        assert (first.status_code, first.json()["outcome"]) == (202, "pending")
        where = first.headers["location"]
        assert (await client.get(where)).status_code == 404
        async with alerting(broker.settings, city):
            async with asyncio.timeout(60):
                while (answer := await client.get(where)).status_code == 404:
                    await asyncio.sleep(0.1)
            assert answer.json()["outcome"] == "refused"
            (alert,) = await until(client, "/api/alerts", "alerts", 1)

            seen = await give("acknowledge", id="b1", alert=alert["id"], comment="seen")
            assert (seen.status_code, seen.json()["outcome"]) == (200, "applied")
            again = await give("acknowledge", id="b1", alert=alert["id"], comment="seen")
            assert (again.status_code, again.json()) == (200, seen.json())
            other = await give("acknowledge", alert=alert["id"])
            assert other.status_code == 409
            assert "acknowledged already" in other.json()["why"]
            hour = T0 + 3_600_000
            for kind, more in (
                ("assign", {"assignee": "crew-7"}),
                ("shelve", {"until_ms": hour, "reason": "known"}),
                ("unshelve", {}),
            ):
                done = await give(kind, alert=alert["id"], **more)
                assert done.status_code == 200, done.text
            done = await give("set-rule", rule="rain", field="levels.1", value=5)
            assert done.status_code == 200, done.text
            done = await give("set-maintenance", sensor="d1", until_ms=hour)
            assert done.status_code == 200, done.text
            assert (await give("end-maintenance", sensor="d1")).status_code == 200
            async with asyncio.timeout(60):
                while True:
                    now = (await client.get(f"/api/alerts/{alert['id']}")).json()
                    held = (await client.get("/api/rules")).json()
                    levels = {r["name"]: r["levels"] for r in held["rules"]}["rain"]
                    if now["revision"] >= 4 and levels["1"] == 5:
                        break
                    await asyncio.sleep(0.1)
            assert (now["assignee"], now["comment"], now["shelved_until_ms"]) == (
                "crew-7", "seen", 0,
            )  # fmt: skip
            assert now["acknowledged"]
            assert held["pack"].startswith(f"{city.version}+")
