"""Schedules of the rollup shell: one shard, and all of its outputs against the truth."""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from citybrain import batch as readings
from citybrain import stats
from citybrain.accounts import Account
from citybrain.batch import Batch
from citybrain.city import City
from citybrain.columns import Rosters
from citybrain.findings import DeadLetter
from citybrain.stage import Out, Record
from citybrain.streams.rollup import Rollup
from citybrain.streams.shell import Shell
from citybrain.streams.snapshots import KafkaStore
from tests.simulated.cases import POISON, Case, Statistics, Window, case, small_city
from tests.simulated.loop import OWNER
from tests.simulated.schedule import World
from tests.simulated.worker import Engine

CITY = small_city()
LOGS = 40
_rosters = Rosters()


class Choking(Rollup):
    """Fails half-way through one record always, and through another the first time."""

    def apply(self, record: Record) -> Sequence[Out]:
        owner = OWNER.get()
        assert owner is not None
        outs = super().apply(record)
        if record.value in (POISON, owner.world.case.flaky):
            owner.world.choke(record.value, record.value == POISON)
        return outs


def rollup(city: City, partition: int) -> Rollup:
    return Choking(city, partition)


def world(
    seed: int,
    shell: type[Shell] = Shell,
    store: type[KafkaStore] = KafkaStore,
    stage: object = rollup,
    fence: bool = True,
) -> World:
    """The world of a seed."""
    one = case(seed % LOGS, poison=seed % 5 == 0)
    engine = Engine(CITY, {"readings": ("rollup", stage)}, shell, store)  # type: ignore[dict-item]  # a factory
    return World(one, engine, seed, fence=fence)


def play(seed: int, **planted: object) -> World:
    """Play a schedule and judge it. Raises AssertionError, or whatever has gone wrong."""
    played = world(seed, **planted)  # type: ignore[arg-type]  # passed on as they are
    played.play()
    judge(played, played.case)
    return played


def judge(world: World, case: Case) -> None:
    """Everything that a reader can see is what the truth says."""
    truth = case.truth
    assert windows(world) == truth.windows
    backfilled: set[tuple[str, str, int, float]] = set()
    for log in world.topic("backfill"):
        for entry in log.ever():
            backfilled |= set(_backfill(entry.value or b""))
    assert backfilled == truth.backfill
    letters: dict[str, DeadLetter] = {}
    for log in world.topic("dead-letter"):
        for entry in log.ever():
            letter = msgspec.json.decode(entry.value or b"", type=DeadLetter)
            assert letters.setdefault(letter.id, letter) == letter, letter.id
    told: dict[tuple[str, str], int] = defaultdict(int)
    names = {number: shard for shard, number in case.city.shards.items()}
    for letter in letters.values():
        told[names[letter.retry_partition or 0], letter.reason] += letter.readings or 0
    assert told == truth.letters
    accounts: dict[str, Account] = {}
    for log in world.topic("accounts"):
        for entry in log.ever():
            account = msgspec.json.decode(entry.value or b"", type=Account)
            accounts[account.shard] = account
    for (shard, fate), count in truth.fates.items():
        assert accounts[shard].counts[fate] == count, (shard, fate, accounts[shard].counts, count)
    for shard in accounts:
        assert accounts[shard].counts["gaps"] == 0


def windows(world: World) -> dict[Window, Statistics]:
    """The last revision of each window of each sensor that holds a reading, as a reader has it.

    Readers take each (window, revision) once. Whatever says it again must say the same, and a
    revision is seen for the first time only after the ones before it.
    """
    found: dict[Window, Statistics] = {}
    said: dict[tuple[str, str, int, int, int], bytes] = {}
    newest: dict[tuple[str, str, int, int], int] = {}
    for log in world.topic("stats"):
        for entry in log.ever():
            value = entry.value or b""
            if value[:1] == b"{":
                continue
            head, rows = _window(value)
            name = (head.shard, head.kind, head.window_ms, head.start_ms)
            one = (*name, head.revision)
            if one in said:
                assert said[one] == value, f"{one} was told in two ways"
                continue
            said[one] = value
            expected = newest.get(name, -1) + 1
            assert head.revision == expected, f"{name}: {head.revision} came before {expected}"
            newest[name] = head.revision
            for sensor, numbers in rows:
                found[head.kind, head.window_ms, head.start_ms, sensor] = numbers
    return found


@lru_cache(maxsize=20_000)
def _window(value: bytes) -> tuple[stats.StatsHead, list[tuple[str, Statistics]]]:
    entry = stats.decode(value, _rosters)
    assert isinstance(entry, stats.Stats)
    names = entry.roster.names
    columns = (entry.codes, entry.seen, entry.sum, entry.sumsq, entry.min, entry.max, entry.last,
               entry.last_ms)  # fmt: skip
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return entry.head, [(names[code], tuple(rest)) for code, *rest in rows if rest[0]]  # type: ignore[misc]  # seven numbers


@lru_cache(maxsize=5_000)
def _backfill(value: bytes) -> tuple[tuple[str, str, int, float], ...]:
    batch = readings.decode(value, _rosters)
    assert isinstance(batch, Batch)
    names = batch.roster.names
    rows = zip(batch.codes.tolist(), batch.time_ms.tolist(), batch.value.tolist(), strict=True)
    return tuple((batch.head.kind, names[code], at, number) for code, at, number in rows)
