"""The shell: whatever dies, whenever, the outputs are those of a run without a crash."""

import asyncio
import os
from collections.abc import Sequence

import msgspec
import pytest

from citybrain import findings, stats
from citybrain.city import City
from citybrain.columns import Rosters
from citybrain.errors import BrokerError
from citybrain.kinds import MINUTE
from citybrain.pack import load
from citybrain.stage import Out, Record
from citybrain.streams.rollup import Rollup
from citybrain.streams.shell import Shell
from tests.packs import write_pack
from tests.shard_log import ShardLog
from tests.simulated import FENCED, SimulatedStore, World, run

T0 = 1_700_000_000_000 // 900_000 * 900_000
SCHEDULES = 3_000 if os.environ.get("CITYBRAIN_TEST_SIZE") == "full" else 100


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return load(str(write_pack(tmp_path_factory.mktemp("pack"))))


@pytest.fixture(scope="module")
def records(city: City) -> list[Record]:
    """Three minutes of batches, late ones, repeated ones, damaged ones and heartbeats."""
    log = ShardLog(city, "north")
    for step in range(18):
        now = T0 + step * 10_000
        log.batch("g1", "vehicle_count", [("d1", now, step), ("d2", now + 1, 2.0)], now)
        log.batch("g1", "vehicle_speed", [("d2", now - MINUTE, 50.0)], now, at_ms=now + 600)
        if step % 5 == 0:
            log.raw(b"nonsense", now + 700, (("n", b"3"),))
            log.batch("g1", "vehicle_count", [("d1", now, step)], now, seq=0)
        log.beat("g3", now, at_ms=now + 800)
    return log.records


def told(world: World) -> tuple[dict, set[bytes], dict]:
    """What a reader holds: each window's revision once, dead letters by id, the last account."""
    windows: dict = {}
    for out in world.plain:
        if out.topic == "stats":
            entry = stats.decode(out.value, Rosters())
            if isinstance(entry, stats.Stats):
                head = entry.head
                name = (head.kind, head.window_ms, head.start_ms, head.revision)
                assert windows.setdefault(name, out.value) == out.value, f"{name} was told twice"
    letters = {out.key or b"" for out in world.plain if out.topic == "dead-letter"}
    return windows, letters, {key: out.value for key, out in world.table.items()}


async def truth(city: City, records: list[Record]) -> tuple[dict, set[bytes], dict]:
    return told(await run(lambda: Rollup(city, 0), records, 0, crashes=0))


async def test_no_crash_redelivery_or_zombie_changes_what_is_told(
    city: City, records: list[Record]
) -> None:
    expected = await truth(city, records)
    assert len(expected[0]) > 50
    for seed in range(SCHEDULES):
        world = await run(lambda: Rollup(city, 0), records, seed)
        assert told(world) == expected, f"seed {seed}"


async def found(city: City, records: list[Record], **fault: object) -> bool:
    """Whether the schedules notice a planted fault."""
    expected = await truth(city, records)
    for seed in range(SCHEDULES):
        try:
            world = await run(lambda: Rollup(city, 0), records, seed, **fault)
            if told(world) != expected:
                return True
        except (BrokerError, AssertionError):
            return True
    return False


class AcknowledgesFirst(Shell):
    """Acknowledges what it is about to save."""

    async def snapshot(self) -> None:
        if self.next_offset is not None:
            await self._acknowledge(self.next_offset)
        await super().snapshot()


class ForgetsItsOffset(Shell):
    """Applies what the restored state holds already."""

    async def open(self) -> int | None:
        await super().open()
        self.next_offset = None
        return None


class WaitsForNothing(Shell):
    """Saves and acknowledges before the broker has the outputs."""

    async def _send(self, outs: Sequence[Out]) -> None:
        self._late: list[Out]
        ready, self._late = getattr(self, "_late", []), list(outs)
        await super()._send(ready)


@pytest.mark.parametrize("build", [AcknowledgesFirst, ForgetsItsOffset, WaitsForNothing])
async def test_the_schedules_find_a_shell_that_cheats(
    city: City, records: list[Record], build: type[Shell]
) -> None:
    assert await found(city, records, build=build)


async def test_the_schedules_find_a_store_without_a_fence(
    city: City, records: list[Record]
) -> None:
    assert await found(city, records, fence=False)


class Choking(Rollup):
    """Fails at one record, each time."""

    def apply(self, record: Record) -> list[Out]:
        if record.value == b"choke":
            raise ZeroDivisionError("on purpose")
        return list(super().apply(record))


async def test_a_record_that_fails_twice_goes_to_the_dead_letter_and_the_shard_goes_on(
    city: City, records: list[Record]
) -> None:
    poison = Record("readings", 0, 4, T0, b"choke", None, (("n", b"7"),))
    log = [*records[:4], poison, *records[5:]]
    world = World(log, frozenset())

    async def life() -> Shell:
        shell = Shell(
            "rollup", 0, lambda: Choking(city, 0), SimulatedStore(world), world.publish,
            world.acknowledge, world.clock, FENCED, world.look,
        )  # fmt: skip
        await shell.open()
        for record in log[world.acknowledged :]:
            await shell.take(record)
            if record.offset == 2:
                await shell.snapshot()
        await shell.close()
        return shell

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await life()
    shell = await life()
    assert shell.stage.counts()["dead_lettered"] >= 7
    letters = [
        msgspec.json.decode(out.value, type=findings.DeadLetter)
        for out in world.plain
        if out.topic == "dead-letter"
    ]
    (letter,) = [one for one in letters if one.reason == "poison"]
    assert (letter.original, letter.readings) == (b"choke", 7)
    assert "on purpose" in letter.message
    assert world.acknowledged == len(log)


async def test_a_state_that_is_not_whole_is_rebuilt_from_the_log(
    city: City, records: list[Record]
) -> None:
    world = await run(lambda: Rollup(city, 0), records, 1, crashes=0)
    world.blocks.pop(next(name for name in world.blocks if name.startswith("pane")))
    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), SimulatedStore(world), world.publish,
        world.acknowledge, world.clock, FENCED, world.look,
    )  # fmt: skip
    assert await shell.open() is None
    for record in records:
        await shell.take(record)
    await shell.close()
    assert told(world) == await truth(city, records)


async def test_a_skipped_record_ends_the_process_but_a_hole_in_the_log_does_not(
    city: City, records: list[Record]
) -> None:
    world = World(records, frozenset())
    answer: tuple[int, int | None] = (0, 3)
    asked = []

    async def look(start: int, end: int) -> tuple[int, int | None]:
        asked.append((start, end))
        return answer

    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), SimulatedStore(world), world.publish,
        world.acknowledge, world.clock, FENCED, look,
    )  # fmt: skip
    await shell.take(records[0])
    with pytest.raises(BrokerError, match="got record 5 while 3 was expected"):
        await shell.take(records[5])
    answer = (0, None)  # a transaction has taken these offsets
    await shell.take(records[5])
    assert shell.lost == 0
    answer = (9, None)  # retention has dropped what was before 9
    await shell.take(records[10])
    assert shell.lost == 3
    assert asked == [(1, 5), (1, 5), (6, 10)]


async def test_records_are_taken_while_a_snapshot_is_on_its_way(
    city: City, records: list[Record]
) -> None:
    world = World(records, frozenset())
    gate = asyncio.Event()

    class Slow(SimulatedStore):
        async def save(self, *args: object) -> None:
            await gate.wait()
            await super().save(*args)  # type: ignore[arg-type]

    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), Slow(world), world.publish, world.acknowledge,
        world.clock, FENCED, world.look,
    )  # fmt: skip
    await shell.open()
    await shell.take(records[0])
    saving = asyncio.create_task(shell.snapshot())
    await asyncio.sleep(0)
    await shell.take(records[1])
    gate.set()
    await saving
    assert world.acknowledged == 1
    assert shell.next_offset == 2


async def test_an_owner_whose_clock_is_an_hour_behind_still_notices_silence(city: City) -> None:
    log = ShardLog(city, "north")
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0)
    log.beat("g3", T0)
    hour, world = 60 * MINUTE, World(log.records, frozenset())
    world.now_ms = T0 - hour
    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), SimulatedStore(world), world.publish,
        world.acknowledge, lambda: world.now_ms, FENCED, world.look,
    )  # fmt: skip
    await shell.open()
    for record in log.records:
        await shell.take(record)
    assert not await shell.tick(T0 - hour + 1_000)
    assert len(await shell.tick(T0 - hour + 40_000)) == 2
