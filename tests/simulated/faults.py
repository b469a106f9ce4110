"""What goes wrong: one function a kind of fault, and for which world it is fair."""

from collections.abc import Callable
from typing import Any

import msgspec

from citybrain.streams.shell import Manifest
from citybrain.topics import full_name
from tests.simulated.broker import Log


def kill(world: Any) -> None:
    """SIGKILL: what was in memory is gone, what had left the machine may arrive."""
    up = world.up()
    if up:
        world.kill(world.rng.choice(up))


def kill_after_save(world: Any) -> None:
    """SIGKILL the moment that the broker has a whole snapshot: nothing behind it is done."""
    world.kill_at_commit = True


def freeze(world: Any) -> None:
    """SIGSTOP beyond the session; later it wakes up and goes on where it was."""
    up = world.up()
    if len(up) > 1:
        world.freeze(world.rng.choice(up))


def rebalance(world: Any) -> None:
    """Partitions change hands, also in the middle of a snapshot."""
    world.group.rebalance()


def join(world: Any) -> None:
    """A worker is added."""
    if len(world.up()) < 4:
        world.launch()


def leave(world: Any) -> None:
    """A worker is stopped in order."""
    up = world.up()
    if len(up) > 1:
        world.stop(world.rng.choice(up))


def time_out(world: Any) -> None:
    """The answer to a producer's request is lost; its record did arrive."""
    world.broker.time_outs += 1


def slow_outputs(world: Any) -> None:
    """Outputs wait on their way while snapshots do not; the process dies in between."""
    world.slow_until = world.loop.steps + world.rng.randint(30, 200)
    world.kill_while_waiting = world.rng.randint(1, 6)


def wrong_clock(world: Any) -> None:
    """One machine's clock is an hour off, either way."""
    up = world.up()
    if up:
        world.rng.choice(up).skew_ms = world.rng.choice((-3_600_000, 3_600_000))


def compact(world: Any) -> None:
    """The broker compacts what is compacted."""
    for place, log in world.broker.logs.items():
        if place.topic in world.compacted:
            log.compact()


def retention(world: Any) -> None:
    """What was acknowledged is dropped: nobody has a right to it any more."""
    world.retention = True
    for place in world.group.owner:
        world.acknowledged(place)


def empty(world: Any) -> None:
    """The changelog is gone."""
    for log in _changelogs(world):
        log.entries = []


def truncated(world: Any) -> None:
    """The changelog has lost its end, or its beginning."""
    for log in _changelogs(world):
        cut = world.rng.randint(0, len(log.entries))
        log.entries = log.entries[cut:] if world.rng.random() < 0.5 else log.entries[:cut]


def older(world: Any) -> None:
    """The changelog was written by the version before."""
    for log in _changelogs(world):
        for entry in log.entries:
            if entry.key is not None and entry.key.endswith(b"/manifest") and entry.value:
                manifest = msgspec.json.decode(entry.value, type=Manifest)
                old = msgspec.structs.replace(manifest, version=manifest.version - 1)
                entry.value = msgspec.json.encode(old)


def damaged(world: Any) -> None:
    """A block of the changelog is missing."""
    for log in _changelogs(world):
        blocks = [e for e in log.entries if e.key and not e.key.endswith(b"/manifest")]
        if blocks:
            log.entries.remove(world.rng.choice(blocks))


def _changelogs(world: Any) -> list[Log]:
    topic = full_name(world.engine.city.id, "snapshots")
    return [log for place, log in world.broker.logs.items() if place.topic == topic]


Fault = Callable[[Any], None]

ALWAYS: dict[str, Fault] = {
    "kill": kill, "kill after a save": kill_after_save, "freeze": freeze,
    "rebalance": rebalance, "join": join, "leave": leave,
    "time-out, arrived": time_out, "slow outputs": slow_outputs,
    "wrong clock": wrong_clock, "compaction": compact,
}  # fmt: skip
KEEPS_NOTHING: dict[str, Fault] = {"retention": retention}
"""The log is cut below what was acknowledged, so that state must be durable by then."""
LOSES_STATE: dict[str, Fault] = {
    "changelog empty": empty, "changelog truncated": truncated, "changelog older": older,
    "changelog damaged": damaged,
}  # fmt: skip
"""State is lost; the log is whole and must be enough."""
