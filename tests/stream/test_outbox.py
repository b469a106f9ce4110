"""Webhooks: a real receiver hears of each new or worse alert once."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.findings import Finding, Progress
from citybrain.webhooks import run
from tests.alerting import T0, finding, small_city
from tests.stream.alerting_log import alerting, write

Heard = list[tuple[str, dict[str, Any]]]
"""Idempotency key and alert of each request."""


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it hears; answers with the statuses it is told, then 200."""

    heard: ClassVar[Heard]
    statuses: ClassVar[list[int]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((self.headers["Idempotency-Key"], json.loads(body)))
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def receiver(
    *statuses: int, port: int = 0
) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    handler = type("Handler", (Receiver,), {"heard": [], "statuses": list(statuses)})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", handler.heard  # type: ignore[attr-defined]  # set above
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def nobody() -> Iterator[int]:
    """A port of 127.0.0.1 at which nobody answers, for as long as nobody takes it."""
    with receiver() as (address, _):
        port = int(address.rsplit(":", 1)[1].split("/")[0])
    yield port


async def tell(broker: LocalBroker, city: City, minute: int, *findings: Finding) -> None:
    through = T0 + minute * 60_000
    passed = [Progress(shard=shard, through_ms=through) for shard in city.shards]
    await write(broker.settings, city, "findings", [*findings, *passed])


async def until(done: Any) -> None:
    """Wait for a condition, up to a minute."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "not within a minute"
        await asyncio.sleep(0.05)


async def test_new_and_worse_alerts_are_told_once_over_restarts(
    broker: LocalBroker, tmp_path: Path, city_id: str
) -> None:
    city = small_city(tmp_path, city_id)
    with receiver() as (address, heard):
        async with alerting(broker.settings, city):
            await tell(broker, city, 1, finding("rain", score=1.5), finding("outage"))
            for minute in (2, 3):
                stop = asyncio.Event()
                delivering = asyncio.create_task(
                    run(broker.settings, city.id, tmp_path, address, stop=stop)
                )
                story = finding("rain", at_min=minute, state="updated", score=minute + 1.0)
                await tell(broker, city, minute, story)
                await until(lambda count=minute + 1: len(heard) >= count)
                stop.set()
                await delivering
    told = [(alert["rule"], alert["transition"], alert["severity"]) for _, alert in heard]
    assert sorted(told[:2]) == [("outage", "raised", 2), ("rain", "raised", 4)]
    assert told[2:] == [("rain", "escalated", 2), ("rain", "escalated", 1)]
    assert len({key for key, _ in heard}) == 4


async def test_an_address_that_is_away_holds_up_no_other_and_hears_later(
    broker: LocalBroker, tmp_path: Path, city_id: str
) -> None:
    city = small_city(tmp_path, city_id)
    stop = asyncio.Event()
    with receiver(503, 400) as (address, heard), nobody() as port:
        away = f"http://127.0.0.1:{port}/hook"
        async with alerting(broker.settings, city):
            delivering = asyncio.create_task(
                run(broker.settings, city.id, tmp_path, f"{away}, {address}", stop=stop)
            )
            await tell(broker, city, 1, finding("rain"))
            # 503 asks for another try, 400 is an answer.
            await until(lambda: len(heard) == 2)
            with receiver(port=port) as (_, late):
                await until(lambda: len(late) == 1)
            stop.set()
            await delivering
    assert heard[0] == heard[1]
    assert late == heard[:1]
