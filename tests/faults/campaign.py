"""One campaign: a cluster under load, faults one after the other, and the verdict."""

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from citybrain import ledger
from tests.faults import judge
from tests.faults.cluster import Cluster
from tests.faults.drawn import FAULTS, Fault
from tests.faults.follow import Follower
from tests.faults.load import EPISODE_MS, Load

ORDINARY_S = 5.0
"""So far event time is behind at all times: it waits for late devices (1 s), for a second of
readings, and for late readings (2 s)."""
CATCH_UP_S = 300.0
SETTLE_S = 240.0


@dataclass(slots=True)
class Blow:
    """One fault as it happened. lasted_s: until things were put right again; behind_s: from
    then on until everything was up to date, -1 if that did not happen in time."""

    at_s: float
    fault: str
    target: str
    lasted_s: float
    behind_s: float


@dataclass(slots=True)
class Report:
    """What a campaign found. differences: empty if everything held."""

    seed: int
    blows: list[Blow] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    readings: int = 0
    seconds: float = 0.0
    facts: dict[str, int | float] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. only: names of faults to draw from. minutes: no further fault after that."""

    faults: int
    seed: int
    readings: int = 0
    sensors: int = 400
    only: Sequence[str] = tuple(FAULTS)
    minutes: float = float("inf")

    def drawn(self) -> tuple[list[str], random.Random]:
        """Names of the faults in order, and the source for their details."""
        rng = random.Random(self.seed)
        names: list[str] = []
        while len(names) < self.faults:
            # Every kind before any kind again, so that a short run is a wide one.
            names += rng.sample(list(self.only), len(self.only))
        return names[: self.faults], rng


async def run(plan: Plan, folder: Path | None = None) -> Report:
    """Carry out a plan in a folder that is deleted afterwards (a given one is kept)."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="citybrain-faults-") as made:
            return await _run(plan, Path(made))
    return await _run(plan, folder)


async def _run(plan: Plan, folder: Path) -> Report:
    report = Report(plan.seed)
    begin = time.monotonic()
    async with Cluster(folder, plan.sensors) as cluster:
        load = Load(cluster.city, plan.seed)
        for device in load.devices:
            cluster.introduce(device)
        follower = Follower(cluster.broker.settings, cluster.city.id, load.truth.names)
        following = asyncio.create_task(follower.run())
        loading = asyncio.create_task(load.run())
        try:
            if await catch_up(cluster, load, follower, loading, following) < 0:
                report.differences.append("the engine never came up")
                return report
            names, rng = plan.drawn()
            for name in names:
                if time.monotonic() - begin > plan.minutes * 60:
                    break
                blow = await _strike(name, FAULTS[name], cluster, load, rng, begin)
                blow.behind_s = await catch_up(cluster, load, follower, loading, following)
                report.blows.append(blow)
                _say(blow)
                if blow.behind_s < 0:
                    report.differences.append(f"not up to date {CATCH_UP_S:.0f} s after {name}")
            while load.truth.accepted < plan.readings:
                await asyncio.sleep(1)
            await finish(cluster, load, loading, follower, report)
        finally:
            for task in (following, loading):
                task.cancel()
            await asyncio.gather(following, loading, return_exceptions=True)
            for one in cluster.kept:
                report.ended.update({f"{one.name}: {why}": n for why, n in one.ended.items()})
    report.readings = load.truth.accepted
    report.seconds = time.monotonic() - begin
    return report


async def _strike(
    name: str, fault: Fault, cluster: Cluster, load: Load, rng: random.Random, begin: float
) -> Blow:
    at = time.monotonic()
    target = await fault(cluster, load, rng)
    return Blow(at - begin, name, target, time.monotonic() - at, -1.0)


async def catch_up(
    cluster: Cluster,
    load: Load,
    follower: Follower,
    *tasks: "asyncio.Task[None]",
) -> float:
    """Seconds until devices wait for nobody and every shard has passed this moment, but for
    what event time is behind anyway; -1 if never."""
    begin, now_ms = time.monotonic(), time.time() * 1000
    while time.monotonic() - begin < CATCH_UP_S:
        for task in tasks:
            if task.done():
                task.result()
        if (
            load.waiting <= 2 * len(load.devices)
            and follower.passed_ms(list(cluster.city.shards)) >= now_ms
        ):
            return max(0.0, time.monotonic() - begin - ORDINARY_S)
        await asyncio.sleep(0.2)
    return -1.0


async def finish(
    cluster: Cluster,
    load: Load,
    loading: "asyncio.Task[None]",
    follower: Follower,
    report: Report,
) -> None:
    """Let everything end that has begun, then judge until it holds or time is over."""
    load.quieten()
    over = max((e.end_ms for e in load.truth.episodes), default=0) + 15_000
    await asyncio.sleep(min(EPISODE_MS / 1000 + 15, max(0.0, over / 1000 - time.time())))
    load.stop()
    await loading
    until = time.monotonic() + SETTLE_S
    while True:
        await asyncio.sleep(3)
        found = await _differences(cluster, load, follower, report)
        if not found or time.monotonic() > until:
            report.differences += found
            return


async def _differences(
    cluster: Cluster, load: Load, follower: Follower, report: Report
) -> list[str]:
    truth, told = load.truth, follower.told
    book = await ledger.read(cluster.broker.settings, cluster.city.id, cluster.city.shards)
    found = [
        *judge.sum_holds(book, truth),
        *judge.panes_hold(truth, told),
        *judge.longer_windows_hold(truth, told),
        *judge.refusals_hold(truth, told),
        *judge.effects_hold(told, cluster.receiver),
        *told.contradictions,
    ]
    history = cluster.folder / "historian"
    found += await asyncio.to_thread(lambda: list(judge.history_holds(truth, history)))
    wrong, unseen = judge.alerts_hold(truth, told)
    report.facts = {
        "produced": book.produced,
        "counted": book.counted,
        "late": book.late,
        "repeated by transport": book.repeated,
        "refused by agents": sum(truth.refused.values()),
        "backfilled": book.backfilled,
        "windows told again": told.repeats,
        "episodes": len(truth.episodes),
        "alerts": len(told.alerts),
        "episodes seen only later": unseen,
        "webhooks": sum(cluster.receiver.came.values()),
        "furthest ahead of the clock, s": round(told.ahead_ms / 1000),
    }
    return found + wrong


def _say(blow: Blow) -> None:
    print(
        f"{blow.at_s:7.0f} s  {blow.fault:<28} {blow.target:<24} lasted {blow.lasted_s:5.1f} s,"
        f" up to date after {blow.behind_s:5.1f} s",
        file=sys.stderr,
        flush=True,
    )
