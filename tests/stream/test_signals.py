"""Signals on a real broker: worker, relay and an arbiter, and what happens when one is killed."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from citybrain import pack, plan_keys, signal_log, topics
from citybrain.broker import LocalBroker
from citybrain.clock import wall_clock
from citybrain.dead_letters import by, letters
from citybrain.edge.arbiter import LOCAL, Arbiter, Limits
from citybrain.edge.relay import Relay
from citybrain.kafka import KafkaSettings
from citybrain.signal_log import GATEWAY, Detections, Report
from citybrain.signal_state import read, words
from citybrain.signals import Lamp, Plan, signed
from citybrain.topics import full_name
from tests.packs import CITY, write_pack
from tests.stream.engine import WorkerProcess, producer
from tests.unit.test_interlock import unsafe
from tests.unit.test_signal_models import JUNCTION

TICK_S = 0.5
DEADLINE_S = 150.0


class Corner:
    """One junction as at the street: an arbiter on a real clock, reports through a relay."""

    def __init__(self, relay: Relay, key: bytes) -> None:
        self.relay, self.begun = relay, time.monotonic()
        self.arbiter = Arbiter(JUNCTION, key, wall_clock())
        self.lamps: list[tuple[int, dict[str, Lamp]]] = [(0, self.arbiter.interlock.lamps)]
        self.plans: list[Plan] = []
        self.after = self.ticks = 0

    async def tick(self) -> None:
        now_ms, up_ms = wall_clock(), round((time.monotonic() - self.begun) * 1000)
        self.lamps.append((up_ms, self.arbiter.tick(now_ms, up_ms).lamps))
        self.ticks += 1
        if self.ticks % 2 == 0:
            orders = await self.relay.exchange(signal_log.encode(self.report(now_ms)), self.after)
            self.after = orders.serial
            self.plans += [p for p in orders.plans if self.arbiter.take(wall_clock(), p) is None]
        await asyncio.sleep(TICK_S)

    def report(self, now_ms: int) -> Report:
        refusals = list(self.arbiter.refusals)
        self.arbiter.refusals.clear()
        names = [area.id for area in JUNCTION.areas]
        some = [3 * (i % 2) for i in range(len(names))]
        seen = Detections(
            at_ms=now_ms - 5_000, expires_ms=now_ms + 15_000, detectors=names,
            passed=some, present=some, waiting=some,
        )  # fmt: skip
        return Report(gateway=GATEWAY, at_ms=now_ms, shown=[self.arbiter.report()],
                      detections=[seen], refusals=refusals)  # fmt: skip

    async def until(self, true: Any, why: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not true():
            assert time.monotonic() < end, f"not within {DEADLINE_S} s: {why}"
            await self.tick()


async def hostile(settings: KafkaSettings, city: str, key: bytes, plan: Plan) -> None:
    """Plans that nobody should follow, straight into the log."""
    now = wall_clock()
    fresh = msgspec.structs.replace(plan, sequence=now, issued_ms=now, expires_ms=now + 5_000)
    change = msgspec.structs.replace
    wrong = [
        change(fresh, mac="0" * 64),
        plan,
        signed(key, change(fresh, junction="nowhere")),
        signed(key, change(fresh, stage="s99", source="operator")),
        signed(key, change(fresh, expires_ms=now - 1, source="operator")),
        signed(key, change(fresh, issued_ms=now + 60_000, source="operator")),
    ]
    async with producer(settings) as client:
        name = full_name(city, "signal-plans")
        for one in [*map(msgspec.json.encode, wrong), b"\xff\x00", b"{}"]:
            await client.send_and_wait(name, one, b"x")


async def test_a_killed_worker_leaves_the_junction_to_its_local_plan_and_a_new_one_takes_over(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    folder = write_pack(tmp_path / "pack", city=CITY.replace('"small"', f'"{city_id}"'))
    rows = {"junction": [msgspec.to_builtins(JUNCTION)]}
    (folder / "signals.toml").write_bytes(msgspec.toml.encode(rows))
    city, key = pack.load(str(folder)), plan_keys.key(tmp_path)
    await topics.ensure(broker.settings, city.id, city.partitions)
    relay = Relay(city.id, city.signals, broker.settings, CollectorRegistry(), wall_clock)
    relaying = asyncio.create_task(relay.run())
    workers = [WorkerProcess(folder, tmp_path, broker.settings.bootstrap, "one", "signals")]
    try:
        corner = Corner(relay, key)
        arbiter = corner.arbiter
        await corner.until(lambda: arbiter.source == "adaptive", "the first worker's plans")
        await hostile(broker.settings, city.id, key, corner.plans[0])
        (state,) = await read(broker.settings, city.id, [JUNCTION])
        assert any(line.startswith("  why") for line in words(state, JUNCTION, wall_clock()))

        workers[0].kill()
        await corner.until(lambda: arbiter.source == LOCAL, "back to the local plan")
        late_ms = wall_clock() - corner.plans[-1].expires_ms - Limits().silence_ms
        assert late_ms < 10_000, "the stage was held long after its plan had run out"

        workers.append(WorkerProcess(folder, tmp_path, broker.settings.bootstrap, "two", "signals"))
        await corner.until(lambda: arbiter.source == "adaptive", "the second worker's plans")

        assert list(unsafe(JUNCTION.table, corner.lamps)) == []
        found = await letters(broker.settings, city.id, by((), step="arbiter"))
        told = {letter.reason for letter in found}
        assert {"signature", "sequence", "junction", "stage", "expired", "clock", "form"} <= told
        assert all(letter.message for letter in found)
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
        for worker in workers:
            worker.stop()
