"""The shell's single rules; schedules of everything that can go wrong are in tests/exact."""

import asyncio
from collections.abc import Awaitable, Sequence

import msgspec
import pytest

from citybrain import findings, stats
from citybrain.city import City
from citybrain.columns import Rosters
from citybrain.errors import BrokerError, InvalidInput
from citybrain.kinds import MINUTE
from citybrain.pack import load
from citybrain.stage import Out, Record
from citybrain.streams.rollup import Rollup
from citybrain.streams.shell import Shell
from tests.memory_world import FENCED, MemoryStore, World
from tests.packs import write_pack
from tests.shard_log import ShardLog

T0 = 1_700_000_000_000 // 900_000 * 900_000


async def run(city: City, records: Sequence[Record]) -> World:
    """One process that takes everything and nothing goes wrong."""
    world = World(records)
    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), world.publish,
        world.acknowledge, world.clock, FENCED, world.look,
    )  # fmt: skip
    await shell.open()
    for record in records:
        await shell.take(record)
    await shell.close()
    return world


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
    return told(await run(city, records))


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
    world = World(log)

    async def life() -> Shell:
        shell = Shell(
            "rollup", 0, lambda: Choking(city, 0), MemoryStore(world), world.publish,
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
    world = await run(city, records)
    world.blocks.pop(next(name for name in world.blocks if name.startswith("pane")))
    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), world.publish,
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
    world = World(records)
    answer: tuple[int, int | None] = (0, 3)
    asked = []

    async def look(start: int, end: int) -> tuple[int, int | None]:
        asked.append((start, end))
        return answer

    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), world.publish,
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
    world = World(records)
    gate = asyncio.Event()

    class Slow(MemoryStore):
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
    hour, world = 60 * MINUTE, World(log.records)
    world.now_ms = T0 - hour
    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), world.publish,
        world.acknowledge, lambda: world.now_ms, FENCED, world.look,
    )  # fmt: skip
    await shell.open()
    for record in log.records:
        await shell.take(record)
    assert not await shell.tick(T0 - hour + 1_000)
    assert len(await shell.tick(T0 - hour + 40_000)) == 2


async def test_a_snapshot_never_comes_between_a_record_and_its_outputs(
    city: City, records: list[Record]
) -> None:
    world, gate = World(records), asyncio.Event()

    async def publish(outs: Sequence[Out]) -> Awaitable[object]:
        await gate.wait()
        return await world.publish(outs)

    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), publish, world.acknowledge,
        world.clock, FENCED, world.look,
    )  # fmt: skip
    await shell.open()
    taking = asyncio.create_task(shell.take(records[0]))
    await asyncio.sleep(0)
    saving = asyncio.create_task(shell.snapshot())
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.manifest is None  # the outputs have not even been handed over
    gate.set()
    await asyncio.gather(taking, saving)
    assert world.acknowledged == 1
    assert world.plain


async def test_a_state_that_a_record_has_left_half_changed_is_not_saved(
    city: City, records: list[Record]
) -> None:
    class HalfWay(Rollup):
        def apply(self, record: Record) -> list[Out]:
            super().apply(record)
            raise ZeroDivisionError("on purpose")

    world = World(records)
    shell = Shell(
        "rollup", 0, lambda: HalfWay(city, 0), MemoryStore(world), world.publish,
        world.acknowledge, world.clock, FENCED, world.look,
    )  # fmt: skip
    await shell.open()
    with pytest.raises(ZeroDivisionError):
        await shell.take(records[0])
    await shell.snapshot()
    assert world.manifest is not None
    assert world.manifest.failed is not None
    assert (world.blocks, world.acknowledged) == ({}, 0)


async def test_a_clock_that_was_set_back_does_not_put_off_a_snapshot(
    city: City, records: list[Record]
) -> None:
    world = World(records)
    world.now_ms = 7_200_000
    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), world.publish,
        world.acknowledge, world.clock, FENCED, world.look,
    )  # fmt: skip
    await shell.open()
    await shell.take(records[0])
    assert not shell.due
    world.now_ms -= 3_600_000
    assert shell.due


async def test_state_of_an_older_form_is_rebuilt_and_of_a_newer_one_refused(
    city: City, records: list[Record]
) -> None:
    world = await run(city, records)
    whole = world.manifest
    assert whole is not None
    for version in (0, 2):
        world.manifest = msgspec.structs.replace(whole, version=version)
        shell = Shell(
            "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), world.publish,
            world.acknowledge, world.clock, FENCED, world.look,
        )  # fmt: skip
        if version == 2:
            with pytest.raises(InvalidInput, match="version 2, known is 1"):
                await shell.open()
        else:
            assert await shell.open() is None


async def test_a_fresh_shell_takes_no_record_before_the_first_of_its_log(
    city: City, records: list[Record]
) -> None:
    world = World(records)
    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), world.publish,
        world.acknowledge, world.clock, FENCED, world.look,
    )  # fmt: skip
    assert await shell.open() is None
    shell.begin(records[0].offset)
    with pytest.raises(BrokerError, match="got record 5 while 0 was expected"):
        await shell.take(records[5])
